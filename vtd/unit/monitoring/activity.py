"""What a unit does that performance counters count: events and what filters look at (Table 49).

A clock of this unit ticks once for each request and each register access that it deals with. A
memory read is one entry of a table, or one descriptor. Left out: occupancy and back-pressure, which
a model without time can't count truthfully.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from devices.dma import MESSAGE, AddressType, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.observer import Structure
from vtd.layouts import registers as r
from vtd.unit.caching.caches import TranslationCaches
from vtd.unit.interrupts.interrupt_remapping import InterruptRemapping
from vtd.unit.observer import CacheName, Observer
from vtd.unit.queues.page_requests import PageRequests
from vtd.unit.state import Stateful


class PerformanceEvent(Enum):
    """Events that are counted: event group and bit (Table 49)."""

    IOMMU_CLOCKS = 0, 0
    IOMMU_REQUESTS = 0, 1
    IOMMU_MRDS = 1, 0
    IOMMU_ATOMIC_AD_UPDATE = 1, 3
    PG_REQ_POSTED = 1, 6
    PG_REQ_OVERFLOW = 1, 7
    CTXT_CACHE_LOOKUP = 2, 0
    CTXT_CACHE_HIT = 2, 1
    PASID_CACHE_LOOKUP = 2, 2
    PASID_CACHE_HIT = 2, 3
    SS_NONLEAF_LOOKUP = 2, 4
    SS_NONLEAF_HIT = 2, 5
    FS_NONLEAF_LOOKUP = 2, 6
    FS_NONLEAF_HIT = 2, 7
    HPT_NONLEAF_LOOKUP = 2, 8
    HPT_NONLEAF_HIT = 2, 9
    IOTLB_LOOKUP = 3, 0
    IOTLB_HIT = 3, 1
    HPT_LEAF_LOOKUP = 3, 2
    HPT_LEAF_HIT = 3, 3
    INT_CACHE_LOOKUP = 4, 0
    INT_CACHE_HIT_NONPOSTED = 4, 1
    INT_CACHE_HIT_POSTED = 4, 2


EVENTS = {event.value: event for event in PerformanceEvent}
EVENT_BITS = 28
"""Events of a group."""

FILTERS: tuple[type[r.Register], ...] = (
    r.PerformanceMonitoringRequesterIdFilter,
    r.PerformanceMonitoringDomainIdFilter,
    r.PerformanceMonitoringPasidFilter,
    r.PerformanceMonitoringAddressTypeFilter,
    r.PerformanceMonitoringPageTableLevelFilter,
)
LOOKUPS = {
    CacheName.CONTEXT: (PerformanceEvent.CTXT_CACHE_LOOKUP, PerformanceEvent.CTXT_CACHE_HIT),
    CacheName.PASID: (PerformanceEvent.PASID_CACHE_LOOKUP, PerformanceEvent.PASID_CACHE_HIT),
    CacheName.SECOND_STAGE: (PerformanceEvent.SS_NONLEAF_LOOKUP, PerformanceEvent.SS_NONLEAF_HIT),
    CacheName.FIRST_STAGE: (PerformanceEvent.FS_NONLEAF_LOOKUP, PerformanceEvent.FS_NONLEAF_HIT),
    CacheName.IOTLB: (PerformanceEvent.IOTLB_LOOKUP, PerformanceEvent.IOTLB_HIT),
    CacheName.HOST_PERMISSION: (PerformanceEvent.HPT_LEAF_LOOKUP, PerformanceEvent.HPT_LEAF_HIT),
    CacheName.HOST_PERMISSION_TABLE: (
        PerformanceEvent.HPT_NONLEAF_LOOKUP,
        PerformanceEvent.HPT_NONLEAF_HIT,
    ),
}
"""The events of a cache that is asked for a request: each lookup, and those that hit."""
LEVELS = {12: 0, 21: 1, 30: 2, 39: 3, 48: 4}
"""Bits of PTL, by log2 of the page size or of what an entry covers (11.4.13.20)."""


class Occurrence(NamedTuple):
    """One event with what filters look at; None where it has nothing of the kind."""

    event: PerformanceEvent
    requester: int
    pasid: int | None
    address_type: AddressType
    domain: int | None = None
    level: int | None = None


AT, PTL = r.PerformanceMonitoringAddressTypeFilter, r.PerformanceMonitoringPageTableLevelFilter
BY_REQUEST = (r.PerformanceMonitoringRequesterIdFilter, r.PerformanceMonitoringPasidFilter)
BY_ENTRY = (*BY_REQUEST, r.PerformanceMonitoringDomainIdFilter)
APPLICABLE_FILTERS: Mapping[PerformanceEvent, tuple[type[r.Register], ...]] = {
    **{lookup: BY_REQUEST for lookup, _ in LOOKUPS.values()},
    PerformanceEvent.CTXT_CACHE_HIT: BY_REQUEST,
    PerformanceEvent.PASID_CACHE_HIT: BY_ENTRY,
    PerformanceEvent.IOMMU_REQUESTS: (*BY_REQUEST, AT),
    PerformanceEvent.SS_NONLEAF_HIT: (*BY_ENTRY, PTL),
    PerformanceEvent.FS_NONLEAF_HIT: (*BY_ENTRY, PTL),
    PerformanceEvent.IOTLB_HIT: (*BY_ENTRY, PTL),
    PerformanceEvent.HPT_NONLEAF_LOOKUP: (*BY_REQUEST, AT),
    PerformanceEvent.HPT_NONLEAF_HIT: (*BY_ENTRY, AT, PTL),
    PerformanceEvent.HPT_LEAF_HIT: (*BY_ENTRY, PTL),
}
"""Filters that an event can be counted with; none for all others."""


@dataclass
class Activity(Observer, Stateful):
    """What nothing else keeps a total of: observes the unit while a counter is enabled.

    ``on_settled`` brings the counters up to date.
    """

    STATE = "occurrences", "clocks", "requests", "memory_reads", "flag_updates"

    occurrences: Counter[Occurrence] = field(default_factory=Counter)
    """Requests, lookups and hits, for filters."""
    clocks: int = 0
    requests: int = 0
    memory_reads: int = 0
    flag_updates: int = 0
    on_settled: Callable[[], None] = lambda: None
    _request: tuple[int, int | None, AddressType] = (0, None, AddressType.UNTRANSLATED)
    """Requester, PASID and address type of what the unit is dealing with."""

    def begin(self, request: Request) -> None:
        """One request of its kind; messages and interrupts are none (Table 49)."""
        interrupt = request.pasid is None and request.address in INTERRUPT_RANGE
        self._request = request.source_id, request.pasid, request.address_type
        if request.access != MESSAGE and not (interrupt and not request.address_type):
            self.requests += 1
            self.occurrences[Occurrence(PerformanceEvent.IOMMU_REQUESTS, *self._request)] += 1

    def asked(self, cache: CacheName, key: Any, entry: Any) -> None:
        """One lookup, and a hit if there was an entry."""
        events = LOOKUPS.get(cache)
        if events is None:
            return
        lookup, hit = events
        self.occurrences[Occurrence(lookup, *self._request)] += 1
        if entry is not None:
            seen = Occurrence(hit, *self._request, *_domain_and_level(cache, key, entry))
            self.occurrences[seen] += 1

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """One read of memory."""
        self.memory_reads += 1

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """One atomic access, which counts if it is for a flag."""
        self.flag_updates += structure is not Structure.POSTED_DESCRIPTOR

    def settled(self) -> None:
        """Count what has happened."""
        self.clocks += 1
        self.on_settled()


def _domain_and_level(cache: CacheName, key: Any, entry: Any) -> tuple[int | None, int | None]:
    """Domain-id of a cached entry, and the bit of PTL for its level or page size."""
    match cache:
        case CacheName.IOTLB:
            return entry.tags.domain_id, LEVELS[entry.shift]
        case CacheName.FIRST_STAGE | CacheName.SECOND_STAGE:
            return key[0], LEVELS[key[2]]
        case CacheName.HOST_PERMISSION:
            return entry.domain_id, entry.level - 1
        case CacheName.HOST_PERMISSION_TABLE:
            return key[0], key[1] - 1
    return entry.domain_id, None


Totals = Mapping[PerformanceEvent, Callable[[], int]]
"""How often each event has happened so far."""


def event_totals(
    activity: Activity,
    caches: TranslationCaches,
    interrupts: InterruptRemapping,
    pages: PageRequests,
) -> Totals:
    """The totals of a unit, most of which its parts keep anyway."""
    event = PerformanceEvent
    return {
        event.IOMMU_CLOCKS: lambda: activity.clocks,
        event.IOMMU_REQUESTS: lambda: activity.requests,
        event.IOMMU_MRDS: lambda: activity.memory_reads,
        event.IOMMU_ATOMIC_AD_UPDATE: lambda: activity.flag_updates,
        event.PG_REQ_POSTED: lambda: pages.posted,
        event.PG_REQ_OVERFLOW: lambda: pages.overflow_responses,
        event.CTXT_CACHE_LOOKUP: lambda: caches.context.counters.lookups,
        event.CTXT_CACHE_HIT: lambda: caches.context.counters.hits,
        event.PASID_CACHE_LOOKUP: lambda: caches.pasid.counters.lookups,
        event.PASID_CACHE_HIT: lambda: caches.pasid.counters.hits,
        event.SS_NONLEAF_LOOKUP: lambda: caches.second_stage.counters.lookups,
        event.SS_NONLEAF_HIT: lambda: caches.second_stage.counters.hits,
        event.FS_NONLEAF_LOOKUP: lambda: caches.first_stage.counters.lookups,
        event.FS_NONLEAF_HIT: lambda: caches.first_stage.counters.hits,
        event.HPT_NONLEAF_LOOKUP: lambda: caches.host_tables.counters.lookups,
        event.HPT_NONLEAF_HIT: lambda: caches.host_tables.counters.hits,
        event.HPT_LEAF_LOOKUP: lambda: caches.host_permissions.counters.lookups,
        event.HPT_LEAF_HIT: lambda: caches.host_permissions.counters.hits,
        event.IOTLB_LOOKUP: lambda: caches.iotlb.counters.lookups,
        event.IOTLB_HIT: lambda: caches.iotlb.counters.hits,
        event.INT_CACHE_LOOKUP: lambda: interrupts.cache.counters.lookups,
        event.INT_CACHE_HIT_NONPOSTED: lambda: (
            interrupts.cache.counters.hits - interrupts.posted_hits
        ),
        event.INT_CACHE_HIT_POSTED: lambda: interrupts.posted_hits,
    }
