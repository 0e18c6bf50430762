"""The mask and pending bits of each event, and the message."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.world import capabilities
from vtd.unit.interrupts.outcome import Message
from vtd.unit.registers.register_file import RegisterFile
from vtd.unit.reporting.event_interrupt import (
    FAULT_EVENT,
    INVALIDATION_EVENT,
    PAGE_REQUEST_EVENT,
    PERFORMANCE_EVENT,
    EventInterrupt,
    EventRegisters,
)

EVENTS = {
    FAULT_EVENT: 0x38,
    INVALIDATION_EVENT: 0xA0,
    PAGE_REQUEST_EVENT: 0xE0,
    PERFORMANCE_EVENT: 0x328,
}
UNIT = capabilities(ecmds=1, pms=1, fro=0x240)
IM, IP = 1 << 31, 1 << 30


class Bench:
    """One event by itself."""

    def __init__(self, event: EventRegisters) -> None:
        self.base = EVENTS[event]
        self.registers = RegisterFile(UNIT)
        self.sent: list[Message] = []
        self.event = EventInterrupt(self.registers, event, self.sent.append)

    def control(self) -> int:
        return self.registers.read(self.base, 4)


def benches() -> Iterator[Bench]:
    return map(Bench, EVENTS)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.section("11.4.7.2")
@pytest.mark.fields(
    "FaultEventControl.im.ip",
    "InvalidationEventControl.im.ip",
    "PageRequestEventControl.im.ip",
    "PerformanceMonitoringInterruptControl.im.ip",
)
def test_an_event_waits_while_masked_and_is_sent_on_unmasking(event: EventRegisters) -> None:
    bench = Bench(event)
    assert bench.control() == IM
    bench.event.trigger()
    assert (bench.control(), bench.sent) == (IM | IP, [])
    bench.registers.write(bench.base, 4, IP)
    assert bench.control() == 0
    assert len(bench.sent) == 1
    bench.event.trigger()
    assert len(bench.sent) == 2


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.section("11.4.7.2")
def test_what_is_withdrawn_is_not_sent(event: EventRegisters) -> None:
    bench = Bench(event)
    bench.event.trigger()
    bench.event.withdraw()
    bench.registers.write(bench.base, 4, 0)
    assert bench.sent == []


@pytest.mark.section("11.4.9.5")
def test_masking_sends_nothing() -> None:
    for bench in benches():
        bench.event.trigger()
        bench.registers.write(bench.base, 4, IM)
        assert (bench.control(), bench.sent) == (IM | IP, [])


@given(
    data=st.integers(0, (1 << 32) - 1),
    address=st.integers(0, (1 << 32) - 1),
    upper=st.integers(0, (1 << 32) - 1),
)
@pytest.mark.section(
    "5.1.6.1",
    "11.4.7.3",
    "11.4.7.4",
    "11.4.9.8",
    "11.4.11.8",
    "11.4.13.9",
    "11.4.13.10",
    "11.4.13.11",
)
@pytest.mark.fields(
    "FaultEventData.imd",
    "FaultEventAddress.ma",
    "FaultEventUpperAddress.mua",
    "InvalidationEventData.imd",
    "InvalidationEventAddress.ma",
    "InvalidationEventUpperAddress.mua",
    "PageRequestEventData.imd",
    "PageRequestEventAddress.ma",
    "PageRequestEventUpperAddress.mua",
    "PerformanceMonitoringInterruptData.imd",
    "PerformanceMonitoringInterruptAddress.ma",
    "PerformanceMonitoringInterruptUpperAddress.mua",
)
def test_the_message_is_what_the_registers_hold(data: int, address: int, upper: int) -> None:
    for bench in benches():
        for offset, value in ((4, data), (8, address), (12, upper)):
            bench.registers.write(bench.base + offset, 4, value)
        bench.registers.write(bench.base, 4, 0)
        bench.event.trigger()
        assert bench.sent == [Message(upper << 32 | address & ~3, data & 0xFFFF)]


@pytest.mark.section("5.1.6.2", "11.4.7.5")
def test_a_unit_without_eim_has_no_upper_address() -> None:
    registers = RegisterFile(capabilities(eim=0))
    sent: list[Message] = []
    event = EventInterrupt(registers, FAULT_EVENT, sent.append)
    registers.write(0x44, 4, 0xFFFF_FFFF)
    registers.write(0x40, 4, 0xFEE0_0000)
    registers.write(0x38, 4, 0)
    event.trigger()
    assert sent == [Message(0xFEE0_0000, 0)]
