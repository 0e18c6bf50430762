"""Rules of fault and event reporting that units are known to depart from.

Each function gives the specification's answer unless the unit has the departure that it names; the
code beside this module knows of none.
"""

from __future__ import annotations

from vtd.layouts.registers import PageRequestEventControl
from vtd.unit.departures import Departures
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile

PAGE = (1 << 64) - (1 << 12)


def fault_information(departures: Departures, capabilities: Capabilities) -> int:
    """The address bits in FI of a DMA fault: the page, up to the largest AGAW (11.4.7.6)."""
    widths = capabilities.address_widths
    if not widths or departures.record_whole_address:
        return PAGE
    return PAGE & (1 << 30 + 9 * max(widths)) - 1


def is_compressed(departures: Departures) -> bool:
    """Whether a fault of a requester that has one pending is dropped, which is open (7.2.1)."""
    return departures.compress_faults


def reset(departures: Departures, registers: RegisterFile) -> None:
    """What the registers hold after reset beyond what they declare: nothing (11.4.11.5)."""
    if departures.unmask_page_request_event:
        registers[PageRequestEventControl] = PageRequestEventControl(0)
