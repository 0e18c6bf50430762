"""A growing set of addresses that answers which new range meets an earlier one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class RangeSet:
    """Half-open ranges, merged where they touch; all operations are logarithmic searches."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Join the addresses from ``start`` up to ``end``; nothing for an empty range."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def meets(self, start: int, end: int) -> bool:
        """Whether the range has an address in common with the set."""
        first = bisect_right(self._ends, start)
        return first < len(self._starts) and self._starts[first] < end

    def holds(self, start: int, end: int) -> bool:
        """Whether every address of the range is in the set."""
        first = bisect_right(self._ends, start)
        return (
            first < len(self._starts) and self._starts[first] <= start and end <= self._ends[first]
        )
