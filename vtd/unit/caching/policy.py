"""What a unit caches, of what the architecture lets it cache (VT-d 6.1, 6.2.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vtd.unit.caching.cache import OFF, UNBOUNDED, Shape


@dataclass(frozen=True)
class CachePolicy:
    """What a unit caches, of what the architecture lets it cache."""

    context: Shape = UNBOUNDED
    pasid: Shape = UNBOUNDED
    iotlb: Shape = UNBOUNDED
    paging_structure: Shape = OFF
    interrupt: Shape = UNBOUNDED
    host_permission: Shape = OFF
    """Of the two caches of host permission tables (6.2.6)."""
    cache_faults: bool = False
    """Under CAP.CM = 1, keep what faulted too, in every cache (6.1, 6.2.2 to 6.2.5.5, 6.4)."""
    trust_cached_rights: bool = False
    """A cached right that is missing denies the request; without this the tables are read again.
    A right that is there but for a dirty flag is not missing."""
    fractured: bool = False
    """Large pages are kept as the 4 KiB pages that are used (6.2.4.1)."""
    prefetched_pages: int = 0
    """How many pages behind one that was looked up are looked up too."""
    refills: bool = False
    """Between two descriptors of the invalidation queue, what the first removed is looked up again,
    as for requests that are on their way (6.2.2.1, 6.2.3.1)."""
    old_pointers: bool = False
    """Where hardware does not invalidate with SRTP and SIRTP, a running unit uses the old tables
    until the global invalidation (6.6, 6.7)."""
    late: bool = False
    """Queued invalidations are carried out when a descriptor needs them to be (6.5.2.12)."""


KEEPS_STALE = CachePolicy()
"""Everything but paging structures is kept until an invalidation that covers it."""
AGGRESSIVE = CachePolicy(
    paging_structure=UNBOUNDED,
    host_permission=UNBOUNDED,
    cache_faults=True,
    trust_cached_rights=True,
    fractured=True,
    prefetched_pages=1,
    refills=True,
    old_pointers=True,
)
"""All that chapter 6 permits: a missing invalidation is caught instead of hidden."""
LATE = replace(AGGRESSIVE, late=True)
"""The same, with invalidations that take effect no sooner than a wait descriptor completes."""
UNCACHED = CachePolicy(OFF, OFF, OFF, OFF, OFF)
POLICIES = {"default": KEEPS_STALE, "aggressive": AGGRESSIVE, "late": LATE, "off": UNCACHED}
