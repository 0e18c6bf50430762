"""An explained request comes to what the unit does with it, and shows every entry on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, REFUSED, WRITE, AddressType, NoWrite, Request
from pagetables.walk_explanation import EntryRole
from tests.support.nested_image import (
    BASE,
    IOVA,
    NO_ENTRY,
    PASID,
    ROOT_POINTER,
    SIZE,
    nested_memory,
)
from tests.support.reference_data import CAPTURES
from vtd.inspection.request_explanation import (
    cached,
    explain_request,
    explain_translation_request,
    is_interrupt,
)
from vtd.layouts.registers import GlobalStatus
from vtd.recordings.capture import Capture
from vtd.software.registers import start
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import Event, RequestBlocked
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit


def nested_unit() -> RemappingUnit:
    unit = RemappingUnit(PROFILES["xeon"], nested_memory())
    start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT_POINTER)
    return unit


def captured_unit(name: str) -> RemappingUnit:
    capture = Capture.load(CAPTURES / name)
    return capture.unit(capture.options(as_recorded=True))


UNITS = [
    nested_unit(),
    captured_unit("legacy48-strict"),
    captured_unit("legacy39-lazy"),
    captured_unit("sm-first-stage"),
]
offsets = st.sampled_from([0, 8, 0xFFF, 0x1000, 0x1FFF, 0x2000])
addresses = st.one_of(
    st.builds(int.__add__, st.sampled_from([IOVA, 0xFFEF_6000, 0xFFFC_0000, 0]), offsets),
    st.integers(0, (1 << 64) - 1),
)


@given(
    unit=st.sampled_from(UNITS),
    source_id=st.sampled_from([0x00, 0x08, 0x10, 0x18, 0x20, 0xF8, 0xFA, 0x1234]),
    kind=st.one_of(
        st.just((None, False)),
        st.tuples(st.sampled_from([0, PASID, 6, NO_ENTRY, 0xFFFFF]), st.booleans()),
    ),
    address=addresses,
    access=st.sampled_from([READ, WRITE, READ | WRITE]),
)
def test_the_explanation_is_what_happens(
    unit: RemappingUnit, source_id: int, kind: tuple[int | None, bool], address: int, access: int
) -> None:
    request = Request(source_id, address, access, 1, *kind)
    if is_interrupt(request):
        return
    explained = explain_request(unit.remapping, request)
    blocked: list[RequestBlocked] = []

    def happened(event: Event) -> None:
        if isinstance(event, RequestBlocked):
            blocked.append(event)

    unit.subscribe(happened)
    got = unit.admit(request)
    if not isinstance(got, int):
        assert got == REFUSED
        assert explained.outcome is None
        assert explained.fault is not None
        assert blocked[-1].reason is explained.fault.reason
        assert blocked[-1].recorded == explained.fault.recorded
    else:
        assert explained.fault is None
        assert explained.outcome is not None
        assert explained.outcome.physical == got


@given(
    unit=st.sampled_from(UNITS),
    source_id=st.sampled_from([0x08, 0x10, 0x18, 0x20, 0xFA]),
    pasid=st.sampled_from([None, 0, PASID, 6]),
    address=addresses,
    no_write=st.booleans(),
)
def test_an_explained_translation_request_is_answered_alike(
    unit: RemappingUnit, source_id: int, pasid: int | None, address: int, no_write: bool
) -> None:
    asks, flags = AddressType.TRANSLATION_REQUEST, NoWrite() if no_write else None
    request = Request(source_id, address, READ, 8, pasid, False, asks, flags)
    explained = explain_translation_request(unit.remapping, request)
    assert explained.answer == unit.admit(request)


def test_explaining_changes_nothing() -> None:
    unit = nested_unit()
    before = unit.snapshot()
    memory = [unit.remapping.memory.read_record(BASE + at, 8) for at in range(0, SIZE, 8)]
    explain_request(unit.remapping, Request(0x10, IOVA, WRITE, 1, PASID))
    assert unit.snapshot() == before
    assert memory == [unit.remapping.memory.read_record(BASE + at, 8) for at in range(0, SIZE, 8)]


def test_a_nested_walk_shows_both_dimensions() -> None:
    explained = explain_request(nested_unit().remapping, Request(0x10, IOVA, READ, 1, PASID))
    assert [each.name for each in explained.structures] == [
        "root entry",
        "context entry",
        "PASID directory entry",
        "PASID entry",
    ]
    assert explained.walk is not None
    steps = explained.walk.steps
    assert [step.level for step in steps[:4]] == ["FS-PML4E", "FS-PDPE", "FS-PDE", "FS-PTE"]
    assert [len(step.second) for step in steps] == [4, 4, 4, 4, 0, 0, 0, 0]
    assert steps[3].outcome is EntryRole.PAGE
    assert explained.outcome is not None
    assert explained.outcome.domain_id == 9


def test_a_structure_without_memory_is_shown_unread() -> None:
    unit = nested_unit()
    start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT_POINTER + SIZE)
    explained = explain_request(unit.remapping, Request(0x10, IOVA, READ))
    (read,) = explained.structures
    assert (read.name, read.record) == ("root entry", None)
    assert explained.fault is not None
    assert explained.fault.reason is FaultReason.SM_ROOT_READ_ERROR


@pytest.mark.parametrize("address", [1 << 63, 1 << 48])
def test_an_address_out_of_range_is_not_walked(address: int) -> None:
    explained = explain_request(nested_unit().remapping, Request(0x10, address, READ, 1, PASID))
    assert explained.walk is None
    assert explained.fault is not None
    legacy = explain_request(UNITS[1].remapping, Request(0x10, address, READ))
    assert legacy.walk is None
    assert legacy.fault is not None


def test_what_the_iotlb_holds_can_be_seen_without_counting() -> None:
    unit = nested_unit()
    request = Request(0x10, IOVA + 8, READ, 1, PASID)
    assert cached(unit.caches.iotlb, request) is None
    unit.admit(request)
    misses = unit.caches.iotlb.counters.misses
    entry = cached(unit.caches.iotlb, request)
    assert entry is not None
    assert entry.address == IOVA
    assert cached(unit.caches.iotlb, request._replace(pasid=None)) is None
    assert cached(unit.caches.iotlb, request._replace(address=IOVA + 0x1000)) is None
    assert unit.caches.iotlb.counters.misses == misses
