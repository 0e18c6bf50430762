"""What a unit does where the architecture leaves it a choice, and where it departs from it."""

from __future__ import annotations

from dataclasses import dataclass

from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.departures import SPECIFICATION, Departures


@dataclass(frozen=True)
class Options:
    """Choices the architecture leaves to a unit, and its departures by name."""

    caches: CachePolicy = KEEPS_STALE
    departures: Departures = SPECIFICATION
    largest_pass_through_page: bool = True
    """Pass-through translation requests are answered with the largest page that fits (4.2.3)."""
    itags: int = 32
    """Invalidation requests that may be on their way to device-TLBs at a time."""
