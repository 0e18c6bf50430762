"""Which ``iommu`` events of a Linux trace map and unmap what a ``dma`` event tells better."""

from __future__ import annotations

from dataclasses import dataclass

from pagetables.geometry import PAGE_SHIFT


@dataclass(eq=False)
class Range:
    """What an ``iommu`` event maps or unmaps: bytes from an address on."""

    maps: bool
    start: int
    size: int
    told_better: bool = False


class Buffers:
    """Ranges and the buffers of ``dma`` events that they belong to, whichever comes first.

    What one kind of event, mapping or unmapping, has at an address ends with the other kind there.
    """

    def __init__(self) -> None:
        self._ranges: dict[bool, dict[int, Range]] = {True: {}, False: {}}
        """Those without a buffer yet, by their start."""
        self._awaited: dict[bool, set[int]] = {True: set(), False: set()}
        """Where the pages begin of buffers whose range has not come yet."""

    def add_range(self, each: Range) -> None:
        """An ``iommu`` event: its buffer may have come, or is to come."""
        self._take(each.start, each.size, maps=not each.maps)
        awaited = self._awaited[each.maps]
        if each.start in awaited:
            awaited.discard(each.start)
            each.told_better = True
        else:
            self._ranges[each.maps][each.start] = each

    def add_buffer(self, address: int, size: int, *, maps: bool) -> None:
        """A buffer of a ``dma`` event: its ranges have come, or one is to come."""
        start = address & -1 << PAGE_SHIFT
        self._take(start, 1, maps=not maps)
        found = self._take(start, address + size - start, maps=maps)
        for each in found:
            each.told_better = True
        if not found:
            self._awaited[maps].add(start)

    def give_up(self, each: Range) -> None:
        """Look for its buffer no longer."""
        if self._ranges[each.maps].get(each.start) is each:
            del self._ranges[each.maps][each.start]

    def _take(self, start: int, size: int, *, maps: bool) -> list[Range]:
        """Nothing is waited for any more at ``start``; the ranges that follow each other there."""
        self._awaited[maps].discard(start)
        found, at = [], start
        while at < start + size and (each := self._ranges[maps].pop(at, None)):
            found.append(each)
            at += each.size
        return found
