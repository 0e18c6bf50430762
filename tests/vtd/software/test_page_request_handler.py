"""The page request handler: a device touches unmapped memory, is serviced and goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.capabilities import ExtendedCapabilityId
from devices.dma import PageRequest
from tests.support.device_tlb_platform import EVENT, PASID, SOURCE_ID, Platform
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.software.page_request_handler import PageRequestHandler
from vtd.unit.reporting.events import PageGroupResponseSent

ADDRESS = 0x7000_0000


def test_a_transfer_to_unmapped_memory_is_serviced_and_finishes() -> None:
    platform = Platform()
    data = bytes(range(256)) * 40  # three pages
    assert platform.write(ADDRESS + 0x800, data)
    assert platform.read(ADDRESS + 0x800, len(data)) == data
    assert sorted(platform.mapped) == [ADDRESS, ADDRESS + 0x1000, ADDRESS + 0x2000]
    assert platform.handler.serviced == 3
    assert platform.audit.findings == []


def test_a_request_out_of_bounds_is_an_invalid_request() -> None:
    platform = Platform()
    platform.limit = ADDRESS + 0x1000
    assert not platform.write(ADDRESS, bytes(0x2000))
    (answered,) = [each for each in platform.events if isinstance(each, PageGroupResponseSent)]
    assert answered.response.code == 1
    assert not answered.automatic
    assert platform.write(ADDRESS, bytes(0x1000))


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.integers(1, 16))
def test_any_order_of_pages_and_any_allocation(pages: list[int], allocation: int) -> None:
    platform = Platform()
    platform.control(ExtendedCapabilityId.PRI, 0xC, allocation)
    for number, page in enumerate(pages):
        assert platform.write(ADDRESS + page * 0x1000, bytes([number]))
    assert platform.audit.findings == []
    assert platform.handler.serviced == len(set(pages))


def test_the_handler_recovers_from_an_overflow() -> None:
    platform = Platform()
    unit = platform.unit
    unit.write_register(0xE0, 4, 1 << 31)  # events wait
    for number in range(130):
        platform.port.page_request(
            PageRequest(ADDRESS + number * 0x1000, True, False, 1, False, PASID)
        )
    assert unit.read_register(0xDC, 4) == 3
    unit.write_register(0xE0, 4, 0)
    assert platform.handler.serviced == 127
    assert platform.handler.overflows == 1
    assert unit.read_register(0xDC, 4) == 0
    assert platform.write(ADDRESS + 129 * 0x1000, b"again")


def test_a_stop_marker_has_no_response() -> None:
    platform = Platform()
    platform.port.page_request(PageRequest(0, False, False, 0, True, PASID))
    assert platform.handler.serviced == 1
    assert not any(isinstance(event, PageGroupResponseSent) for event in platform.events)


def test_groups_are_told_apart() -> None:
    platform = Platform()
    platform.limit = ADDRESS
    for group, address, last in ((1, ADDRESS, False), (2, 0x5000, True), (1, 0x6000, True)):
        platform.port.page_request(PageRequest(address, True, False, group, last, PASID))
    answers = [event for event in platform.events if isinstance(event, PageGroupResponseSent)]
    assert [(each.response.group_index, each.response.code) for each in answers] == [(2, 0), (1, 1)]
    assert {each.source_id for each in answers} == {SOURCE_ID}


def test_the_memory_of_a_queue_is_checked() -> None:
    platform = Platform()
    for pages, base in ((3, 0x6000), (1, 0x6020)):
        with pytest.raises(ValueError, match="page request queue"):
            PageRequestHandler(
                platform.unit, platform.memory, base, platform.queue, platform.resolve, EVENT,
                pages=pages,
            )  # fmt: skip


class Interrupted(Platform):
    """A platform where another request arrives while the first is being resolved."""

    def resolve(self, request: PageRequestDescriptor) -> bool:
        first = not self.mapped
        done = super().resolve(request)
        if first:
            self.port.page_request(PageRequest(0x9000, True, False, 2, True, PASID))
            assert self.handler.serviced == 1
        return done


def test_requests_that_arrive_while_one_is_serviced_wait_their_turn() -> None:
    platform = Interrupted()
    platform.port.page_request(PageRequest(0x8000, True, False, 1, True, PASID))
    answers = [event for event in platform.events if isinstance(event, PageGroupResponseSent)]
    assert [each.response.group_index for each in answers] == [1, 2]
