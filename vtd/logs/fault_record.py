"""Fault recording registers in a log: the words of FRCD_REG decoded (VT-d 11.4.7.6)."""

from __future__ import annotations

from devices.dma import AddressType
from devices.source_id import Bdf, SourceId
from vtd.layouts.registers import FaultRecording, RequestType
from vtd.logs.fault import LoggedFault, RequestKind

INTERRUPT_REASONS = range(0x20, 0x30)
"""Reasons of interrupt requests (5.1.4.1)."""
_KINDS = {
    RequestType.WRITE: RequestKind.WRITE,
    RequestType.READ: RequestKind.READ,
    RequestType.ATOMIC_OP: RequestKind.ATOMIC,
    RequestType.PAGE_REQUEST: RequestKind.PAGE_REQUEST,
}
_ADDRESS_TYPES: dict[int, str] = {
    AddressType.TRANSLATION_REQUEST: "a translation request (ATS)",
    AddressType.TRANSLATED: "a request with a translated address (ATS)",
}
_INDEX_SHIFT = 48


def decode_record(line: int, high: int, low: int, system: str) -> LoggedFault | None:
    """The fault in the two quadwords of a record; None for one that records nothing (F clear)."""
    record = FaultRecording((high << 64 | low) & (1 << 128) - 1)
    if not record.f:
        return None
    interrupt = record.fr in INTERRUPT_REASONS
    return LoggedFault(
        line,
        RequestKind.INTERRUPT if interrupt else _KINDS[record.request_type],
        Bdf(0, SourceId(record.sid)),
        low >> _INDEX_SHIFT if interrupt else record.fi,
        record.fr,
        record.pv if record.pp and not interrupt else None,
        system,
        _ADDRESS_TYPES.get(record.at, ""),
    )


def settled(fault: LoggedFault) -> LoggedFault:
    """A fault that gives an interrupt as access to an address, as an interrupt with its index."""
    if fault.reason not in INTERRUPT_REASONS or fault.kind is RequestKind.INTERRUPT:
        return fault
    target = fault.target
    if target is not None and target >> _INDEX_SHIFT:
        target >>= _INDEX_SHIFT
    return fault._replace(kind=RequestKind.INTERRUPT, target=target, pasid=None)
