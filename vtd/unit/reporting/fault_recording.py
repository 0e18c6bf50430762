"""Fault recording registers, the fault status register and the fault event (VT-d 7.2, 7.3)."""

from __future__ import annotations

from typing import Any

from devices.dma import ATOMIC, EXECUTE_REQUESTED, MESSAGE, READ, WRITE, Request
from vtd.layouts.registers import FaultRecording, FaultStatus, GlobalStatus, RequestType
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting import rules
from vtd.unit.reporting.event_interrupt import EventInterrupt
from vtd.unit.requests.faults import FaultReason
from vtd.unit.state import Stateful

UNDEFINED_INFORMATION = frozenset(
    (
        FaultReason.IR_RESERVED_REQUEST,
        FaultReason.IR_COMPATIBILITY_BLOCKED,
        FaultReason.IR_NOT_AN_INTERRUPT,
        FaultReason.IR_REMAPPING_REQUIRED,
        FaultReason.IR_EXTENDED_MODE_REQUIRED,
    )
)
"""Reasons for which FI is undefined (11.4.7.6)."""


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
        self._compressed = rules.is_compressed(options.departures)
        self._event = event
        self.next_index = 0
        """The record that the next fault goes to."""
        self._status = registers.offset(FaultStatus)
        self._records = [
            registers.offset(FaultRecording, index) for index in range(capabilities.fault_records)
        ]
        self._implemented = ~FaultRecording.reserved_mask(capabilities.implementation)
        self._information = rules.fault_information(options.departures, capabilities)
        registers.on_write(FaultRecording, self._record_written)
        registers.on_write(FaultStatus, self._status_written)

    @property
    def full(self) -> bool:
        """Whether nothing is recorded any more, as one has overflowed (FSTS.PFO)."""
        return bool(self._registers.values[self._status] & _PFO)

    def dma_fault(self, request: Request, reason: FaultReason) -> None:
        """Record a fault of a DMA request, with the address it asked for."""
        if self.full:
            return
        source_id, address, access, _, pasid, privileged, address_type, _ = request
        departures, write = self._departures, bool(access & WRITE)
        code = rules.code(departures, self._capabilities, reason, write=write)
        record = (
            _TYPES[access & (ATOMIC | MESSAGE)]
            | address_type << _AT
            | code << _FR
            | source_id << _SID
            | address & self._information
        )
        if pasid is not None:
            record |= _PP | pasid << _PV | privileged << _PRIV
            if access & EXECUTE_REQUESTED:
                record |= _EXE
        self.log(record)

    def interrupt_fault(
        self, source_id: int, address: int, index: int, reason: FaultReason
    ) -> None:
        """Record a fault of an interrupt request; FI holds the index in bits 63:48.

        Of an access to the interrupt range that is no interrupt, for which FI is undefined, it
        holds the page.
        """
        if self.full:
            return
        information = (index & 0xFFFF) << 48
        if reason is FaultReason.IR_NOT_AN_INTERRUPT:
            information = address & self._information
        self.log(FaultRecording.of(fr=reason, sid=source_id, fi=information))

    def is_information_defined(self, offset: int) -> bool:
        """Whether what is in a register is what 11.4.7.6 says: FI of some reasons can be anything.

        ``offset`` is that of a register access; all but the lower halves of fault records are.
        """
        start = offset & ~0x7
        return start not in self._records or (
            FaultRecording(self._registers.values[start]).fr not in UNDEFINED_INFORMATION
        )

    def log(self, record: int) -> None:
        """Primary fault logging (7.2.1), which PFO has not ended yet."""
        registers, index = self._registers, self.next_index
        if self._compressed and self._pending_for(FaultRecording(record).sid):
            return
        if registers.values[self._records[index]] & _F:
            registers[FaultStatus] = registers[FaultStatus].replace(pfo=True)
            return
        registers.values[self._records[index]] = FaultRecording((record | _F) & self._implemented)
        self.next_index = (index + 1) % len(self._records)
        if not registers.values[self._status] & _PPF:
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


_T1, _T2, _AT, _FR, _SID, _PV, _PRIV = (
    FaultRecording.FIELDS[name].low for name in ("t1", "t2", "at", "fr", "sid", "pv", "priv")
)
_TYPES = {
    access: (kind >> 1) << _T1 | (kind & 1) << _T2
    for access, kind in (
        (READ, RequestType.READ),
        (WRITE, RequestType.WRITE),
        (ATOMIC, RequestType.ATOMIC_OP),
        (MESSAGE, RequestType.PAGE_REQUEST),
    )
}
"""T1 and T2 by access."""
_F, _PP, _EXE = FaultRecording.f.mask, FaultRecording.pp.mask, FaultRecording.exe.mask
_PFO, _PPF = FaultStatus.pfo.mask, FaultStatus.ppf.mask
_PENDING = sum(FaultStatus.FIELDS[name].mask for name in ("ppf", "pfo", "iqe", "ice", "ite"))
