"""Rules of DMA translation that units are known to depart from.

Each function gives the specification's answer unless the unit has the departure that it names; the
code beside this module knows of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pagetables.bits import Implementation
from vtd.layouts.entries import PasidEntry
from vtd.unit.departures import Departures

T = TypeVar("T")


def reserved_pasid_bits(departures: Departures, implementation: Implementation) -> int:
    """The bits of a PASID entry that have to be 0 (9.6)."""
    reserved = PasidEntry.reserved_mask(implementation)
    return reserved & ~PasidEntry.aw.mask if departures.ignore_aw_without_ssts else reserved


def in_order(departures: Departures, checks: Sequence[T]) -> Iterable[T]:
    """The checks of a PASID entry, given in the order of their conditions, SPT.3 and SPT.4."""
    return reversed(checks) if departures.check_pgtt_before_reserved else checks


def canonical_width(departures: Departures, entry: PasidEntry, width: int) -> int:
    """How many bits a canonical address of a first stage with ``width`` bits has (3.6)."""
    return min(width, 30 + 9 * entry.aw) if departures.check_canonical_by_aw else width


def is_walk_snooped(departures: Departures, entry: PasidEntry) -> bool:
    """Whether accesses to the paging structures of a PASID are snooped: PWSNP (3.10)."""
    return entry.pwsnp or departures.snoop_every_walk
