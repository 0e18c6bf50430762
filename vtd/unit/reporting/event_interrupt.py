"""Interrupts of the unit itself: mask and pending bits, and the message (VT-d 5.1.6, 7.3, 11.4.7).

Fault, invalidation completion, page request and performance monitoring events work alike. Their
messages are never remapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from vtd.layouts import registers as r
from vtd.unit.interrupts.outcome import Message
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite


class EventRegisters(NamedTuple):
    """The four registers of one event."""

    control: type[r.Register]
    data: type[r.Register]
    address: type[r.Register]
    upper_address: type[r.Register]


FAULT_EVENT = EventRegisters(
    r.FaultEventControl, r.FaultEventData, r.FaultEventAddress, r.FaultEventUpperAddress
)
INVALIDATION_EVENT = EventRegisters(
    r.InvalidationEventControl,
    r.InvalidationEventData,
    r.InvalidationEventAddress,
    r.InvalidationEventUpperAddress,
)
PAGE_REQUEST_EVENT = EventRegisters(
    r.PageRequestEventControl,
    r.PageRequestEventData,
    r.PageRequestEventAddress,
    r.PageRequestEventUpperAddress,
)
PERFORMANCE_EVENT = EventRegisters(
    r.PerformanceMonitoringInterruptControl,
    r.PerformanceMonitoringInterruptData,
    r.PerformanceMonitoringInterruptAddress,
    r.PerformanceMonitoringInterruptUpperAddress,
)


class EventInterrupt:
    """The pending and mask logic of one event."""

    def __init__(
        self, registers: RegisterFile, event: EventRegisters, send: Callable[[Message], None]
    ) -> None:
        self._registers = registers
        self._event = event
        self._send = send
        registers.on_write(event.control, self._control_written)

    def trigger(self) -> None:
        """The event happened: send its message, or keep it pending while masked."""
        control = self._registers[self._event.control].replace(ip=True)
        self._registers[self._event.control] = control
        self._deliver()

    def withdraw(self) -> None:
        """Software has dealt with every cause: what is pending is not sent any more."""
        control = self._registers[self._event.control].replace(ip=False)
        self._registers[self._event.control] = control

    def _control_written(self, _: RegisterWrite[Any]) -> None:
        self._deliver()

    def _deliver(self) -> None:
        _, data, address, upper_address = self._event
        control: Any = self._registers[self._event.control]
        if control.ip and not control.im:
            self.withdraw()
            upper = int(self._registers[upper_address])
            self._send(Message(upper << 32 | self._registers[address], int(self._registers[data])))
