"""The listing of sources: everything present, usable or not, and nothing changed by looking."""

import pytest

from devices.source_id import SourceId
from tests.support.nested_image import (
    BASE,
    CONTEXT,
    DIRECTORY,
    GUEST,
    IOVA,
    PASID,
    PHYSICAL,
    ROOT,
    ROOT_POINTER,
    SIZE,
    nested_memory,
)
from tests.support.reference_data import CAPTURES
from tests.support.world import Mode, World
from vtd.inspection import sources
from vtd.inspection.sources import list_sources, pages
from vtd.layouts.registers import GlobalStatus, RootTableAddress, TranslationTableMode
from vtd.recordings.capture import Capture
from vtd.software.registers import start
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.translation.remapping import onlooker
from vtd.unit.unit import RemappingUnit


@pytest.fixture
def unit() -> RemappingUnit:
    unit = RemappingUnit(PROFILES["xeon"], nested_memory())
    start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT_POINTER)
    return unit


def test_every_present_entry_is_a_source(unit: RemappingUnit) -> None:
    listed = [
        (int(each.source_id), each.pasid, each.kind, each.fault and each.fault.reason)
        for each in list_sources(unit.remapping)
    ]
    assert listed == [
        (0x10, 0, "pass-through", None),
        (0x10, PASID, "nested", None),
        (0x10, 6, "reserved", FaultReason.PASID_INVALID),
        (0x18, None, "no-pasid-entry", None),
        (0x20, None, "reserved", FaultReason.SM_CONTEXT_RESERVED),
    ]


@pytest.mark.parametrize("flawed", [False, True])
@pytest.mark.parametrize("mode", Mode)
def test_large_tables_are_listed_as_small_ones_are(
    mode: Mode, flawed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numpy", reason="needs the fast extra")
    world = World(mode)
    name = "first1" if mode in (Mode.FIRST, Mode.NESTED) else "second1"
    if flawed and name in world.places:
        address, _ = world.places[name]
        world.memory.write(address + 8, (1 << 51 | 7).to_bytes(8, "little"))  # beyond HAW
    remapping = world.start().unit.remapping
    target = next(each.target for each in list_sources(remapping) if each.target is not None)
    told = []
    for small in (sources.SMALL, 0):
        monkeypatch.setattr(sources, "SMALL", small)
        refused: list[str] = []
        listed = pages(remapping, target, refused=lambda *part: refused.append(repr(part)))  # noqa: B023
        told.append((listed, refused))
    assert told[0] == told[1]
    assert bool(told[0][0]) == ("pass-through" not in mode.value)
    assert bool(told[0][1]) == (flawed and name in world.places)


def test_nested_pages_lead_through_guest_addresses(unit: RemappingUnit) -> None:
    target = next(each.target for each in list_sources(unit.remapping) if each.pasid == PASID)
    assert target is not None
    listed = [
        (page.address, page.guest, page.physical, page.rights)
        for page in pages(unit.remapping, target)
    ]
    assert listed == [
        (IOVA, GUEST, PHYSICAL, "rw"),
        (IOVA + 0x1000, GUEST + 0x1000, PHYSICAL + 0x10_0000, "r-"),
    ]


def test_what_is_passed_through_has_no_pages(unit: RemappingUnit) -> None:
    target = next(each.target for each in list_sources(unit.remapping) if each.pasid == 0)
    assert target is not None
    assert pages(unit.remapping, target) == []


def test_looking_changes_nothing(unit: RemappingUnit) -> None:
    before = unit.snapshot(), unit.remapping.memory.read_record(BASE, 16)
    for each in list_sources(unit.remapping):
        if each.target is not None:
            pages(onlooker(unit.remapping), each.target)
    assert (unit.snapshot(), unit.remapping.memory.read_record(BASE, 16)) == before


def test_a_mode_that_is_not_usable_is_a_fault(unit: RemappingUnit) -> None:
    unit.remapping.root = RootTableAddress.of(rta=BASE, ttm=TranslationTableMode.ABORT_DMA)
    with pytest.raises(TranslationFault) as caught:
        list(list_sources(unit.remapping))
    assert caught.value.reason is FaultReason.ABORT_DMA


@pytest.mark.parametrize(
    "mode, reason",
    [
        (TranslationTableMode.LEGACY, FaultReason.ROOT_READ_ERROR),
        (TranslationTableMode.SCALABLE, FaultReason.SM_ROOT_READ_ERROR),
    ],
)
def test_a_root_table_without_memory_refuses_every_requester(
    mode: TranslationTableMode, reason: FaultReason
) -> None:
    unit = RemappingUnit(PROFILES["xeon"], nested_memory())
    start(unit, GlobalStatus.of(rtps=True), RootTableAddress.of(rta=BASE + SIZE, ttm=mode))
    (only,) = list_sources(unit.remapping)
    assert only.fault is not None
    assert (only.source_id, only.alike, only.fault.reason) == (0, 1 << 16, reason)
    assert only.concerns(SourceId(0xFFFF))


NOWHERE = BASE + SIZE
BROKEN = [
    (ROOT, 1 << 1, 0x00, None, 128, FaultReason.SM_ROOT_RESERVED),
    (ROOT + 8, NOWHERE | 1, 0x80, None, 128, FaultReason.SM_CONTEXT_READ_ERROR),
    (CONTEXT + 0x200, NOWHERE, 0x10, 0, 0x2000, FaultReason.PASID_DIRECTORY_READ_ERROR),
    (DIRECTORY + 8, NOWHERE | 1, 0x10, 0x40, 64, FaultReason.PASID_READ_ERROR),
    (DIRECTORY + 16, 1 << 5 | 1, 0x10, 0x80, 64, FaultReason.PASID_DIRECTORY_RESERVED),
]
"""Where bits are set, which ones, and the requester, the PASID and the number that they refuse."""


@pytest.mark.parametrize("address, bits, source_id, pasid, alike, reason", BROKEN, ids=str)
def test_what_is_behind_a_broken_table_is_listed_together(
    unit: RemappingUnit,
    address: int,
    bits: int,
    source_id: int,
    pasid: int | None,
    alike: int,
    reason: FaultReason,
) -> None:
    memory = unit.remapping.memory
    memory.write(address, (memory.read_record(address, 8) | bits).to_bytes(8, "little"))
    refused = [
        (each.source_id, each.pasid, each.alike)
        for each in list_sources(unit.remapping)
        if each.fault is not None and each.fault.reason is reason
    ]
    assert refused == [(source_id, pasid, alike)]


def test_a_context_entry_that_is_not_usable_is_listed_as_reserved() -> None:
    capture = Capture.load(CAPTURES / "legacy48-strict")
    memory = capture.memory
    unit = capture.unit(Options())
    first = next(list_sources(unit.remapping))
    where = unit.remapping.root.rta
    context = memory.read_record(where, 16) & ~0xFFF
    memory.write(context + 8, (1 << 63).to_bytes(8, "little"))
    changed = next(list_sources(unit.remapping))
    assert first.source_id == changed.source_id
    assert changed.kind == "reserved"
    assert changed.fault is not None
    assert changed.fault.reason is FaultReason.CONTEXT_RESERVED
