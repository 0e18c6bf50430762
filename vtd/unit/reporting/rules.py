"""Rules of fault and event reporting that units are known to depart from.

Each function gives the specification's answer unless the unit has the departure that it names; the
code beside this module knows of none.
"""

from __future__ import annotations

from vtd.layouts.registers import PageRequestEventControl
from vtd.unit.departures import Departures
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile
from vtd.unit.requests.faults import FaultReason, TranslationFault

PAGE = -1 << 12


def fault_information(departures: Departures, capabilities: Capabilities) -> int:
    """The address bits in FI of a DMA fault: the page, up to the largest AGAW (11.4.7.6)."""
    widths = capabilities.address_widths
    if not widths or departures.record_whole_address:
        return PAGE
    return PAGE & (1 << 30 + 9 * max(widths)) - 1


def code(
    departures: Departures, capabilities: Capabilities, reason: FaultReason, *, write: bool
) -> int:
    """What FR says of a DMA fault: the code of its reason (Table 30)."""
    first = "fsts" in capabilities.features and reason in _OF_EITHER_STAGE
    if first or not departures.report_legacy_codes:
        return reason
    if reason is FaultReason.SS_NOT_PRESENT:
        return FaultReason.WRITE_DENIED if write else FaultReason.READ_DENIED
    return _LEGACY_CODES.get(reason, reason)


_LEGACY_CODES = {
    FaultReason.SM_ROOT_READ_ERROR: FaultReason.ROOT_READ_ERROR,
    FaultReason.SM_ROOT_NOT_PRESENT: FaultReason.ROOT_NOT_PRESENT,
    FaultReason.SM_ROOT_RESERVED: FaultReason.ROOT_RESERVED,
    FaultReason.SM_CONTEXT_READ_ERROR: FaultReason.CONTEXT_READ_ERROR,
    FaultReason.SM_CONTEXT_NOT_PRESENT: FaultReason.CONTEXT_NOT_PRESENT,
    FaultReason.SM_CONTEXT_RESERVED: FaultReason.CONTEXT_RESERVED,
    FaultReason.SS_READ_ERROR: FaultReason.SECOND_STAGE_READ_ERROR,
    FaultReason.SS_RESERVED: FaultReason.SECOND_STAGE_RESERVED,
    FaultReason.SS_TOP_READ_ERROR: FaultReason.CONTEXT_INVALID,
    FaultReason.SM_ADDRESS_BEYOND_WIDTH: FaultReason.ADDRESS_BEYOND_WIDTH,
    FaultReason.SM_WRITE_DENIED: FaultReason.WRITE_DENIED,
    FaultReason.SM_READ_DENIED: FaultReason.READ_DENIED,
}
"""Of reasons of scalable mode, the same in legacy mode."""


_OF_EITHER_STAGE = (FaultReason.SM_WRITE_DENIED, FaultReason.SM_READ_DENIED)


def is_recorded(departures: Departures, fault: TranslationFault) -> bool:
    """Whether fault processing is not disabled for a fault (7.1.1)."""
    unheeded = departures.record_despite_fpd and fault.reason in _FPD_UNHEEDED
    return fault.recorded or unheeded


_FPD_UNHEEDED = (FaultReason.CONTEXT_RESERVED, FaultReason.SM_CONTEXT_RESERVED)


def is_compressed(departures: Departures) -> bool:
    """Whether a fault of a requester that has one pending is dropped, which is open (7.2.1)."""
    return departures.compress_faults


def reset(departures: Departures, registers: RegisterFile) -> None:
    """What the registers hold after reset beyond what they declare: nothing (11.4.11.5)."""
    if departures.unmask_page_request_event:
        registers[PageRequestEventControl] = PageRequestEventControl()
