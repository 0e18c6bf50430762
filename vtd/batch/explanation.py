"""One row of an array explained: what the caches had for it, why they had not, and its walk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagetables.geometry import PAGE_SHIFT
from vtd.batch.columns import Requests, RowKind
from vtd.batch.engine import Software, run
from vtd.batch.outcomes import Status
from vtd.batch.single import request_of
from vtd.inspection.request_explanation import RequestExplanation, cached, explain_request
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.unit import RemappingUnit


class RowExplanation(NamedTuple):
    """What a request met, of its first page."""

    status: Status
    reads: int
    entry: IotlbEntry | None
    """What the IOTLB had for it."""
    last_use: int | None
    """The row before that asked for the same page in the same way, if there is one."""
    pages_since: int
    """How many other pages were asked for since then, or since the first row."""
    others: int
    """How many rows since then were about something else, as invalidations are."""
    request: RequestExplanation
    """Its way through the structures and tables, as ``vtd walk`` tells it."""

    @property
    def cause(self) -> str:
        """Why the IOTLB had what it had, in a line."""
        if self.entry is not None:
            return f"hit: a page of {1 << self.entry.shift:#x} bytes from {self.entry.address:#x}"
        if self.last_use is None:
            return "miss: the first use of this page"
        gone = f"row {self.last_use} used this page, and {self.pages_since} others since then"
        if self.others:
            gone += f"; {self.others} rows of software came between"
        return f"miss: {gone}"


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
    before = rows[:number]
    alike = (before["kind"] == RowKind.DMA) & (before["address"] >> PAGE_SHIFT == _page(row))
    for column in ("source_id", "pasid"):
        alike &= before[column] == row[column]
    uses = np.flatnonzero(alike)
    since = before[uses[-1] + 1 if len(uses) else 0 :]
    requests = since["kind"] == RowKind.DMA
    pages = np.unique(since[requests]["address"] >> PAGE_SHIFT)
    return RowExplanation(
        Status(int(outcome["status"])),
        int(outcome["reads"]),
        entry,
        int(uses[-1]) if len(uses) else None,
        len(pages),
        int((~requests & (since["kind"] != RowKind.MARKER)).sum()),
        explanation,
    )


def _page(row: np.void) -> int:
    return int(row["address"]) >> PAGE_SHIFT
