"""Ranges that software unmapped and then invalidated aligned down, so that their ends stay cached.

For logs that do not tell when software changed memory that no unit read. An invalidation of 2^AM
pages covers a naturally aligned block. Of a range that is no such block, every page has to be
covered (VT-d 6.5.2.3, 6.5.2.4); software that takes the number of pages as AM and clears the low
bits of the first address leaves the end cached. This is inferred, not read from memory, where

* cached pages in a row begin in the upper half of the block and go on behind it, together not more
  pages than the block has and more than half of that: a smaller AM would have done for what the
  block holds of them, this one fits their number;
* a request for one of those in the block has then met a fault: it has been unmapped.

A use of one behind the block before it is dropped is a stale use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from devices.dma import Request
from pagetables.bits import BitRecord
from pagetables.geometry import PAGE_SHIFT
from pagetables.observer import Structure
from vtd.auditing.debt import Debt, Kind, Owner, Word, owed_for
from vtd.layouts.descriptors import (
    IotlbInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.registers import IotlbGranularity
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import CacheName, Observer
from vtd.unit.requests.faults import FaultReason
from vtd.unit.requests.request import RequestKind, kind_of
from vtd.unit.unit import RemappingUnit

MOST_PAGES = 1 << 18
"""Pages of an invalidation that is looked at: 1 GiB, a larger one is no unmapped range."""


class _Page(NamedTuple):
    """A page of 4 KiB in the IOTLB, and the last-level entry that it came from."""

    entry: IotlbEntry
    leaf: Word


@dataclass
class _Tail:
    """Pages behind a block, cached, that may belong to the range before them."""

    covered: range
    """Page numbers of the range inside the block."""
    pages: set[int]
    block: range
    unmapped: int | None = None
    """A page of those that met a fault."""

    def why(self) -> str:
        """What the finding is inferred from."""
        start, base = self.covered.start << PAGE_SHIFT, self.block.start << PAGE_SHIFT
        fault = (self.unmapped or 0) << PAGE_SHIFT
        return (
            f"of pages in a row from {start:#x} on {fault:#x} has been unmapped, and "
            f"{len(self.block)} pages from {base:#x} on were invalidated"
        )


class AlignedDown(Observer):
    """Watches ``unit`` from now on; ``on_stale`` is told of each page the first time it is used."""

    def __init__(self, unit: RemappingUnit, on_stale: Callable[[Debt], None]) -> None:
        self._unit = unit
        self._on_stale = on_stale
        self._leaf: Word | None = None
        self._cached: dict[RequestKind, dict[int, _Page]] = {}
        self._tails: dict[RequestKind, list[_Tail]] = {}
        unit.observe(self)

    def begin(self, request: Request) -> None:
        """Nothing has been read for this one."""
        self._leaf = None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """The last entry that is read is that of the page."""
        if structure in (Structure.FIRST_STAGE, Structure.SECOND_STAGE):
            self._leaf = Word(structure, address, size, value, -1)

    def kept(self, cache: CacheName, key: Any, entry: Any) -> None:
        """A page that is loaded is what the tables say now."""
        if cache is not CacheName.IOTLB or entry.shift != PAGE_SHIFT or self._leaf is None:
            return
        kind, number = key[0], entry.address >> PAGE_SHIFT
        self._cached.setdefault(kind, {})[number] = _Page(entry, self._leaf)
        for tail in self._tails.get(kind, ()):
            tail.pages.discard(number)

    def fault(self, request: Request, reason: FaultReason) -> None:
        """A page that is refused has been unmapped."""
        number = request.address >> PAGE_SHIFT
        for tail in self._tails.get(kind_of(request), ()):
            if number in tail.covered:
                tail.unmapped = number

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        """A cached page is used."""
        if cache is not CacheName.IOTLB or entry is None:
            return
        kind, number = key[0], key[1] >> PAGE_SHIFT
        for tail in self._tails.get(kind, ()):
            if tail.unmapped is not None and number in tail.pages:
                tail.pages.discard(number)
                self._report(kind, self._cached[kind][number], tail)

    def _report(self, kind: RequestKind, page: _Page, tail: _Tail) -> None:
        tags = page.entry.tags
        first = page.leaf.structure is Structure.FIRST_STAGE
        owner = Owner(
            kind[0], tags.domain_id, tags.pasid if first else None, page.entry.address, tags.kind
        )
        rule, missing = owed_for(CacheName.IOTLB, owner, page.leaf, None)
        self._on_stale(
            Debt(
                Kind.MISSING,
                CacheName.IOTLB,
                owner,
                page.leaf,
                None,
                None,
                missing,
                rule.section,
                rule,
                inferred=tail.why(),
            )
        )

    def invalidated(self, command: BitRecord) -> None:
        """Forget what has gone; look at what lies behind a block."""
        block = _block(command)
        for kind, pages in self._cached.items():
            space = self._unit.caches.iotlb.space(kind)
            near = pages if block is None or len(pages) < len(block) else block
            gone = {number for number in near if number in pages and number not in space.small}
            if block is not None and gone:
                self._look_behind(kind, block, gone)
            for number in gone:
                del pages[number]
            tails = self._tails.get(kind, [])
            for tail in tails:
                tail.pages -= gone
            self._tails[kind] = [tail for tail in tails if tail.pages]

    def _look_behind(self, kind: RequestKind, block: range, gone: set[int]) -> None:
        pages, first = self._cached[kind], block.stop
        while first - 1 in gone:
            first -= 1
        last = block.stop
        while last in pages and last not in gone:
            last += 1
        half = len(block) // 2
        begins_late = block.start + half <= first < block.stop
        if begins_late and last > block.stop and half < last - first <= len(block):
            tail = _Tail(range(first, block.stop), set(range(block.stop, last)), block)
            self._tails.setdefault(kind, []).append(tail)


def _block(command: BitRecord) -> range | None:
    """The page numbers that a page-selective invalidation of more than one page covers."""
    match command:
        case IotlbInvalidateDescriptor(g=IotlbGranularity.PAGE_IN_DOMAIN):
            pass
        case PasidIotlbInvalidateDescriptor(g=PasidIotlbGranularity.PAGE_IN_PASID):
            pass
        case _:
            return None
    count = 1 << command.am
    first = command.addr >> PAGE_SHIFT & -count
    return range(first, first + count) if 1 < count <= MOST_PAGES else None
