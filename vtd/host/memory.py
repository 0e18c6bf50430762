"""The host's memory: what guests get of it, and what is left for tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pagetables.build import FramePool
from pagetables.memory import FRAME_SIZE

Range = tuple[int, int]
"""Half-open."""


class HostMemoryError(ValueError):
    """The host has less memory than is asked for."""


class HostMemory:
    """The free memory of a host; what was taken is not given back.

    ``memory`` are its ranges, ``reserved`` those that firmware keeps for devices.
    """

    def __init__(self, memory: Iterable[Range], reserved: Iterable[Range]) -> None:
        self._free = sorted(memory)
        for start, end in reserved:
            self._free = list(
                _without(self._free, start & -FRAME_SIZE, -(-end // FRAME_SIZE) * FRAME_SIZE)
            )

    def pool(self, size: int) -> FramePool:
        """A pool of frames for tables; fewer bytes than ``size`` if no free range is so large."""
        start, end = max(self._free, key=lambda each: each[1] - each[0], default=(0, 0))
        first = max(start, end - size)
        self._free = list(_without(self._free, first, end))
        return FramePool(first, end)

    def take(self, size: int, alignment: int = FRAME_SIZE) -> int:
        """The start of ``size`` free bytes; HostMemoryError if there are none in one piece."""
        for start, end in self._free:
            first = -(-start // alignment) * alignment
            if first + size <= end:
                self._free = list(_without(self._free, first, first + size))
                return first
        raise HostMemoryError(f"no {size:#x} bytes of memory are left in one piece")


def _without(ranges: Iterable[Range], start: int, end: int) -> Iterator[Range]:
    for low, high in ranges:
        for first, last in ((low, min(high, start)), (max(low, end), high)):
            if first < last:
                yield first, last
