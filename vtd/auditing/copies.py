"""What caches may still hold: everything that was read for them and no invalidation had to remove.

VT-d 6.2 to 6.5. A unit may drop entries whenever it likes, so what is here is more than it has: a
copy stays until an invalidation covers it, however the unit's own caches are shaped. A large page
is kept as the 4 KiB pieces that were used (6.5.3.2). Left out: whether a copy is outdated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import Any

from devices.dma import InvalidationRequest
from pagetables.bits import BitRecord
from vtd.auditing.debt import Owner, Word
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    IotlbInvalidateDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.registers import ContextGranularity, IotlbGranularity
from vtd.unit.caching.caches import (
    FIRST_STAGE_KINDS,
    FUNCTION_MASKS,
    HOST_TABLE_SHIFTS,
    HostTableKey,
    StructureKey,
)
from vtd.unit.caching.iotlb import canonical_range
from vtd.unit.observer import CacheName
from vtd.unit.requests.request import RequestKind

Words = tuple[Word, ...]
"""What an entry came from, from the root on; the last one is its own."""
Range = tuple[int, int]


@dataclass(slots=True, eq=False, repr=False)
class Copy:
    """One entry that some cache may hold."""

    cache: CacheName
    place: dict[Any, Copy]
    key: Hashable
    """Where it is in ``place``, among the copies of its cache."""
    words: Words
    _: KW_ONLY
    source_id: int | None = None
    domain_id: int | None = None
    pasid: int | None = None
    kind: PasidTranslationType | None = None
    start: int | None = None
    """First input address of the 4 KiB piece, or of what the table translates; an index."""
    frame: int | None = None
    """Number of the frame that its piece of a page, or the first one, is in."""
    shift: int = 12
    """log2 of the page that it is a piece of, or of what its table translates."""
    refused: bool = False
    """Whether it keeps requests out, as under CM = 1."""
    number: int = 0
    """When it was made."""
    via: Word | None = None
    """The context or PASID entry through which a table was reached."""
    older: Copy | None = None
    """One with the same key that was made before something changed, or used after that."""
    early: str = ""
    """The invalidation that covered it at a time when it could be made again."""
    intact: int = -1
    """As of which version of its words it is known to be what they say."""
    gone: bool = False
    """Whether an invalidation has removed it."""
    used: bool = False
    """Whether a request went by it when it was outdated."""
    doubtful: bool = False
    """Whether the invalidation that covered it need not have been carried out (6.5.2.11)."""

    @property
    def owner(self) -> Owner:
        """Its tags."""
        address, mask = self.start, 0
        if self.cache in (CacheName.IOTLB, CacheName.DEVICE_TLB) and address is not None:
            address, mask = address >> self.shift << self.shift, self.shift - 12
        return Owner(self.source_id, self.domain_id, self.pasid, address, self.kind, mask)

    def chain(self) -> Iterator[Copy]:
        """It and those that it stands before."""
        copy: Copy | None = self
        while copy is not None:
            yield copy
            copy = copy.older

    def put(self) -> None:
        """Be what its place has for the key."""
        self.place[self.key] = self

    def drop(self) -> None:
        """An invalidation has removed it, and what it stands before."""
        for each in self.chain():
            each.gone = True
        self.place.pop(self.key, None)

    def stays(self) -> None:
        """It need not have been removed."""
        self.gone, self.doubtful = False, True
        newer = self.place.get(self.key)
        if newer is None:
            self.put()
        elif self not in (known := list(newer.chain())):
            known[-1].older = self

    def meets(self, start: int, end: int) -> bool:
        """Whether it is of an address in a range; first-stage addresses are canonical."""
        first = self.start or 0
        after = first + (1 << self.shift if self.cache in _WHOLE else 0x1000)
        if start < after and first < end:
            return True
        if self.kind not in FIRST_STAGE_KINDS and self.cache is not CacheName.FIRST_STAGE:
            return False
        return any(
            low < after and first < high
            for low, high in (canonical_range(start, end, width) for width in (48, 57))
        )


_WHOLE = (
    CacheName.FIRST_STAGE,
    CacheName.SECOND_STAGE,
    CacheName.DEVICE_TLB,
    CacheName.HOST_PERMISSION_TABLE,
)
"""Not kept in pieces."""


PERMISSION_SHIFTS = {1: 12, 2: 21, 3: 30}
"""log2 of the pages that host permission entries of a level are about."""
PERMISSION_LEVELS = {
    shift: level
    for shifts in (PERMISSION_SHIFTS, HOST_TABLE_SHIFTS)
    for level, shift in shifts.items()
}
"""The level of a host permission entry, by log2 of its pages or of what its table covers."""


class Space(dict[int, Copy]):
    """IOTLB copies of one kind of request, by page."""

    def __init__(self) -> None:
        self.domain_ids: set[int] = set()
        """All that it ever had copies of."""
        self.has_first_stage = False
        """Whether it ever had copies of first-stage tables."""


class Copies:
    """The copies of all caches of one unit and of the device-TLBs behind it."""

    def __init__(self, domain_id_width: int, address_width: int) -> None:
        self._domain_ids = (1 << domain_id_width) - 1
        self._addresses = (1 << address_width) - 1
        self.context: dict[int, Copy] = {}
        self.pasid: dict[tuple[int, int], Copy] = {}
        self.iotlb: defaultdict[RequestKind, Space] = defaultdict(Space)
        self.large: dict[tuple[RequestKind, int, int], Copy] = {}
        """The last piece of each large page, by log2 of its size and its number."""
        self.tables: dict[CacheName, dict[StructureKey, Copy]] = {
            CacheName.FIRST_STAGE: {},
            CacheName.SECOND_STAGE: {},
        }
        self.interrupts: dict[int, Copy] = {}
        self.devices: dict[int, dict[tuple[int | None, int], Copy]] = {}
        """By source-id; PASID and input page."""
        self.permissions: dict[tuple[int, int | None, int], Copy] = {}
        self.permission_tables: dict[HostTableKey, Copy] = {}

    def all(self) -> Iterator[Copy]:
        """Every copy."""
        heads: Iterable[Copy] = chain(
            self.context.values(),
            self.pasid.values(),
            *(space.values() for space in self.iotlb.values()),
            *(tables.values() for tables in self.tables.values()),
            self.interrupts.values(),
            *(grants.values() for grants in self.devices.values()),
            self.permissions.values(),
            self.permission_tables.values(),
        )
        for head in list(heads):
            yield from head.chain()

    def clear_remapping(self) -> None:
        """Hardware has invalidated all caches of DMA remapping (6.6)."""
        for copy in list(self.all()):
            if copy.cache not in (CacheName.INTERRUPT, CacheName.DEVICE_TLB):
                copy.drop()

    def clear_interrupts(self) -> None:
        """Hardware has invalidated the interrupt entry cache (6.7)."""
        for copy in list(self.interrupts.values()):
            copy.drop()

    def covered(self, descriptor: BitRecord) -> list[Copy]:
        """The copies that a descriptor removes in every implementation (6.5.2)."""
        match descriptor:
            case ContextCacheInvalidateDescriptor():
                found = self._context(descriptor)
            case PasidCacheInvalidateDescriptor():
                found = self._pasid(descriptor)
            case IotlbInvalidateDescriptor():
                found = self._iotlb(descriptor)
            case PasidIotlbInvalidateDescriptor():
                found = self._pasid_iotlb(descriptor)
            case InterruptEntryCacheInvalidateDescriptor():
                found = self._interrupts(descriptor)
            case HostPermissionInvalidateDescriptor():
                found = self._permissions(descriptor)
            case _:
                found = []
        return found

    def given(self, source_id: int, request: InvalidationRequest) -> list[Copy]:
        """What a device-TLB drops for an invalidation request (4.3)."""
        start, end = request.address, request.address + request.size
        return [
            copy
            for copy in self.devices.get(source_id, {}).values()
            if (copy.pasid is not None if request.global_ else copy.pasid == request.pasid)
            and copy.meets(start, end)
        ]

    def _context(self, descriptor: ContextCacheInvalidateDescriptor) -> list[Copy]:
        domains = None, descriptor.did & self._domain_ids
        copies = self.context.values()
        match descriptor.g:
            case ContextGranularity.GLOBAL:
                return list(copies)
            case ContextGranularity.DOMAIN:
                return [copy for copy in copies if copy.domain_id in domains]
        kept = 0xFFFF & ~FUNCTION_MASKS[descriptor.fm]
        wanted = descriptor.sid & kept
        return [
            copy
            for copy in copies
            if (copy.source_id or 0) & kept == wanted and copy.domain_id in domains
        ]

    def _pasid(self, descriptor: PasidCacheInvalidateDescriptor) -> list[Copy]:
        copies = self.pasid.values()
        if descriptor.g == PasidCacheGranularity.GLOBAL:
            return list(copies)
        domain_id = descriptor.did & self._domain_ids
        found = [copy for copy in copies if copy.domain_id == domain_id]
        if descriptor.g == PasidCacheGranularity.DOMAIN:
            return found
        return [copy for copy in found if copy.pasid == descriptor.pasid]

    def _interrupts(self, descriptor: InterruptEntryCacheInvalidateDescriptor) -> list[Copy]:
        if descriptor.g == InterruptGranularity.GLOBAL:
            return list(self.interrupts.values())
        count = 1 << descriptor.im
        first = descriptor.iidx & -count
        near = (self.interrupts.get(index) for index in range(first, first + count))
        return [copy for copy in near if copy is not None]

    def _iotlb(self, descriptor: IotlbInvalidateDescriptor) -> list[Copy]:
        domain_id = descriptor.did & self._domain_ids
        first, second = (self.tables[name] for name in self.tables)
        if descriptor.g == IotlbGranularity.GLOBAL:
            spaces = (space.values() for space in self.iotlb.values())
            return [*chain(*spaces), *first.values(), *second.values()]
        found = [copy for copy in first.values() if copy.domain_id == domain_id]
        if descriptor.g == IotlbGranularity.DOMAIN:
            found += [copy for copy in second.values() if copy.domain_id == domain_id]
            return found + self._pages(domain_id, None, None)
        start, end = _span(descriptor.addr & self._addresses, descriptor.am)
        found += self._pages(domain_id, None, (start, end))
        if not descriptor.ih:
            found += [
                copy
                for copy in second.values()
                if copy.domain_id == domain_id and copy.meets(start, end)
            ]
        return found

    def _pasid_iotlb(self, descriptor: PasidIotlbInvalidateDescriptor) -> list[Copy]:
        domain_id, pasid = descriptor.did & self._domain_ids, descriptor.pasid
        tables = [
            copy
            for copy in self.tables[CacheName.FIRST_STAGE].values()
            if copy.domain_id == domain_id and copy.pasid == pasid
        ]
        if descriptor.g == PasidIotlbGranularity.PASID:
            return tables + self._pages(domain_id, pasid, None)
        start, end = _span(descriptor.addr, descriptor.am)
        found = self._pages(domain_id, pasid, (start, end))
        if not descriptor.ih:
            found += [copy for copy in tables if copy.meets(start, end)]
        return found

    def _pages(self, domain_id: int, pasid: int | None, pages: Range | None) -> list[Copy]:
        """Copies of the IOTLB: what a range is of depends on the stage (Tables 23 and 24)."""
        found: list[Copy] = []
        for space in self.iotlb.values():
            if domain_id not in space.domain_ids:
                continue
            copies: Iterable[Copy] = space.values()
            by_page = pasid is not None or not space.has_first_stage
            if pages is not None and by_page and pages[1] - pages[0] >> 12 < len(space):
                copies = [copy for number in _numbers(*pages) if (copy := space.get(number))]
            for copy in copies:
                if copy.domain_id != domain_id or pasid not in (None, copy.pasid):
                    continue
                if pages is not None:
                    first_stage = copy.kind in FIRST_STAGE_KINDS
                    if pasid is not None and not first_stage:
                        continue
                    by_page = pasid is not None or not first_stage
                    if by_page and not copy.meets(*pages):
                        continue
                found.append(copy)
        return found

    def _permissions(self, descriptor: HostPermissionInvalidateDescriptor) -> list[Copy]:
        copies = [*self.permissions.values(), *self.permission_tables.values()]
        if descriptor.g == HostPermissionGranularity.GLOBAL:
            return copies
        domain_id, highest = descriptor.hptdid & self._domain_ids, descriptor.ih + 1
        found = [
            copy
            for copy in copies
            if copy.domain_id == domain_id and PERMISSION_LEVELS[copy.shift] <= highest
        ]
        if descriptor.g == HostPermissionGranularity.DOMAIN:
            return found
        start, end = _span(descriptor.addr, descriptor.am)
        return [copy for copy in found if copy.meets(start, end)]


def _numbers(start: int, end: int) -> set[int]:
    """Pages of a range; first-stage addresses are canonical."""
    ranges = {(start, end), *(canonical_range(start, end, width) for width in (48, 57))}
    return {number for low, high in ranges for number in range(low >> 12, high >> 12)}


def _span(address: int, mask: int) -> Range:
    """The naturally aligned ``2**mask`` pages that hold ``address`` (Table 22)."""
    size = 0x1000 << mask
    return address & -size, (address & -size) + size
