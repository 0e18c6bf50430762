"""Stores of a processor that others see later: held in its cache lines, or in write buffers.

VT-d 3.10 and 6.8. Memory itself is what the processor and whoever snoops its caches see. A unit
that does not snoop is given :attr:`ProcessorStores.unsnooped`, where a store shows only after its
cache lines were flushed, and with write buffers only after those were drained too.
"""

from __future__ import annotations

import struct
from array import array
from enum import Enum

from pagetables.memory import FrameReader, FrameSource, PhysicalMemory, Watcher

LINE = 64
FRAME = 4096


class Held(Enum):
    """Where a store waits."""

    CACHE = "cache line"
    BUFFER = "write buffer"


class ProcessorStores:
    """``memory`` as a processor uses it, whose stores have to be flushed.

    ``caches``: stores wait in cache lines; ``buffers``: what leaves those, or does not wait there,
    waits in write buffers. Lines of 64 bytes wait as a whole, with what memory held before.
    """

    def __init__(
        self, memory: PhysicalMemory, *, caches: bool = True, buffers: bool = False
    ) -> None:
        self.memory = memory
        self._first = Held.CACHE if caches else Held.BUFFER if buffers else None
        self._buffers = buffers
        self.held: dict[int, tuple[Held, bytes]] = {}
        """Lines by number: where the store waits, and what others still see."""
        self.unsnooped = UnsnoopedMemory(self)
        """Memory for whoever does not snoop."""

    @property
    def frames(self) -> FrameSource:
        """As the processor sees them."""
        return self.memory.frames

    def host(self, address: int) -> int:
        """The address itself."""
        return self.memory.host(address)

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes, with the processor's own stores."""
        return self.memory.read(address, length)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``."""
        return self.memory.read_record(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``; BusError, and nothing stored, if any of it can't be written."""
        before = self._before(address, len(data))
        self.memory.write(address, data)
        self._hold(before)

    def load(self, address: int, data: bytes) -> None:
        """As :meth:`write`, in read-only regions too."""
        before = self._before(address, len(data))
        self.memory.load(address, data)
        self._hold(before)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a record; False if it is not ``expected``."""
        before = self._before(address, size)
        done = self.memory.compare_exchange(address, size, expected, new)
        if done:
            self._hold(before)
        return done

    def _before(self, address: int, length: int) -> dict[int, bytes]:
        """The lines of a store that do not wait already."""
        if not length:
            return {}
        return {
            number: self.memory.read(number * LINE, LINE)
            for number in _lines(address, length)
            if number not in self.held
        }

    def _hold(self, before: dict[int, bytes]) -> None:
        if self._first is not None:
            self.held |= {number: (self._first, data) for number, data in before.items()}

    def flush(self, address: int, length: int) -> None:
        """Write back the cache lines of ``length`` bytes, as CLFLUSH does."""
        for number in _lines(address, max(length, 1)):
            where, data = self.held.get(number, (None, b""))
            if where is Held.CACHE and self._buffers:
                self.held[number] = Held.BUFFER, data
            elif where is Held.CACHE:
                del self.held[number]

    def drain(self) -> None:
        """Empty the write buffers (6.8)."""
        for number in [each for each, (where, _) in self.held.items() if where is Held.BUFFER]:
            del self.held[number]


class UnsnoopedMemory:
    """What is in memory apart from stores that wait (implements ``TableMemory``).

    ``snoops_walks``: page walks see through the processor's caches all the same (PWSNP), though
    never through write buffers. Stores are those of the unit, which everybody sees at once.
    """

    def __init__(self, stores: ProcessorStores) -> None:
        self.stores = stores
        self.snooped = stores.memory
        """Memory for accesses that are snooped whatever the unit does."""
        self.snoops_walks = False
        self.snoops_structures = False

    @property
    def frames(self) -> UnsnoopedMemory:
        """Frames by number."""
        return self

    def __getitem__(self, number: int) -> FrameReader:
        """A frame as a page walk reads it."""
        lines = self._waiting(number * FRAME, FRAME, snoops=self.snoops_walks)
        if not lines:
            return self.snooped.frames[number]
        frame = array("Q", self.snooped.read(number * FRAME, FRAME))
        for line, data in lines.items():
            offset = line * LINE % FRAME
            frame[offset // 8 : (offset + LINE) // 8] = array("Q", struct.unpack("<8Q", data))
        return frame

    def _waiting(self, address: int, length: int, *, snoops: bool) -> dict[int, bytes]:
        held = self.stores.held
        if not held:
            return {}
        return {
            number: held[number][1]
            for number in _lines(address, length)
            if number in held and not (snoops and held[number][0] is Held.CACHE)
        }

    def host(self, address: int) -> int:
        """The address itself."""
        return self.snooped.host(address)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes of a structure."""
        record = self.snooped.read_record(address, size)
        lines = self._waiting(address, size, snoops=self.snoops_structures)
        for line, data in lines.items():
            offset = address - line * LINE
            part = data[offset : offset + size]
            return int.from_bytes(part, "little")
        return record

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a record: always snooped (appendix A)."""
        return self.snooped.compare_exchange(address, size, expected, new)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``, which is always snooped."""
        self.snooped.write(address, data)

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher`` told of each later store when it is made, not when it shows here."""
        self.snooped.watch(watcher)

    def ignore(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of no later store; ValueError if it is told of none now."""
        self.snooped.ignore(watcher)


def _lines(address: int, length: int) -> range:
    """The numbers of the cache lines that bytes are in."""
    return range(address // LINE, (address + length - 1) // LINE + 1)
