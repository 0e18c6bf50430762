"""Memory types of Tables 8 and 9, and the MTRRs of 11.4.12."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devices.dma import NO_SNOOP, READ, WRITE, AddressType
from pagetables.first_stage import FirstStagePage2M, FirstStagePage4K
from pagetables.memory import PhysicalMemory
from pagetables.second_stage import SecondStagePage4K
from tests.support.world import Mode, World
from vtd.inspection.memory_type import (
    EFFECTIVE,
    MemoryType,
    attributes_of,
    memory_attributes,
    mtrr_type,
)
from vtd.layouts.entries import ContextEntry, PasidEntry, PasidTranslationType
from vtd.layouts.registers import MtrrCapability
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.registers.register_file import RegisterFile
from vtd.unit.requests.target import LEGACY, SCALABLE, IotlbTags, Target
from vtd.unit.translation.translate import Page
from vtd.unit.unit import RemappingUnit

Kind = PasidTranslationType
UC, WC, WT, WP, WB, UC_MINUS = MemoryType

PAT = 0x1_0746
"""Index 0 WB, 1 WT, 2 UC-, 3 UC, 4 WC."""


def registers(default: int = 0xC06, **capability: int) -> RegisterFile:
    """A unit whose MTRRs are on, all memory WB by default; ``capability`` changes MTRRCAP_REG."""
    mtrrcap = MtrrCapability.of(**{"wc": True, "fix": True, "vcnt": 10, **capability})
    file = RegisterFile(PROFILES["xeon"], {0x100: int(mtrrcap)})
    file.write(0x108, 8, default)
    return file


def target(kind: Kind, **fields: int) -> Target:
    entry = PasidEntry.of(p=True, pgtt=kind, **fields)
    tags = IotlbTags(1, kind, 0)
    return Target(
        kind,
        1,
        0,
        False,
        None,
        None,
        48,
        SCALABLE,
        entry,
        tags,
        entry.pgsnp,
        has_flags=False,
        canonical_width=48,
    )


def page(first: int | None = None, second: int | None = None, shift: int = 12) -> Page:
    leaves = [None if entry is None else (entry, shift, 7, 1, 0) for entry in (first, second)]
    return 0x20_0000, shift, READ | WRITE, False, leaves[0], leaves[1], PhysicalMemory()


@pytest.mark.section("3.11.4.1")
def test_legacy_mode_is_write_back() -> None:
    legacy = replace(target(Kind.SECOND_STAGE), reasons=LEGACY, entry=ContextEntry(1))
    assert memory_attributes(registers(), legacy, page(second=3)).memory_type is WB


@pytest.mark.parametrize("kind", [Kind.FIRST_STAGE, Kind.SECOND_STAGE, Kind.PASS_THROUGH])
@pytest.mark.section("3.11.4.2")
def test_cache_disable_makes_every_page_uncacheable(kind: Kind) -> None:
    assert memory_attributes(registers(), target(kind, cd=True), page(1, 3)).memory_type is UC


def test_pass_through_is_write_back() -> None:
    attributes = memory_attributes(registers(), target(Kind.PASS_THROUGH, emte=True), page())
    assert attributes.memory_type is WB


@pytest.mark.parametrize(("emt", "expected"), [(0, UC), (1, WC), (4, WT), (5, WP), (6, WB)])
@pytest.mark.section("3.11.4.2")
def test_second_stage_type_is_emt_with_emte(emt: int, expected: MemoryType) -> None:
    leaf = SecondStagePage4K.of(r=True, emt=emt)
    assert (
        memory_attributes(
            registers(), target(Kind.SECOND_STAGE, emte=True), page(second=leaf)
        ).memory_type
        is expected
    )
    assert (
        memory_attributes(registers(), target(Kind.SECOND_STAGE), page(second=leaf)).memory_type
        is WB
    )


@pytest.mark.parametrize("emt", [2, 3, 7])
def test_a_reserved_emt_has_no_memory_type(emt: int) -> None:
    leaf = SecondStagePage4K.of(r=True, emt=emt, ipat=True)
    for kind, first in ((Kind.SECOND_STAGE, None), (Kind.NESTED, 1)):
        entry = target(kind, emte=True)
        assert memory_attributes(registers(), entry, page(first, leaf)).memory_type is None


@pytest.mark.parametrize(
    ("bits", "expected"), [({}, WB), ({"pwt": 1}, WT), ({"pcd": 1}, UC), ({"pat": 1}, WC)]
)
@pytest.mark.parametrize(("record", "shift"), [(FirstStagePage4K, 12), (FirstStagePage2M, 21)])
@pytest.mark.section("3.11.3")
def test_first_stage_type_combines_mtrr_and_pat(
    record: type[FirstStagePage4K | FirstStagePage2M],
    shift: int,
    bits: dict[str, int],
    expected: MemoryType,
) -> None:
    leaf = record.of(p=True, **bits)
    entry = target(Kind.FIRST_STAGE, pat=PAT)
    assert memory_attributes(registers(), entry, page(leaf, shift=shift)).memory_type is expected


@pytest.mark.section("3.11.4.2")
def test_nested_type_is_emt_alone_with_ipat() -> None:
    first = FirstStagePage4K.of(p=True, pwt=True)
    entry = target(Kind.NESTED, pat=PAT, emte=True)
    for ipat, expected in ((True, WP), (False, EFFECTIVE[WP][WT])):
        second = SecondStagePage4K.of(r=True, emt=WP, ipat=ipat)
        assert memory_attributes(registers(), entry, page(first, second)).memory_type is expected


@pytest.mark.parametrize("code", [2, 3, *range(8, 16)])
@pytest.mark.section("3.11.1", "9.6")
def test_a_reserved_pat_code_has_no_memory_type(code: int) -> None:
    entry = target(Kind.FIRST_STAGE, pat=code)
    leaf = FirstStagePage4K.of(p=True)
    assert memory_attributes(registers(), entry, page(leaf)).memory_type is None


def test_snooping_is_forced_by_snp_or_pgsnp() -> None:
    plain, forced = target(Kind.SECOND_STAGE), target(Kind.FIRST_STAGE, pgsnp=True)
    assert memory_attributes(registers(), plain, page(second=3)).snoop
    assert not memory_attributes(registers(), plain, page(second=3), no_snoop=True).snoop
    leaf = SecondStagePage4K.of(r=True, snp=True)
    assert memory_attributes(registers(), plain, page(second=leaf), no_snoop=True).snoop
    assert memory_attributes(registers(), forced, page(1), no_snoop=True).snoop


@pytest.mark.section("11.4.12.2")
@pytest.mark.fields("MtrrDefaultType.e.type")
def test_memory_is_uncacheable_while_mtrrs_are_off() -> None:
    assert mtrr_type(registers(default=6), 0x1234_5000) is UC


@pytest.mark.parametrize(
    ("address", "offset", "field"),
    [
        (0, 0x120, 0),
        (0x7_FFFF, 0x120, 7),
        (0x8_0000, 0x128, 0),
        (0xB_FFFF, 0x130, 7),
        (0xC_0000, 0x138, 0),
        (0xC_8FFF, 0x140, 0),
        (0xF_FFFF, 0x170, 7),
    ],
)
@pytest.mark.section("3.11.2", "11.4.12.3")
@pytest.mark.fields("FixedRangeMtrr.r0.r7", "MtrrDefaultType.fe")
def test_fixed_ranges_cover_the_first_megabyte(address: int, offset: int, field: int) -> None:
    file = registers()
    file.write(offset, 8, int(WP) << 8 * field)
    assert mtrr_type(file, address) is WP
    assert mtrr_type(file, 0x10_0000) is WB


@pytest.mark.parametrize(
    ("types", "expected"),
    [((WC,), WC), ((WC, WC), WC), ((WT, WB), WT), ((UC, WB), UC), ((WC, WB), UC)],
)
@pytest.mark.section("3.11.2", "11.4.12.4")
@pytest.mark.fields("VariableRangeMtrrBase.physbase.type", "VariableRangeMtrrMask.physmask.v")
def test_overlapping_variable_ranges_have_their_precedence(
    types: tuple[MemoryType, ...], expected: MemoryType
) -> None:
    file = registers()
    for number, kind in enumerate(types):
        file.write(0x180 + 16 * number, 8, 0x4000_0000 | kind)
        file.write(0x188 + 16 * number, 8, 0x0F_FFFF_C000_0000 | 0x800)
    assert mtrr_type(file, 0x4000_0000) is expected
    assert mtrr_type(file, 0x8000_0000) is WB


@pytest.mark.parametrize("code", [2, 3, 7, 8])
def test_a_reserved_mtrr_type_is_none(code: int) -> None:
    assert mtrr_type(registers(default=0x800 | code), 0x1234_5000) is None


@pytest.mark.parametrize("count", [0, 1, 9, 10, 255])
@pytest.mark.section("11.4.12.1")
def test_there_are_as_many_variable_ranges_as_vcnt_says(count: int) -> None:
    """11.4.12.1, 11.4.12.4; the specification has ten at most."""
    file = registers(vcnt=count)
    for number in range(11):
        start = number + 1 << 30
        file.write(0x180 + 16 * number, 8, start | WP)
        file.write(0x188 + 16 * number, 8, 0x0F_FFFF_C000_0000 | 0x800)
        there = number < min(count, 10)
        assert file.read(0x180 + 16 * number, 8) == (start | WP if there else 0)
        assert mtrr_type(file, start) is (WP if there else WB)


@pytest.mark.section("11.4.12.3")
def test_there_are_no_fixed_ranges_without_fix() -> None:
    """11.4.12.1: the enable in MTRRDEF_REG has nothing to enable."""
    file = registers(fix=False)
    file.write(0x120, 8, 0)
    assert mtrr_type(file, 0) is WB
    file.write(0x128, 8, 0x0505_0505_0505_0505)
    assert file.read(0x128, 8) == 0


@pytest.mark.section("11.4.12.1")
def test_there_is_no_write_combining_range_without_wc() -> None:
    """11.4.12.1."""
    assert mtrr_type(registers(default=0x801), 0) is WC
    assert mtrr_type(registers(default=0x801, wc=False), 0) is None


@pytest.mark.parametrize("offset", [0x280, 0x200, 0x120])
def test_a_unit_reports_the_ranges_that_it_has_room_for(offset: int) -> None:
    """Fault recording registers may be anywhere that is not in use (11.4)."""
    xeon = PROFILES["xeon"]
    unit = RemappingUnit(replace(xeon, cap=xeon.cap.replace(fro=offset)), PhysicalMemory())
    mtrrcap = MtrrCapability(unit.read_register(0x100, 8))
    assert (mtrrcap.vcnt, mtrrcap.fix, mtrrcap.wc) == ((10, 1, 1) if offset == 0x280 else (0, 0, 0))


def test_attributes_of_a_request_follow_its_tables() -> None:
    world = World(Mode.SECOND)
    world.change("second1", snp=True)
    unit = world.start().unit
    attributes = attributes_of(unit, world.request)
    assert (attributes.memory_type, attributes.snoop) == (WB, True)
    unsnooped = world.request._replace(access=READ | NO_SNOOP)
    assert attributes_of(unit, unsnooped).snoop
    world.change("second1", snp=False)
    assert not attributes_of(unit, unsnooped).snoop
    assert attributes_of(unit, world.request).snoop


@pytest.mark.section("4.2.5")
def test_translated_requests_are_write_back_and_snooped_as_they_ask() -> None:
    world = World(Mode.SECOND)
    world.change("pasid", cd=True, pgsnp=True)
    unit = world.start().unit
    assert attributes_of(unit, world.request) == (UC, True)
    request = world.request._replace(address_type=AddressType.TRANSLATED)
    assert attributes_of(unit, request) == (WB, True)
    assert attributes_of(unit, request._replace(access=READ | NO_SNOOP)) == (WB, False)


@pytest.mark.parametrize("snp", [False, True])
@pytest.mark.section("3.10")
def test_requests_of_legacy_mode_need_not_be_snooped_but_for_snp(snp: bool) -> None:
    world = World(Mode.LEGACY)
    world.change("second1", snp=snp)
    unit = world.start().unit
    assert attributes_of(unit, world.request) == (WB, True)
    assert attributes_of(unit, world.request._replace(access=READ | NO_SNOOP)) == (WB, snp)
