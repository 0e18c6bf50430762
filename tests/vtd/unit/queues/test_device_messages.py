"""Device-TLB invalidations and page group responses on their way to devices and back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import InvalidationRequest, PageGroupResponse
from pagetables.bits import BitRecord
from tests.support.device_tlb_platform import SOURCE_ID, Platform
from tests.support.world import capabilities
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.registers import FaultStatus, GlobalStatus, InvalidationQueueErrorRecord
from vtd.software.queue_driver import QueueDriver, QueueFullError
from vtd.unit.interrupts.outcome import Message
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.queues.device_messages import invalidation_range
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationCompleted,
    DeviceTlbInvalidationSent,
    DeviceTlbInvalidationTimedOut,
    MessageSent,
)

OTHER = 0x0200
FAULT_MESSAGE = Message(0xFEE0_2000, 0x61)


@dataclass
class Silent:
    """A device that notes messages and answers when told to."""

    requests: list[InvalidationRequest] = field(default_factory=list)
    responses: list[PageGroupResponse] = field(default_factory=list)

    def invalidate(self, request: InvalidationRequest) -> None:
        self.requests.append(request)

    def page_response(self, response: PageGroupResponse) -> None:
        self.responses.append(response)


class Bench:
    """A unit with two silent devices and the driver of its queue."""

    def __init__(self, dit: bool = False, itags: int = 32, major: int = 6) -> None:
        self.platform = Platform(capabilities(version=major, dit=dit), options=Options(itags=itags))
        self.unit, self.queue = self.platform.unit, self.platform.queue
        self.device, self.other = Silent(), Silent()
        self.unit.attach(SOURCE_ID, self.device)
        self.unit.attach(OTHER, self.other)
        self.unit.write_register(0x40, 4, FAULT_MESSAGE.address)
        self.unit.write_register(0x3C, 4, FAULT_MESSAGE.data)
        self.unit.write_register(0x38, 4, 0)

    @property
    def status(self) -> FaultStatus:
        return FaultStatus(self.unit.read_register(0x34, 4))

    @property
    def errors(self) -> InvalidationQueueErrorRecord:
        return InvalidationQueueErrorRecord(self.unit.read_register(0xB0, 8))

    @property
    def fault_events(self) -> int:
        events = self.platform.events
        return events.count(MessageSent(FAULT_MESSAGE))

    def invalidate(self, source_id: int = SOURCE_ID, address: int = 0x1000, **fields: int) -> None:
        self.queue.submit(DeviceTlbInvalidateDescriptor.of(sid=source_id, addr=address, **fields))

    def answer(self, *itags: int, source_id: int = SOURCE_ID, count: int = 1) -> None:
        port = UnitPort(self.unit, self.platform.memory, source_id)
        arrived = port.complete_invalidation(sum(1 << itag for itag in itags), count)
        assert arrived.ok == self.unit.registers[GlobalStatus].tes


@pytest.mark.parametrize(
    ("address", "s", "start", "size"),
    [
        (0x5000, False, 0x5000, 0x1000),
        (0x4000, True, 0x4000, 0x2000),
        (0x5000, True, 0x4000, 0x4000),
        (0x40_0000 | 0x0F_F000, True, 0x40_0000, 0x20_0000),
        (0x7FFF_FFFF_FFFF_F000, True, 0, 1 << 64),
        (0xFFFF_FFFF_FFFF_F000, True, 0, 1 << 64),
    ],
)
@pytest.mark.section("4.1.4")
def test_size_is_told_by_the_lowest_zero_bit(address: int, s: bool, start: int, size: int) -> None:
    assert invalidation_range(address, larger=s) == (start, size)


@given(st.integers(0, (1 << 52) - 1), st.integers(1, 51))
def test_any_aligned_range_can_be_asked_for(page: int, order: int) -> None:
    start = page >> order << order
    encoded = start | (1 << order - 1) - 1
    expected = start << 12, 0x1000 << order
    assert invalidation_range(encoded << 12, larger=True) == expected


@pytest.mark.section("6.5.2.6", "7.6.1", "7.8")
def test_descriptors_become_messages_in_order() -> None:
    bench = Bench()
    with_pasid = {"sid": SOURCE_ID, "pasid": 0x45}
    descriptors: list[BitRecord] = [
        DeviceTlbInvalidateDescriptor.of(sid=SOURCE_ID, s=True, addr=0x3000),
        PasidDeviceTlbInvalidateDescriptor.of(**with_pasid, addr=0x7000),
        PageGroupResponseDescriptor.of(rid=SOURCE_ID, rc=1, prgi=77, pasid=3),
        PasidDeviceTlbInvalidateDescriptor.of(**with_pasid, gi=True, s=True),
    ]
    bench.queue.submit(*descriptors)
    assert bench.device.requests == [
        InvalidationRequest(0, 0x8000, False, None, 0),
        InvalidationRequest(0x7000, 0x1000, False, 0x45, 1),
        InvalidationRequest(0, 0x2000, True, 0x45, 2),
    ]
    assert bench.device.responses == [PageGroupResponse(1, 77, None)]


@pytest.mark.section("6.5.2.9")
def test_a_wait_completes_with_the_last_answer() -> None:
    bench = Bench()
    bench.invalidate()
    bench.invalidate(OTHER)
    assert not bench.queue.wait()
    bench.answer(1, source_id=OTHER)
    assert not bench.queue.complete
    bench.answer(0)
    assert bench.queue.complete
    kinds = (DeviceTlbInvalidationSent, DeviceTlbInvalidationCompleted)
    assert [type(event) for event in bench.platform.events if isinstance(event, kinds)] == [
        DeviceTlbInvalidationSent,
        DeviceTlbInvalidationSent,
        DeviceTlbInvalidationCompleted,
        DeviceTlbInvalidationCompleted,
    ]
    assert not bench.status


def test_devices_without_a_client_answer_at_once() -> None:
    bench = Bench()
    bench.invalidate(0x0300)
    assert bench.queue.wait()


@pytest.mark.parametrize("count", range(9))
@pytest.mark.section("4.1.4")
def test_a_request_needs_as_many_completions_as_they_say(count: int) -> None:
    bench = Bench()
    bench.invalidate()
    bench.queue.wait()
    for _ in range((count or 8) - 1):
        bench.answer(0, count=count)
        assert not bench.queue.complete
    bench.answer(0, count=count)
    assert bench.queue.complete


def test_one_message_may_complete_several_requests() -> None:
    bench = Bench()
    for address in (0x1000, 0x2000, 0x3000):
        bench.invalidate(address=address)
    assert not bench.queue.wait()
    bench.answer(0, 1, 2)
    assert bench.queue.complete


@pytest.mark.parametrize("source_id", [SOURCE_ID, OTHER])
@pytest.mark.section("4.3", "6.5.2.11")
def test_unexpected_itags_are_found_after_the_others_are_dealt_with(source_id: int) -> None:
    bench = Bench()
    bench.invalidate()
    bench.queue.wait()
    bench.answer(0, 9, source_id=source_id)
    assert bench.status.ice
    assert bench.errors.icesid == source_id
    assert bench.fault_events == 1
    assert bench.queue.complete == (source_id == SOURCE_ID)
    bench.answer(17, source_id=0x0333)
    assert bench.errors.icesid == source_id  # kept while ICE is set
    assert bench.fault_events == 1
    bench.unit.write_register(0x34, 4, FaultStatus.of(ice=True))
    bench.answer(17, source_id=0x0333)
    assert bench.errors.icesid == 0x0333
    assert bench.fault_events == 2


def test_the_queue_goes_on_after_an_unexpected_answer() -> None:
    bench = Bench()
    bench.answer(3)
    assert bench.queue.wait()


@pytest.mark.section("4.3")
def test_a_time_out_stops_the_queue_until_software_clears_it() -> None:
    bench = Bench()
    bench.invalidate()
    bench.queue.wait()
    bench.unit.devices.time_out(0)
    assert bench.status.ite
    assert bench.errors.itesid == SOURCE_ID
    assert bench.fault_events == 1
    assert isinstance(bench.platform.events[-2], DeviceTlbInvalidationTimedOut)
    head = bench.unit.read_register(0x80, 8)
    bench.invalidate(address=0x9000)
    assert len(bench.device.requests) == 1
    assert bench.unit.read_register(0x80, 8) == head
    bench.answer(0)  # late: the ITag is free
    assert bench.status.ice
    assert not bench.queue.complete
    bench.unit.write_register(0x34, 4, FaultStatus.of(ite=True, ice=True))
    assert len(bench.device.requests) == 2
    assert not bench.queue.wait()
    bench.answer(0)
    assert bench.queue.complete


def test_nobody_is_waited_for_where_no_device_is() -> None:
    bench = Bench()
    bench.invalidate(0x0700)
    events = [type(each) for each in bench.platform.events]
    assert events[-2:] == [DeviceTlbInvalidationSent, DeviceTlbInvalidationCompleted]
    assert bench.queue.wait()


def test_only_an_outstanding_request_can_time_out() -> None:
    with pytest.raises(ValueError, match="itag: no invalidation request 4 is outstanding"):
        Bench().unit.devices.time_out(4)


@given(st.integers(1, 4), st.integers(1, 12))
def test_itags_are_not_shared(itags: int, count: int) -> None:
    bench = Bench(itags=itags)
    for number in range(count):
        bench.invalidate(address=number << 12)
    bench.queue.wait()
    while bench.unit.devices.outstanding:
        outstanding = bench.unit.devices.outstanding
        assert len(outstanding) <= itags
        assert all(itag == each.request.itag for itag, each in outstanding.items())
        bench.answer(next(iter(outstanding)))
    assert bench.queue.complete
    assert [request.address >> 12 for request in bench.device.requests] == list(range(count))


@pytest.mark.parametrize("dit", [False, True])
@pytest.mark.section("6.5.2.5")
@pytest.mark.fields("DeviceTlbInvalidateDescriptor.mip.pfsid_3_0.pfsid_15_4")
def test_mip_limits_a_physical_function_where_dit_is_reported(dit: bool) -> None:
    bench = Bench(dit=dit)
    limit = {"pfsid_15_4": 0x0100, "mip": 2} if dit else {"mip": 2}
    for source_id in (SOURCE_ID, OTHER, SOURCE_ID):
        bench.invalidate(source_id, **limit)
    sent = len(bench.device.requests) + len(bench.other.requests)
    assert sent == (2 if dit else 3)
    bench.answer(1, source_id=OTHER)
    assert len(bench.device.requests) == 2


@pytest.mark.section("6.5.2.5")
def test_mip_counts_the_requests_of_its_own_physical_function() -> None:
    bench = Bench(dit=True)
    for number in (1, 2):
        bench.invalidate(pfsid_15_4=number << 4, mip=1)
        assert len(bench.device.requests) == number
    bench.invalidate(pfsid_15_4=0x10, mip=1)
    assert len(bench.device.requests) == 2


@pytest.mark.parametrize("dit", [False, True])
@pytest.mark.section("6.5.2.6")
@pytest.mark.fields("PasidDeviceTlbInvalidateDescriptor.mip.pfsid_3_0.pfsid_15_4")
def test_mip_limits_invalidations_with_a_pasid_alike(dit: bool) -> None:
    bench = Bench(dit=dit)
    function = {"pfsid_3_0": 5, "pfsid_15_4": 0x0130} if dit else {}
    for _ in range(4):
        bench.queue.submit(
            PasidDeviceTlbInvalidateDescriptor.of(sid=SOURCE_ID, pasid=7, mip=2, **function)
        )
    assert len(bench.device.requests) == (2 if dit else 4)
    bench.answer(0)
    assert len(bench.device.requests) == (3 if dit else 4)


@pytest.mark.section("7.7")
@pytest.mark.fields("InvalidationWaitDescriptor.pd")
def test_a_page_request_drain_ends_behind_the_requests_before_the_answer() -> None:
    bench = Bench()
    bench.invalidate()
    assert not bench.queue.wait(drain_page_requests=True)
    assert not bench.queue.complete
    bench.answer(0)
    assert bench.queue.complete


def test_answers_are_unsupported_while_remapping_is_off() -> None:
    bench = Bench()
    bench.invalidate()
    bench.queue.wait()
    bench.unit.write_register(0x18, 4, 1 << 26)
    bench.answer(0)
    assert not bench.queue.complete
    assert not bench.status


@pytest.mark.parametrize("itags", [0, 33])
def test_there_are_at_most_32_itags(itags: int) -> None:
    with pytest.raises(ValueError, match="itags"):
        Bench(itags=itags)


def test_a_queue_that_waits_for_a_device_fills_up() -> None:
    bench = Bench()
    bench.invalidate()
    bench.queue.wait()
    with pytest.raises(QueueFullError, match="room for"):
        for _ in range(200):
            bench.queue.wait()
    bench.answer(0)
    assert bench.queue.wait()


def test_the_memory_of_a_queue_is_checked() -> None:
    platform = Platform()
    for pages, base, status in ((3, 0x5000, 0x7000), (1, 0x5008, 0x7000), (1, 0x5000, 0x7002)):
        with pytest.raises(ValueError, match="invalidation queue"):
            QueueDriver(platform.unit, platform.memory, base, status, pages=pages)
