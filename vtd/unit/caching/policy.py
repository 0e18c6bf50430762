"""What a unit caches, of what the architecture lets it cache (VT-d 6.1, 6.2.4)."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Under CAP.CM = 1, keep what faulted too (6.1)."""
    trust_cached_rights: bool = False
    """A cached right that is missing denies the request; without this the tables are read again."""


KEEPS_STALE = CachePolicy()
"""Everything but paging structures is kept until an invalidation that covers it."""
AGGRESSIVE = CachePolicy(
    paging_structure=UNBOUNDED,
    host_permission=UNBOUNDED,
    cache_faults=True,
    trust_cached_rights=True,
)
"""All that 6.1 and 6.2.4 permit: a missing invalidation is caught instead of hidden."""
UNCACHED = CachePolicy(OFF, OFF, OFF, OFF, OFF)
POLICIES = {"default": KEEPS_STALE, "aggressive": AGGRESSIVE, "off": UNCACHED}
