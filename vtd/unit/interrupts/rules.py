"""Rules of interrupt remapping that units are known to depart from.

Each function gives the specification's answer unless the unit has the departure that it names; the
code beside this module knows of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple, TypeVar

from vtd.layouts.interrupt_entries import (
    XAPIC_DESTINATION,
    DeliveryMode,
    PostedIrte,
    RemappedIrte,
    SourceValidationType,
    TriggerMode,
)
from vtd.layouts.registers import GlobalStatus, InterruptRemappingTableAddress
from vtd.unit.departures import Departures

T = TypeVar("T")

ALWAYS_EDGE = (DeliveryMode.SMI, DeliveryMode.NMI, DeliveryMode.INIT, DeliveryMode.EXT_INT)
RESERVED_DELIVERY_MODES = (DeliveryMode.RESERVED_3, DeliveryMode.RESERVED_6)


class Buses(NamedTuple):
    """Bus numbers from ``first`` to ``last``."""

    first: int
    last: int


def is_compatibility_format_blocked(
    departures: Departures, status: GlobalStatus, table: InterruptRemappingTableAddress
) -> bool:
    """Whether compatibility-format interrupts are blocked while remapping is on (5.1.4)."""
    blocked = table.eime or not status.cfis
    return blocked and not departures.pass_compatibility_format


def interrupt_index(departures: Departures, handle: int, subhandle: int) -> int:
    """Handle and subhandle together (5.1.3)."""
    index = handle + subhandle
    return index & 0xFFFF if departures.wrap_interrupt_index else index


def as_looked_at(departures: Departures, entry: RemappedIrte, features: Set[str]) -> RemappedIrte:
    """An entry without the fields that the unit does not look at: the whole entry (9.9)."""
    without_im = departures.ignore_im_without_pi and "pi" not in features
    return entry.replace(im=False) if without_im else entry


def has_reserved_value(
    departures: Departures, entry: RemappedIrte, table: InterruptRemappingTableAddress
) -> bool:
    """Whether DLM or, in xAPIC mode, DST of an entry has a reserved value (9.9)."""
    wide = not table.eime and bool(entry.dst & ~XAPIC_DESTINATION)
    reserved = wide or entry.dlm in RESERVED_DELIVERY_MODES
    return reserved and not departures.ignore_reserved_irte_values


def trigger_mode(departures: Departures, entry: RemappedIrte) -> TriggerMode:
    """TM as far as it counts: the interrupts of some delivery modes are always edges (9.9)."""
    always_edge = entry.dlm in ALWAYS_EDGE and not departures.keep_trigger_mode
    return TriggerMode.EDGE if always_edge else entry.tm


def in_order(departures: Departures, checks: Sequence[T]) -> Iterable[T]:
    """The checks of an entry, given in the order of the text (5.1.4)."""
    return reversed(checks) if departures.check_reserved_irte_before_source else checks


def has_reserved_validation(departures: Departures, entry: RemappedIrte | PostedIrte) -> bool:
    """Whether SVT of an entry makes it one with a reserved field (9.9)."""
    reserved = entry.svt is SourceValidationType.RESERVED_3
    return reserved and not departures.reject_source_of_reserved_svt


def bus_range(departures: Departures, entry: RemappedIrte | PostedIrte) -> Buses:
    """The buses whose requesters may use an entry with SVT = 10b (9.9)."""
    upper, lower = entry.sid >> 8, entry.sid & 0xFF
    return Buses(lower, upper) if departures.swap_irte_bus_range else Buses(upper, lower)
