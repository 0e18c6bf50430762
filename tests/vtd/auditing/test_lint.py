"""Rules about structures, writes and registers: each is broken once, and kept by what is sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.reference_data import name_of, recordings
from tests.vtd.auditing.rig import (
    CONTEXTS,
    DATA,
    DEVICE,
    END,
    FIRST,
    INTERRUPTS,
    LEGACY,
    NEIGHBOUR,
    PASIDS,
    ROOT,
    SECOND,
    Rig,
)
from tests.vtd.unit.reporting.test_protocol import WRONG, Writes, mistakes, plain_unit
from vtd.auditing.lint import WriteLint
from vtd.auditing.lint_rules import OF_REGISTERS, RULES, LintFinding
from vtd.auditing.lint_structures import lint_structures
from vtd.layouts.descriptors import DeviceTlbInvalidateDescriptor
from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte
from vtd.recordings.live import open_live_file
from vtd.recordings.replay_live import LiveRun
from vtd.unit.caching.policy import AGGRESSIVE

README = Path(__file__).parents[3] / "README.md"
Breaks = Callable[[Rig], object]


def scalable(**cap: int) -> Rig:
    """A sound unit in scalable mode: a second stage, and a first stage with a PASID."""
    rig = Rig(cap=cap)
    table, first = rig.second(), rig.first()
    table.map(0, DATA, 0x1000)
    first.map(0, DATA, 0x1000)
    rig.put(INTERRUPTS + 16, RemappedIrte.of(p=True, v=0x55, svt=1, sid=DEVICE))
    rig.context()
    rig.pasid(0, SECOND, table=table)
    rig.pasid(1, FIRST, table=first, did=2)
    rig.start(interrupts=True)
    return rig


def change(rig: Rig, pasid: int, **fields: int) -> None:
    rig.put(PASIDS + pasid * 64, rig.pasid_record(pasid).replace(**fields))


def add(rig: Rig, pasid: int, like: int, **fields: int) -> None:
    rig.put(PASIDS + pasid * 64, rig.pasid_record(like).replace(**fields))


def posted(rig: Rig, address: int, low: int = 0) -> None:
    entry = PostedIrte.of(p=True, im=True, vv=0x30, pdal=address, svt=1) | low << 32
    rig.put(INTERRUPTS + 32, PostedIrte(entry))


BROKEN: dict[str, Breaks] = {
    "VTD-D01": lambda rig: add(rig, 2, 0, ssptptr=rig.second().root << 12),
    "VTD-D02": lambda rig: change(rig, 1, did=1),
    "VTD-D04": lambda rig: add(rig, 2, 0, ssade=True),
    "VTD-D05": lambda rig: add(rig, 2, 1, eafe=True),
    "VTD-D07": lambda rig: add(rig, 2, 0, did=7),
    "VTD-S01": lambda rig: rig.memory.load(ROOT, bytes([rig.memory.read(ROOT, 1)[0] | 2])),
    "VTD-S02": lambda rig: change(rig, 0, aw=5),
    "VTD-S03": lambda rig: rig.directory(END + 0x1000),
    "VTD-I01": lambda rig: rig.put(INTERRUPTS + 16, RemappedIrte.of(p=True, v=0x55)),
    "VTD-I02": lambda rig: posted(rig, 0x6000, low=0x20),
}  # fmt: skip


def found(findings: list[LintFinding]) -> set[str]:
    return {each.rule for each in findings}


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_rule_about_structures_is_broken_alone(rule: str) -> None:
    rig = scalable()
    assert lint_structures(rig.unit) == []
    BROKEN[rule](rig)
    assert found(lint_structures(rig.unit)) == {rule}


def legacy() -> Rig:
    """A sound unit in legacy mode."""
    rig = Rig(LEGACY)
    table = rig.second()
    rig.context(ssptptr=table.root << 12)
    rig.start()
    return rig


def set_bit(rig: Rig, address: int, bit: int) -> None:
    at = address + bit // 8
    rig.memory.load(at, bytes([rig.memory.read(at, 1)[0] | 1 << bit % 8]))


OF_LEGACY, OF_SCALABLE = CONTEXTS + DEVICE * 16, CONTEXTS + DEVICE * 32
SPOILT: dict[str, tuple[Callable[[], Rig], Breaks]] = {
    "root entry of bus 00 is not in memory": (legacy, lambda rig: rig.set_root(END)),
    "root entry of bus 00: reserved bits 0x2 are set": (legacy, lambda rig: set_bit(rig, ROOT, 1)),
    "context entry of 00:00.0 is not in memory": (legacy, lambda rig: rig.root(END)),
    "context entry of 00:02.0: reserved bits 0x10 are set": (
        legacy, lambda rig: set_bit(rig, OF_LEGACY, 4),
    ),
    "context entry of 00:02.0: TT is reserved": (legacy, lambda rig: rig.context(tt=3)),
    "context entry of 00:02.0: the unit has no AW 5": (legacy, lambda rig: rig.context(aw=5)),
    "root entry of bus 00 is not in memory ": (scalable, lambda rig: rig.set_root(END)),
    "context entry of 00:00.0 is not in memory ": (scalable, lambda rig: rig.root(END)),
    "context entry of 00:02.0: reserved bits 0x80 are set": (
        scalable, lambda rig: set_bit(rig, OF_SCALABLE, 7),
    ),
    "context entry of 00:02.0: PRE without DTE": (
        scalable, lambda rig: rig.context(dte=False, pre=True),
    ),
    "PASID directory of 00:02.0 is not in memory": (
        scalable, lambda rig: rig.context(directory=END),
    ),
    "PASID entry 0x0 of 00:02.0 is not in memory": (scalable, lambda rig: rig.directory(END)),
    "interrupt-remapping entry 2: reserved bits 0x4 are set": (
        scalable, lambda rig: rig.put(INTERRUPTS + 32, PostedIrte(
            PostedIrte.of(p=True, im=True, vv=0x30, pdal=0x6000, svt=1) | 4)),
    ),
    "interrupt-remapping entry 2: no memory at 0x4000000": (scalable, lambda rig: posted(rig, END)),
}  # fmt: skip


@pytest.mark.parametrize("message", SPOILT)
def test_what_is_wrong_with_a_structure_is_said(message: str) -> None:
    make, breaks = SPOILT[message]
    rig = make()
    assert lint_structures(rig.unit) == []
    breaks(rig)
    (first, *_) = lint_structures(rig.unit)
    assert first.message == message.strip()


def test_domain_id_0_is_for_absent_entries_under_caching_mode() -> None:
    rig = scalable(cm=True)
    assert lint_structures(rig.unit) == []
    change(rig, 0, did=0)
    assert found(lint_structures(rig.unit)) == {"VTD-D03"}


@pytest.mark.section("6.2.3.1")
def test_a_pasid_and_domain_id_have_one_set_of_tables_across_devices() -> None:
    rig = scalable()
    other = 0xF000
    rig.memory.load(other, rig.memory.read(PASIDS, 0x1000))
    rig.memory.load(0x4_0000, (other | 1).to_bytes(8, "little"))
    rig.context(NEIGHBOUR, directory=0x4_0000)
    assert lint_structures(rig.unit) == []
    record = rig.pasid_record(1).replace(fsptptr=rig.first().root << 12)
    rig.put(other + 64, record)
    assert found(lint_structures(rig.unit)) == {"VTD-D06"}


@pytest.mark.section("6.2.6.2")
def test_an_hpt_domain_id_has_one_host_permission_table() -> None:
    rig = Rig(ecap={"hpts": True, "ptrs": True})
    table = rig.first()
    rig.context(hpte=True, eptr=True)
    for pasid in (0, 1):
        rig.pasid(pasid, FIRST, table=table, hptptr=0xB000, hptdid=9)
    rig.start()
    assert lint_structures(rig.unit) == []
    change(rig, 1, hptsz=1)
    assert found(lint_structures(rig.unit)) == {"VTD-D08"}
    rig.context(hpte=True, eptr=False)  # only that of RID_PASID is used then
    assert lint_structures(rig.unit) == []


def test_legacy_entries_with_one_domain_id_have_one_table() -> None:
    rig = Rig(LEGACY)
    one, two = rig.second(), rig.second()
    rig.context(ssptptr=one.root << 12, did=7)
    rig.context(NEIGHBOUR, ssptptr=one.root << 12, did=7)
    rig.start()
    assert lint_structures(rig.unit) == []
    rig.context(NEIGHBOUR, ssptptr=two.root << 12, did=7)
    assert found(lint_structures(rig.unit)) == {"VTD-D01"}


def test_reserved_memory_is_mapped_to_itself() -> None:
    rig = Rig(LEGACY)
    table = rig.second()
    table.map(0x20_0000, 0x20_0000, 0x3000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    reserved = {DEVICE: [(0x20_0000, 0x20_3000)], NEIGHBOUR: [(0, 0x1000)]}
    assert lint_structures(rig.unit, reserved) == []
    for address, physical in ((0x20_1000, None), (0x20_2000, 0x30_0000)):
        table.unmap(address, 0x1000)
        if physical is not None:
            table.map(address, physical, 0x1000)
        assert found(lint_structures(rig.unit, reserved)) == {"VTD-R01"}
        if physical is not None:
            table.unmap(address, 0x1000)
        table.map(address, address, 0x1000)


def watched(rig: Rig) -> WriteLint:
    lint = WriteLint(rig.unit)
    rig.port().read(0, 4)
    rig.port().write(0xFEE0_0030, bytes(4))
    return lint


def quadwords(rig: Rig, address: int, record: bytes) -> None:
    """A record stored by quadwords, those that stay the same left out."""
    for offset in range(0, len(record), 8):
        data = record[offset : offset + 8]
        if rig.memory.read(address + offset, 8) != data:
            rig.memory.write(address + offset, data)


@pytest.mark.parametrize("torn", [True, False])
def test_a_present_pasid_entry_changes_at_once(torn: bool) -> None:
    rig = scalable()
    lint = watched(rig)
    record = rig.pasid_record(0).replace(ssptptr=rig.second().root << 12, did=5).pack()
    if not torn:
        rig.memory.write(PASIDS, bytes(8))  # P = 0 first
    quadwords(rig, PASIDS, record if torn else bytes(8) + record[8:])
    quadwords(rig, PASIDS, record)
    assert found(lint.findings) == ({"VTD-W01"} if torn else set())


@pytest.mark.parametrize("torn", [True, False])
def test_a_present_context_entry_changes_at_once(torn: bool) -> None:
    rig = Rig(LEGACY)
    table, other = rig.second(), rig.second()
    rig.context(ssptptr=table.root << 12, did=7)
    rig.start()
    lint = watched(rig)
    at = CONTEXTS + DEVICE * 16
    before = rig.memory.read(at, 16)
    rig.context(ssptptr=other.root << 12, did=8)
    after = rig.memory.read(at, 16)
    rig.memory.load(at, before)
    if torn:
        quadwords(rig, at, after)
    else:
        rig.memory.write(at, after)
    assert found(lint.findings) == ({"VTD-W01"} if torn else set())


@pytest.mark.parametrize("torn", [True, False])
def test_a_present_interrupt_entry_changes_at_once(torn: bool) -> None:
    rig = scalable()
    lint = watched(rig)
    record = RemappedIrte.of(p=True, v=0x77, svt=1, sid=NEIGHBOUR).pack()
    if torn:
        quadwords(rig, INTERRUPTS + 16, record)
    else:
        rig.memory.write(INTERRUPTS + 16, record)
    assert found(lint.findings) == ({"VTD-W02"} if torn else set())


def test_two_changes_with_an_invalidation_between_are_two() -> None:
    rig = scalable()
    lint = watched(rig)
    rig.memory.write(PASIDS + 8, (5).to_bytes(8, "little"))
    rig.pc(1, 0)
    rig.iotlb(1)
    rig.wait()
    low = rig.pasid_record(0).replace(ssptptr=rig.second().root << 12).pack()[:8]
    rig.memory.write(PASIDS, low)
    assert lint.findings == []


def test_pfsid_is_there_where_it_counts() -> None:
    rig = scalable()
    lint = watched(rig)
    rig.device_tlb()
    assert lint.findings == []
    rig.queue.submit(DeviceTlbInvalidateDescriptor.of(sid=DEVICE, s=True))
    assert found(lint.findings) == {"VTD-Q01"}


def test_register_protocol_is_told_by_its_rules() -> None:
    rig = scalable()
    lint = watched(rig)
    rig.unit.write_register(0x90, 8, 0x9000)
    rig.unit.write_register(0x18, 4, rig.command.replace(srtp=True, te=False))
    assert found(lint.findings) == {"VTD-P01", "VTD-P03"}


@pytest.mark.parametrize("writes", [each[1] for each in WRONG], ids=[each[0] for each in WRONG])
def test_each_departure_from_the_protocol_has_its_rule(writes: Writes) -> None:
    unit = plain_unit()
    lint = WriteLint(unit)
    assert mistakes(writes, unit)
    assert {RULES[each.rule].id[:5] for each in lint.findings} == {"VTD-P"}


def test_every_rule_is_tried() -> None:
    elsewhere = {"VTD-D03", "VTD-D06", "VTD-D08", "VTD-R01", "VTD-W01", "VTD-W02", "VTD-Q01"}
    assert {*BROKEN, *elsewhere, *OF_REGISTERS.values()} == set(RULES)
    assert f"against {len(RULES)} rules" in README.read_text()


@pytest.mark.parametrize("path", recordings(), ids=name_of)
def test_no_entry_is_torn_in_recordings_of_linux(path: Path) -> None:
    with open_live_file(path) as (head, lines):
        run = LiveRun(head, caches=AGGRESSIVE)
        lints = [WriteLint(unit) for unit in run.units]
        for _, line in lines:
            for _ in run.carry_out(line):
                pass
    assert [each for lint in lints for each in lint.findings if each.rule.startswith("VTD-W")] == []
