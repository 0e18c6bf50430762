"""Memory of the guest, as clients map it: regions of physical memory, mapped from their files.

Each function has a connection, and each connection tells of the same memory. What the first one
maps becomes regions; of the others only the ranges are kept, to answer as a server has to. A range
without a file, such as flash, is no memory of devices.
"""

from __future__ import annotations

import bisect
import errno

from pagetables.memory import ADDRESS_WIDTH, FRAME_SIZE, MemoryLayoutError, PhysicalMemory
from vtd.live.requests import RequestError

MAX_RANGES = 65535
"""Ranges that one client may have."""


class GuestMemory:
    """The memory of one machine, and whose word counts for it."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.provider: ClientMemory | None = None

    def client(self) -> ClientMemory:
        """The memory of one more connection."""
        return ClientMemory(self)


class ClientMemory:
    """What one client has mapped; RequestError for what it can't."""

    def __init__(self, guest: GuestMemory) -> None:
        self._guest = guest
        self._starts: list[int] = []
        self._ends: list[int] = []

    def map(self, start: int, size: int, fd: int | None, offset: int, *, read_only: bool) -> None:
        """Map ``size`` bytes of a file at ``start``; without a file nothing is there for devices.

        Ranges never overlap: EEXIST.
        """
        end = _end(start, size)
        at = bisect.bisect_right(self._ends, start)
        if at < len(self._starts) and self._starts[at] < end:
            raise RequestError(errno.EEXIST)
        if len(self._starts) >= MAX_RANGES:
            raise RequestError(errno.ENOSPC)
        if self._guest.provider is None:
            self._guest.provider = self
        if fd is not None and self._guest.provider is self:
            try:
                self._guest.memory.map_region(start, fd, offset, size, read_only=read_only)
            except MemoryLayoutError as error:
                raise RequestError(errno.EINVAL) from error
        self._starts.insert(at, start)
        self._ends.insert(at, end)

    def unmap(self, start: int, size: int) -> None:
        """Take a range away, whatever ranges it is part of; ENOENT if nothing is mapped there."""
        end = _end(start, size)
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end)
        if first >= last:
            raise RequestError(errno.ENOENT)
        below, above = (self._starts[first], start), (end, self._ends[last - 1])
        kept = [(low, high) for low, high in (below, above) if low < high]
        self._starts[first:last] = [low for low, _ in kept]
        self._ends[first:last] = [high for _, high in kept]
        if self._guest.provider is self:
            self._guest.memory.remove_range(start, end)

    def close(self) -> None:
        """The client is gone, and its memory with it."""
        if self._guest.provider is self:
            for start, end in zip(self._starts, self._ends, strict=True):
                self._guest.memory.remove_range(start, end)
            self._guest.provider = None
        self._starts, self._ends = [], []


def _end(start: int, size: int) -> int:
    """The end of a range of whole frames; RequestError if it is none."""
    if not size or start % FRAME_SIZE or size % FRAME_SIZE or start + size > 1 << ADDRESS_WIDTH:
        raise RequestError(errno.EINVAL)
    return start + size
