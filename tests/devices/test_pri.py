"""The page request interface: groups, the allocation, responses, and the status bits."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from devices.capabilities import add_pri
from devices.config_space import ConfigSpace
from devices.dma import READ, PageGroupResponse, Request, ResponseCode
from devices.pri import PageRequestInterface
from tests.support.ports import PagingPort


class Bench(NamedTuple):
    """A capability in its configuration space, its interface, and a port."""

    config: ConfigSpace
    pages: PageRequestInterface
    port: PagingPort

    def control(self, value: int) -> None:
        """Write the control register."""
        self.config.write(0x104, 2, value)

    def allow(self, requests: int) -> None:
        """Write the allocation."""
        self.config.write(0x10C, 4, requests)

    def send(self, pages: list[int]) -> int | None:
        """Ask for pages to read."""
        return self.pages.send(self.port, Request(0, pages[0], READ), pages)


def make() -> Bench:
    config = ConfigSpace()
    bench = Bench(config, PageRequestInterface(add_pri(config)), PagingPort())
    bench.control(1)
    bench.allow(4)
    return bench


def test_a_group_is_sent_with_its_last_request_marked() -> None:
    bench = make()
    request = Request(0, 0x5000, READ, 0x2000, pasid=7, privileged=True)
    group = bench.pages.send(bench.port, request, [0x5000, 0x6000])
    assert group == 0
    assert [(each.address, each.last) for each in bench.port.page_requests] == [
        (0x5000, False),
        (0x6000, True),
    ]
    first = bench.port.page_requests[0]
    assert (first.read, first.write, first.pasid, first.privileged) == (True, False, 7, True)
    assert bench.pages.outstanding == 2


@given(st.lists(st.integers(1, 5), max_size=8), st.integers(0, 8))
def test_outstanding_requests_stay_within_the_allocation(sizes: list[int], limit: int) -> None:
    bench = make()
    bench.allow(limit)
    for size in sizes:
        bench.send([0x5000] * size)
        assert bench.pages.outstanding <= limit
    assert bench.pages.outstanding == len(bench.port.page_requests)


def test_a_response_is_handed_out_once_and_frees_the_group() -> None:
    bench = make()
    group = bench.send([0x5000])
    assert group == 0
    assert bench.pages.take_response(group) is None
    bench.pages.respond(PageGroupResponse(ResponseCode.SUCCESS, group))
    assert bench.pages.outstanding == 0
    assert bench.send([0x5000]) == 1
    assert bench.pages.take_response(group) == ResponseCode.SUCCESS
    assert bench.pages.take_response(group) is None


def test_an_unexpected_group_index_shows_in_the_status() -> None:
    bench = make()
    bench.pages.respond(PageGroupResponse(ResponseCode.SUCCESS, 3))
    status = bench.pages.capability.status
    assert status.value.uprgi
    bench.config.write(status.offset, 2, 2)
    assert not status.value.uprgi


def test_a_response_failure_stops_page_requests() -> None:
    bench = make()
    group = bench.send([0x5000])
    assert group is not None
    bench.pages.respond(PageGroupResponse(ResponseCode.RESPONSE_FAILURE, group))
    assert bench.pages.capability.status.value.rf
    assert bench.pages.capability.status.value.stopped
    assert bench.send([0x5000]) is None


def test_stopped_waits_for_the_outstanding_requests() -> None:
    bench = make()
    status = bench.pages.capability.status
    assert not status.value.stopped
    group = bench.send([0x5000])
    assert group is not None
    bench.control(0)
    assert not status.value.stopped
    assert bench.send([0x5000]) is None
    bench.pages.respond(PageGroupResponse(ResponseCode.SUCCESS, group))
    assert status.value.stopped


def test_page_request_reset_forgets_what_is_outstanding() -> None:
    bench = make()
    bench.send([0x5000])
    bench.control(0b10)
    assert bench.pages.outstanding == 0
    assert bench.pages.capability.control.value == 0


def test_group_indexes_run_out() -> None:
    bench = make()
    bench.allow(1000)
    groups = [bench.send([0x5000]) for _ in range(513)]
    assert groups == [*range(512), None]


def test_two_interfaces_never_answer_for_each_other() -> None:
    one, other = make(), make()
    group = one.send([0x5000])
    assert group is not None
    other.pages.respond(PageGroupResponse(ResponseCode.SUCCESS, group))
    assert one.pages.take_response(group) is None
    assert other.pages.capability.status.value.uprgi
