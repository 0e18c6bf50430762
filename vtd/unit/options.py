"""What a unit does where the architecture leaves it a choice."""

from __future__ import annotations

from dataclasses import dataclass

from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy


@dataclass(frozen=True)
class Options:
    """Choices the architecture leaves to a unit, and the deviations of recorded ones."""

    caches: CachePolicy = KEEPS_STALE
    compress_faults: bool = False
    """Drop the fault of a requester that has a fault pending (7.2.1, step 3)."""
    largest_pass_through_page: bool = True
    """Pass-through translation requests are answered with the largest page that fits (4.2.3)."""
    itags: int = 32
    """Invalidation requests that may be on their way to device-TLBs at a time."""
    as_recorded: bool = False
    """Follow QEMU 11.1.2 where it departs from the specification; docs/known-differences.md
    lists each departure with its section."""
