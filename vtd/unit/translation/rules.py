"""Rules of DMA translation that units are known to depart from.

Each function gives the specification's answer unless the unit has the departure that it names; the
code beside this module knows of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pagetables.bits import BitRecord, Implementation
from vtd.layouts.entries import PasidDirectoryEntry, PasidEntry, ScalableContextEntry
from vtd.unit.departures import Departures
from vtd.unit.requests.faults import FaultReason

T = TypeVar("T")


def reserved_pasid_bits(departures: Departures, implementation: Implementation) -> int:
    """The bits of a PASID entry that have to be 0 (9.6)."""
    reserved = reserved_bits(departures, PasidEntry, implementation)
    return reserved & ~PasidEntry.aw.mask if departures.ignore_aw_without_ssts else reserved


def reserved_bits(
    departures: Departures, record: type[BitRecord], implementation: Implementation
) -> int:
    """The bits of a structure that have to be 0 (9.1 to 9.6)."""
    reserved = record.reserved_mask(implementation)
    looked_at = _LOOKED_AT.get(record) if departures.overlook_reserved_bits else None
    return reserved if looked_at is None else reserved & looked_at


def without_unknown_rid_pasid(
    departures: Departures, entry: ScalableContextEntry, implementation: Implementation
) -> ScalableContextEntry:
    """A context entry whose RID_PASID and RID_PRIV are 0 where the unit has none (9.4).

    They are reserved then, which matters only where that is overlooked.
    """
    if not departures.overlook_reserved_bits:
        return entry
    unknown = ScalableContextEntry.reserved_mask(implementation) & _RID_PASID
    return ScalableContextEntry(entry & ~unknown)


_RID_PASID = ScalableContextEntry.rid_pasid.mask | ScalableContextEntry.rid_priv.mask
_LOOKED_AT: dict[type[BitRecord], int] = {
    ScalableContextEntry: ~(
        _RID_PASID
        | ScalableContextEntry.dte.mask
        | ScalableContextEntry.paside.mask
        | ScalableContextEntry.pre.mask
    ),
    PasidDirectoryEntry: 0,
    PasidEntry: PasidEntry.aw.mask,
}
"""The bits of structures that are looked at where reserved ones are overlooked."""


def root_half(departures: Departures, half: int) -> int:
    """The bits of a scalable-mode root entry that count for a device: its half (9.2)."""
    return -1 if departures.check_both_root_halves else half


def disabled(departures: Departures, fpd: bool, context_fpd: bool) -> bool:
    """Whether faults of PASID structures are not to be recorded: FPD of any on the way (7.1.1)."""
    return context_fpd if departures.record_despite_fpd else fpd


def absence(departures: Departures, *, supported: bool) -> FaultReason:
    """The fault of a PASID entry with P = 0; ``supported``: its PGTT and AW (SPT.2)."""
    invalid = departures.check_pgtt_before_present and not supported
    return FaultReason.PASID_INVALID if invalid else FaultReason.PASID_NOT_PRESENT


def pass_through_width(departures: Departures, width: int) -> int:
    """How many bits the address of a pass-through request may have (LGN.1, SGN.4)."""
    return 64 if departures.pass_beyond_host_width else width


def in_order(departures: Departures, checks: Sequence[T]) -> Iterable[T]:
    """The checks of a PASID entry, given in the order of their conditions, SPT.3 and SPT.4."""
    return reversed(checks) if departures.check_pgtt_before_reserved else checks


def canonical_width(departures: Departures, entry: PasidEntry, width: int) -> int:
    """How many bits a canonical address of a first stage with ``width`` bits has (3.6)."""
    return min(width, 30 + 9 * entry.aw) if departures.check_canonical_by_aw else width


def is_walk_snooped(departures: Departures, entry: PasidEntry) -> bool:
    """Whether accesses to the paging structures of a PASID are snooped: PWSNP (3.10)."""
    return entry.pwsnp or departures.snoop_every_walk
