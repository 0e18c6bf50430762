"""One request of a trace explained, on a unit with the caches of a design.

As in a sweep each pair of source and PASID has a domain of its own, in which all that it ever asks
for is mapped, to the same address modulo 64 TiB, with pages of one size; maps and unmaps of the
trace change nothing in tables, and unmaps invalidate as the design says. Nested domains have one
second stage below them, with pages of the same size. Left out: deferred invalidation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from devices.dma import READ, WRITE
from pagetables.build import FrameAllocator, FramePool
from pagetables.memory import PhysicalMemory
from vtd.batch.columns import NO_PASID, ONLY_LEAVES, Requests, RowKind
from vtd.batch.explanation import RowExplanation, explain_row, touched_pages
from vtd.layouts.entries import PasidTranslationType as Kind
from vtd.software.domain import Domain
from vtd.software.driver import Driver
from vtd.software.guidance import RID_PASID
from vtd.sweeps.designs import PAGE_SIZES, TABLES, Design, Invalidating
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

END = 1 << 46
"""Addresses that requests lead to are below; tables are above."""
TABLES_END, GUEST_TABLES_END = END + (1 << 40), END + (2 << 40)
WIDTHS = {"3-level": 39, "4-level": 48, "5-level": 57, "nested": 47}
"""Bits of addresses; of nested ones those of the lower canonical half."""
ALL_DEPTHS = 0b1110
"""CAP_REG.SAGAW of a unit with second stages of 3, 4 and 5 levels (11.4.2)."""


class MappedFrames:
    """Frames for tables of guests, each mapped in the second stage when it is given out."""

    def __init__(self, second: Domain) -> None:
        self._second = second
        self._pool = FramePool(TABLES_END, GUEST_TABLES_END)

    def allocate(self) -> int:
        """A frame nobody else has."""
        frame = self._pool.allocate()
        self._second.map(frame << 12, frame << 12, 1 << 12, READ | WRITE)
        return frame

    def free(self, frame: int) -> None:
        """Take a frame back."""
        self._pool.free(frame)


class DesignUnit:
    """A unit with the caches of a design, and the tables that requests of a trace need.

    ValueError for a design that invalidates by time.
    """

    def __init__(self, design: Design) -> None:
        if design.invalidation is Invalidating.DEFERRED:
            raise ValueError("invalidation: deferred is none that a row can be explained with")
        self._design = design
        self._shift = PAGE_SIZES[design.page_size]
        memory = PhysicalMemory()
        memory.add_region(0, GUEST_TABLES_END)
        known = PROFILES["xeon"]
        known = replace(known, cap=known.cap.replace(sagaw=ALL_DEPTHS))
        policy = replace(KEEPS_STALE, iotlb=design.iotlb, paging_structure=design.structures)
        self.unit = RemappingUnit(known, memory, Options(caches=policy))
        self._driver = Driver(self.unit, memory, FramePool(END, TABLES_END), scalable=True)
        self._driver.start()
        self._domains: dict[tuple[int, int], Domain] = {}
        self._second: Domain | None = None
        self._below: set[int] = set()
        """Addresses of pages that the second stage below nested domains maps."""
        self._guest_frames: FrameAllocator | None = None
        if design.tables == "nested":
            self._second = self._domain(Kind.SECOND_STAGE)
            self._guest_frames = MappedFrames(self._second)

    def _domain(self, kind: Kind) -> Domain:
        nested = kind is Kind.NESTED
        return self._driver.domain(
            kind,
            levels=TABLES[self._design.tables],
            largest=self._shift,
            second=self._second if nested else None,
            guest_frames=self._guest_frames if nested else None,
        )

    def domain_of(self, source_id: int, pasid: int) -> Domain:
        """The domain of a requester, made when it is first asked for."""
        domain = self._domains.get((source_id, pasid))
        if domain is None:
            domain = self._domain(Kind.SECOND_STAGE if self._second is None else Kind.NESTED)
            self._driver.attach(source_id, domain, None if pasid == NO_PASID else pasid)
            self._domains[source_id, pasid] = domain
        return domain

    def map(self, rows: Requests) -> None:
        """Map all pages that requests touch, as far as the tables have such addresses."""
        touched = touched_pages(rows[rows["kind"] == RowKind.DMA], self._shift)
        size = 1 << self._shift
        breaks = touched["address"][1:] != touched["address"][:-1] + np.uint64(size)
        for name in ("source_id", "pasid"):
            breaks |= touched[name][1:] != touched[name][:-1]
        for pages in np.split(touched, np.flatnonzero(breaks) + 1):
            for start, end in self._ranges(pages["address"]):
                source_id, pasid = int(pages["source_id"][0]), int(pages["pasid"][0])
                domain = self.domain_of(source_id, pasid)
                domain.map(start, start % END, end - start, READ | WRITE)
                if self._second is not None:
                    self._map_below(range(start % END, start % END + end - start, size))

    def _ranges(self, addresses: Any) -> Iterator[tuple[int, int]]:
        """Where neighbouring pages begin and end, cut where END is a factor of an address."""
        if not len(addresses):
            return
        start, end = int(addresses[0]), int(addresses[-1]) + (1 << self._shift)
        end = min(end, 1 << WIDTHS[self._design.tables])
        while start < end:
            cut = min(end, start - start % END + END)
            yield start, cut
            start = cut

    def _map_below(self, places: range) -> None:
        assert self._second is not None
        for place in places:
            if place not in self._below:
                self._below.add(place)
                self._second.map(place, place, 1 << self._shift, READ | WRITE)

    def act(self, row: Any) -> None:
        """Carry out a row that is no request: invalidate, if the design does so."""
        mode, kind = self._design.invalidation, row["kind"]
        if mode is Invalidating.TRACE:
            if kind != RowKind.INVALIDATE:
                return
            only_leaves = bool(row["attributes"] & ONLY_LEAVES)
        elif mode in (Invalidating.STRICT, Invalidating.STRICT_LEAVES) and kind == RowKind.UNMAP:
            only_leaves = mode is Invalidating.STRICT_LEAVES
        else:
            return
        source_id, pasid = int(row["source_id"]) & 0xFFFF, int(row["pasid"])
        domain_id, caches = self.domain_of(source_id, pasid).domain_id, self.unit.caches
        start, length = int(row["address"]), int(row["length"])
        if kind == RowKind.INVALIDATE and not length:
            caches.invalidate_iotlb_domain(domain_id)
            return
        end = start + max(length, 1)
        if self._second is None:
            caches.invalidate_iotlb_pages(domain_id, start, end, hint=only_leaves)
        else:
            pasid = RID_PASID if pasid == NO_PASID else pasid
            caches.invalidate_pasid_iotlb_pages(domain_id, pasid, start, end, hint=only_leaves)


def explain_trace(design: Design, rows: Requests, number: int) -> RowExplanation:
    """Explain one of these rows, which are all of the trace until there.

    ValueError for a row that is no request or that there is not, and for what no single unit can
    have: sources of several segments, or more PASIDs and tables than there is room for.
    """
    segments = rows["source_id"] >> 16
    if len(rows) and np.any(segments != segments[0]):
        row = int(np.argmax(segments != segments[0]))
        raise ValueError(f"row {row}, column source_id: another segment, so another unit")
    unit = DesignUnit(design)
    unit.map(rows[: number + 1])
    return explain_row(unit.unit, rows[: number + 1], number, unit.act)
