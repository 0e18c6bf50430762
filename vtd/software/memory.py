"""Memory as software uses it, and its stores to structures that a unit may not snoop.

VT-d 6.8 and ECAP_REG.C, ECAP_REG.SMPWCS: where the unit does not look into the processor's caches,
each store to a structure is followed by a flush of its cache lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pagetables.memory import FrameSource, TableMemory


class Memory(TableMemory, Protocol):
    """Memory that software reads and writes."""

    def read(self, address: int, length: int) -> bytes: ...


class FlushableMemory(Memory, Protocol):
    """Memory whose stores may wait in cache lines."""

    def flush(self, address: int, length: int) -> None:
        """Write back the cache lines of ``length`` bytes."""


Flush = Callable[[int, int], None]
"""Writes back the cache lines of ``length`` bytes at an address."""


class FlushedMemory:
    """``memory`` with ``flush`` called after every store."""

    def __init__(self, memory: Memory, flush: Flush) -> None:
        self._memory = memory
        self._flush = flush

    @property
    def frames(self) -> FrameSource:
        return self._memory.frames

    def host(self, address: int) -> int:
        """As the memory itself says."""
        return self._memory.host(address)

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes at ``address``."""
        return self._memory.read(address, length)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``."""
        return self._memory.read_record(address, size)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a record; False if it is not ``expected``."""
        done = self._memory.compare_exchange(address, size, expected, new)
        if done:
            self._flush(address, size)
        return done

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``."""
        self._memory.write(address, data)
        self._flush(address, len(data))
