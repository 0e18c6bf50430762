"""The tables that translate a request: the outcome of the context or PASID lookup (VT-d 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pagetables.walk import Stage
from vtd.layouts.entries import ContextEntry, PasidEntry, PasidTranslationType
from vtd.unit.requests.faults import FaultReason


class ModeReasons(NamedTuple):
    """Fault reasons of the conditions that legacy and scalable mode share."""

    top_read_error: FaultReason
    read_error: FaultReason
    reserved: FaultReason
    no_permission: FaultReason | None
    """None: legacy mode reports the right that the request needs."""
    read_denied: FaultReason
    write_denied: FaultReason
    beyond_width: FaultReason
    beyond_haw: FaultReason
    interrupt_range: FaultReason

    @property
    def of_every_access(self) -> tuple[FaultReason, FaultReason]:
        """The reasons of addresses out of range, which no access to them avoids."""
        return self.beyond_width, self.beyond_haw


LEGACY = ModeReasons(
    top_read_error=FaultReason.CONTEXT_INVALID,
    read_error=FaultReason.SECOND_STAGE_READ_ERROR,
    reserved=FaultReason.SECOND_STAGE_RESERVED,
    no_permission=None,
    read_denied=FaultReason.READ_DENIED,
    write_denied=FaultReason.WRITE_DENIED,
    beyond_width=FaultReason.ADDRESS_BEYOND_WIDTH,
    beyond_haw=FaultReason.ADDRESS_BEYOND_WIDTH,
    interrupt_range=FaultReason.INTERRUPT_RANGE,
)
SCALABLE = ModeReasons(
    top_read_error=FaultReason.SS_TOP_READ_ERROR,
    read_error=FaultReason.SS_READ_ERROR,
    reserved=FaultReason.SS_RESERVED,
    no_permission=FaultReason.SS_NOT_PRESENT,
    read_denied=FaultReason.SM_READ_DENIED,
    write_denied=FaultReason.SM_WRITE_DENIED,
    beyond_width=FaultReason.SM_ADDRESS_BEYOND_WIDTH,
    beyond_haw=FaultReason.SM_ADDRESS_BEYOND_HAW,
    interrupt_range=FaultReason.SM_INTERRUPT_RANGE,
)


class IotlbTags(NamedTuple):
    """What invalidations match, besides the address."""

    domain_id: int
    kind: PasidTranslationType
    pasid: int
    """The PASID whose tables were used: RID_PASID for requests without PASID, 0 in legacy mode."""
    width: int = 64
    """Input-address bits that are compared, where canonical addresses repeat them (Table 18)."""


@dataclass(frozen=True, slots=True)
class Target:
    """The translation that a context entry, or a PASID table entry, sets up."""

    kind: PasidTranslationType
    domain_id: int
    pasid: int
    """PASID of the entry; 0 in legacy mode."""
    fpd: bool
    """Fault processing disable, of any structure on the way."""
    first: Stage | None
    second: Stage | None
    width: int
    """Bits of a second-stage input address, min(MGAW, AW), or of an address that is passed through:
    HAW, in legacy mode min(HAW, AW)."""
    reasons: ModeReasons
    entry: ContextEntry | PasidEntry
    tags: IotlbTags
    """Of its translations in the IOTLB (Table 17)."""
    snooped: bool
    """PGSNP: accesses snoop processor caches whatever the request or the page asks for (3.10)."""
    has_flags: bool
    """Some stage has a dirty flag to be set by writes."""
    canonical_width: int
    """Bits of a first-stage input address, of which the bits above repeat the highest (3.6)."""
