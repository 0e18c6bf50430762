"""What is in a trace: rows of each kind, requesters, addresses, time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vtd.batch.columns import NO_PASID, Requests, RowKind
from vtd.traces.rows import source_text, wrong

MOST_PAGES = 1 << 22
"""Pages that are counted; a trace that touches more is said to."""


@dataclass
class Summary:
    """Counts of one trace."""

    rows: int = 0
    kinds: dict[str, int] = field(
        default_factory=lambda: {kind.name.lower(): 0 for kind in RowKind}
    )
    written: int = 0
    """Requests that write."""
    bytes: int = 0
    """Of all requests."""
    duration: int = 0
    """Nanoseconds."""
    lowest: int = 0
    highest: int = 0
    """First and last address of a request."""
    sources: set[int] = field(default_factory=set)
    pasids: int = 0
    """Pairs of source and PASID, of requests that have one."""
    pages: int | None = 0
    """4 KiB pages that requests begin in, of all requesters together; None for too many."""

    @property
    def gigabits(self) -> float:
        """Bits of all requests by the time between the first row and the last, per ns."""
        return self.bytes * 8 / self.duration if self.duration else 0.0


def summarize(arrays: Iterable[Requests], known: frozenset[int] | None = None) -> Summary:
    """Count; TraceError for a source that is not among the ``known`` ones."""
    found = Summary()
    owners: NDArray[np.uint64] = np.empty(0, np.uint64)
    pages: NDArray[np.uint64] | None = np.empty(0, np.uint64)
    first_time: int | None = None
    for rows in arrays:
        if not len(rows):
            continue
        sources = rows["source_id"]
        new = set(np.unique(sources).tolist()) - found.sources
        if known is not None:
            _known_sources(sources, new, known, found.rows)
        found.sources |= new
        first_time = int(rows["time"][0]) if first_time is None else first_time
        found.duration = int(rows["time"][-1]) - first_time
        for kind, count in zip(*np.unique(rows["kind"], return_counts=True), strict=True):
            found.kinds[RowKind(int(kind)).name.lower()] += int(count)
        requests = rows[rows["kind"] == RowKind.DMA]
        if len(requests):
            address = requests["address"]
            earlier = found.kinds["dma"] > len(requests)
            low, high = int(address.min()), int(address.max())
            found.lowest = min(found.lowest, low) if earlier else low
            found.highest = max(found.highest, high)
            found.bytes += int(requests["length"].sum(dtype=np.uint64))
            found.written += int(np.count_nonzero(requests["access"] & 2))
            tagged = requests[requests["pasid"] != NO_PASID]
            owner = tagged["source_id"].astype(np.uint64) << np.uint64(20) | tagged["pasid"]
            owners = np.union1d(owners, owner)
            if pages is not None:
                pages = np.union1d(pages, address >> np.uint64(12))
                pages = pages if len(pages) <= MOST_PAGES else None
        found.rows += len(rows)
    found.pasids = len(owners)
    found.pages = None if pages is None else len(pages)
    return found


def _known_sources(
    sources: NDArray[np.uint32], new: set[int], known: frozenset[int], first: int
) -> None:
    unknown = np.array(sorted(new - known), np.uint32)
    if len(unknown):
        at = int(np.argmax(np.isin(sources, unknown)))
        raise wrong(
            first + at,
            "source_id",
            f"{source_text(int(sources[at]))} is no function of the machine",
        )
