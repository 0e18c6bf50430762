"""One row of an array explained: what the caches had for it, why they had not, and its walk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagetables.geometry import PAGE_SHIFT
from vtd.batch.columns import Requests, RowKind, new_rows
from vtd.batch.engine import Software, run
from vtd.batch.outcomes import Status
from vtd.batch.single import request_of
from vtd.inspection.request_explanation import RequestExplanation, cached, explain_request
from vtd.unit.caching.cache import Replacement, Shape
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.unit import RemappingUnit

Pages = NDArray[np.uint64]


class RowExplanation(NamedTuple):
    """What a request met, of its first page."""

    status: Status
    reads: int
    entry: IotlbEntry | None
    """What the IOTLB had for it."""
    last_use: int | None
    """The row before that asked for the same page in the same way, if there is one."""
    pages_since: int
    """How many other pages of anybody were asked for since then, or since the first row."""
    in_set: int
    """How many of these have their place in the same set of the IOTLB."""
    others: int
    """How many rows since then were about something else, as invalidations are."""
    shape: Shape
    """Of the IOTLB."""
    request: RequestExplanation
    """Its way through the structures and tables, as ``vtd walk`` tells it."""

    @property
    def cause(self) -> str:
        """Why the IOTLB had what it had, in a line."""
        if self.entry is not None:
            return f"hit: a page of {1 << self.entry.shift:#x} bytes from {self.entry.address:#x}"
        if self.shape.ways == 0:
            return "miss: there is no IOTLB"
        if self.last_use is None:
            return "miss: the first use of this page"
        used = f"row {self.last_use} used this page"
        if self.invalidated:
            return f"miss: {used}, and an invalidation since then removed it"
        pages = "1 other page" if self.pages_since == 1 else f"{self.pages_since} other pages"
        ways = "" if self.shape.sets == 1 else f", {self.in_set} of them in its set"
        between = f"; {self.others} rows of software came between" if self.others else ""
        size = "1 way" if self.shape.ways == 1 else f"{self.shape.ways} ways"
        return f"miss: {used}, then {pages}{ways} of {size}{between}"

    @property
    def invalidated(self) -> bool:
        """Whether only an invalidation can have removed what was there at the last use.

        An LRU cache evicts nothing before as many others as it has ways came to its set.
        """
        if self.entry is not None or self.last_use is None or self.shape.ways == 0:
            return False
        unbounded = self.shape.ways is None or self.in_set < self.shape.ways
        return unbounded and self.shape.replacement is Replacement.LRU


def explain_row(
    unit: RemappingUnit, rows: Requests, number: int, software: Software | None = None
) -> RowExplanation:
    """Carry out the rows up to and with one, and explain that one.

    ValueError if it is no request, or there is none of this number, and as of
    :func:`vtd.batch.engine.run`.
    """
    if not 0 <= number < len(rows):
        raise ValueError(f"row {number}: there are {len(rows)}")
    row = rows[number]
    if row["kind"] != RowKind.DMA:
        raise ValueError(f"row {number}, kind: it is no request")
    run(unit, rows[:number], software)
    request = request_of(row)
    entry = cached(unit.caches.iotlb, request)
    explanation = explain_request(unit.remapping, request)
    (outcome,) = run(unit, rows[number : number + 1], software)
    reached = explanation.outcome
    shift = PAGE_SHIFT if reached is None else reached.length.bit_length() - 1
    page, before, shape = request.address >> shift, rows[:number], unit.caches.iotlb.shape
    first, last = _pages(before, shift)
    alike = (before["kind"] == RowKind.DMA) & (first <= page) & (page <= last)
    for column in ("source_id", "pasid"):
        alike &= before[column] == row[column]
    uses = np.flatnonzero(alike)
    since = before[uses[-1] + 1 if len(uses) else 0 :]
    requests = since["kind"] == RowKind.DMA
    pages = touched_pages(since[requests], shift)["address"] >> np.uint64(shift)
    return RowExplanation(
        Status(int(outcome["status"])),
        int(outcome["reads"]),
        entry,
        int(uses[-1]) if len(uses) else None,
        len(pages),
        int(np.count_nonzero(_set_of(shape, pages) == shape.set_of(page))),
        int((~requests & (since["kind"] != RowKind.MARKER)).sum()),
        shape,
        explanation,
    )


def _pages(rows: Requests, shift: int) -> tuple[Pages, Pages]:
    """Numbers of the first and the last page of each row."""
    ends = rows["address"] + np.maximum(rows["length"], 1) - np.uint64(1)
    return rows["address"] >> np.uint64(shift), ends >> np.uint64(shift)


def touched_pages(rows: Requests, shift: int) -> Requests:
    """Source, PASID and address of each page that requests touch, once, in this order.

    Pages have 2^``shift`` bytes.
    """
    first, last = _pages(rows, shift)
    counts = (last - first).astype(np.int64) + 1
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pages = np.repeat(first, counts) + within.astype(np.uint64)
    sources, pasids = (np.repeat(rows[name], counts) for name in ("source_id", "pasid"))
    order = np.lexsort((pages, pasids, sources))
    columns = sources[order], pasids[order], pages[order]
    fresh = np.zeros(len(order), bool)
    fresh[:1] = True
    for each in columns:
        fresh[1:] |= each[1:] != each[:-1]
    sources, pasids, pages = (each[fresh] for each in columns)
    return new_rows(len(pages), source_id=sources, pasid=pasids, address=pages << np.uint64(shift))


def _set_of(shape: Shape, pages: Pages) -> Pages:
    return (pages >> np.uint64(shape.index)) % np.uint64(shape.sets)
