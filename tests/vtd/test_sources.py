"""The listing of sources: everything present, usable or not, and nothing changed by looking."""

import pytest

from tests.nested_image import (
    BASE,
    GUEST,
    IOVA,
    PASID,
    PHYSICAL,
    ROOT_POINTER,
    SIZE,
    nested_memory,
)
from tests.reference_data import CAPTURES
from vtd.capabilities import PROFILES
from vtd.capture import Capture
from vtd.driver import start
from vtd.faults import FaultReason, TranslationFault
from vtd.registers import GlobalStatus, RootTableAddress, TranslationTableMode
from vtd.remapping import Options, onlooker
from vtd.sources import list_sources, pages
from vtd.unit import RemappingUnit


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


def test_tables_without_memory_have_no_sources() -> None:
    for mode in (TranslationTableMode.LEGACY, TranslationTableMode.SCALABLE):
        unit = RemappingUnit(PROFILES["xeon"], nested_memory())
        root = RootTableAddress.of(rta=BASE + SIZE, ttm=mode)
        start(unit, GlobalStatus.of(rtps=True), root)
        assert list(list_sources(unit.remapping)) == []


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
