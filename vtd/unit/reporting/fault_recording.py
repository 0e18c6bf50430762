"""Fault recording registers, the fault status register and the fault event (VT-d 7.2, 7.3)."""

from __future__ import annotations

from typing import Any

from vtd.layouts.registers import FaultRecording, FaultStatus, GlobalStatus
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting import rules
from vtd.unit.reporting.event_interrupt import EventInterrupt
from vtd.unit.requests.faults import FaultReason
from vtd.unit.requests.request import Request
from vtd.unit.state import Stateful


class FaultRecorder(Stateful):
    """Primary fault logging of one unit."""

    STATE = ("next_index",)

    def __init__(
        self,
        registers: RegisterFile,
        capabilities: Capabilities,
        options: Options,
        event: EventInterrupt,
    ) -> None:
        self._registers = registers
        self._capabilities = capabilities
        self._departures = options.departures
        self._event = event
        self.next_index = 0
        """The record that the next fault goes to."""
        registers.on_write(FaultRecording, self._record_written)
        registers.on_write(FaultStatus, self._status_written)

    def dma_fault(self, request: Request, reason: FaultReason) -> None:
        """Record a fault of a DMA request, with the address it asked for."""
        record = FaultRecording.of(
            t1=request.type >> 1,
            t2=request.type & 1,
            at=request.address_type,
            fr=reason,
            sid=request.source_id,
            fi=rules.fault_information(self._departures, self._capabilities, request.address),
        )
        if request.pasid is not None:
            record = record.replace(pp=True, pv=request.pasid, priv=request.privileged)
        self.log(record)

    def interrupt_fault(self, source_id: int, index: int, reason: FaultReason) -> None:
        """Record a fault of an interrupt request; FI holds the index in bits 63:48."""
        self.log(FaultRecording.of(fr=reason, sid=source_id, fi=(index & 0xFFFF) << 48))

    def log(self, record: FaultRecording) -> None:
        """Primary fault logging (7.2.1)."""
        registers = self._registers
        status = registers[FaultStatus]
        compressed = rules.is_compressed(self._departures)
        if status.pfo or (compressed and self._pending_for(record.sid)):
            return
        index = self.next_index
        if registers[FaultRecording, index].f:
            registers[FaultStatus] = status.replace(pfo=True)
            return
        registers[FaultRecording, index] = record.replace(f=True)
        self.next_index = (index + 1) % self._capabilities.fault_records
        if not status.ppf:
            self.raise_status(ppf=True, fri=index)

    def _pending_for(self, source_id: int) -> bool:
        records = (
            self._registers[FaultRecording, index]
            for index in range(self._capabilities.fault_records)
        )
        return any(record.f and record.sid == source_id for record in records)

    def raise_status(self, **fields: int) -> None:
        """Set fields of FSTS; an event unless one was pending already (7.3)."""
        status = self._registers[FaultStatus]
        self._registers[FaultStatus] = status.replace(**fields)
        if not status & _PENDING:
            self._event.trigger()

    def restart_when_disabled(self) -> None:
        """Go back to record 0 while neither DMA nor interrupts are remapped (7.2.1)."""
        status = self._registers[GlobalStatus]
        if not (status.tes or status.ires):
            self.next_index = 0

    def _record_written(self, _: RegisterWrite[Any]) -> None:
        pending = any(
            self._registers[FaultRecording, index].f
            for index in range(self._capabilities.fault_records)
        )
        status = self._registers[FaultStatus]
        self._registers[FaultStatus] = status.replace(ppf=pending)
        self._withdraw_if_idle()

    def _status_written(self, _: RegisterWrite[Any]) -> None:
        self._withdraw_if_idle()

    def _withdraw_if_idle(self) -> None:
        if not self._registers[FaultStatus] & _PENDING:
            self._event.withdraw()


_PENDING = sum(FaultStatus.FIELDS[name].mask for name in ("ppf", "pfo", "iqe", "ice", "ite"))
