"""Memory that tells of every access: for explanations, counters and injected errors.

:class:`ObservedMemory` wraps any table memory, physical or guest. Its hook is told of each access
and may refuse it with a BusError; the hooks here count reads and inject errors, which the engine
turns into the architected fault like any other. :class:`UnchangedMemory` is for onlookers: walks on
it set no flags. Left out: accesses of devices, which do not go through table memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pagetables.memory import FRAME_SHIFT, BusError, FrameReader, FrameSource, TableMemory


class AccessKind(Enum):
    """What was done to memory."""

    READ = "read"
    UPDATE = "update"
    """An atomic compare and exchange."""
    WRITE = "write"


Hook = Callable[[AccessKind, int, int, int], None]
"""Told of an access: kind, address, size in bytes, value read or to be stored (little-endian)."""


class InjectedError(BusError):
    """A bus error that somebody asked for."""


class InjectedReadError(InjectedError):
    """The read with the chosen number."""


class InjectedRangeError(InjectedError):
    """An access to the chosen addresses."""


class ObservedMemory:
    """Memory whose accesses are told to ``hook`` (implements ``TableMemory``).

    The hook is called after a read and before an update or write, so that an access it refuses,
    by raising a BusError, leaves memory as it was.
    """

    def __init__(self, memory: TableMemory, hook: Hook) -> None:
        self._memory = memory
        self._hook = hook

    @property
    def frames(self) -> ObservedMemory:
        """Frames by number; each quadword that is looked at is a read."""
        return self

    def __getitem__(self, number: int) -> FrameReader:
        return _ObservedFrame(self._memory.frames[number], number << FRAME_SHIFT, self._hook)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``."""
        value = self._memory.read_record(address, size)
        self._hook(AccessKind.READ, address, size, value)
        return value

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a record; False if it is not ``expected``."""
        self._hook(AccessKind.UPDATE, address, size, new)
        return self._memory.compare_exchange(address, size, expected, new)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``."""
        self._hook(AccessKind.WRITE, address, len(data), int.from_bytes(data, "little"))
        self._memory.write(address, data)


class _ObservedFrame:
    def __init__(self, frame: FrameReader, address: int, hook: Hook) -> None:
        self._frame = frame
        self._address = address
        self._hook = hook

    def __getitem__(self, index: int) -> int:
        value = self._frame[index]
        self._hook(AccessKind.READ, self._address | index << 3, 8, value)
        return value


class UnchangedMemory:
    """Memory for looking only: stores and flag updates count as done, and nothing changes."""

    def __init__(self, memory: TableMemory) -> None:
        self._memory = memory

    @property
    def frames(self) -> FrameSource:
        """The frames of the memory itself."""
        return self._memory.frames

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``."""
        return self._memory.read_record(address, size)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """True, as if the record had been replaced."""
        return True

    def write(self, address: int, data: bytes) -> None:
        """Take ``data`` and forget it."""


@dataclass
class CountReads:
    """A hook that counts reads."""

    count: int = 0

    def __call__(self, kind: AccessKind, address: int, size: int, value: int) -> None:
        """Count one access if it is a read."""
        self.count += kind is AccessKind.READ


@dataclass
class FailRead:
    """A hook that fails the read with this number, counted from 1; later reads succeed."""

    number: int
    count: int = 0

    def __call__(self, kind: AccessKind, address: int, size: int, value: int) -> None:
        """Raise InjectedReadError when it is this read's turn."""
        if kind is not AccessKind.READ:
            return
        self.count += 1
        if self.count == self.number:
            raise InjectedReadError(address, f"injected error: read number {self.number}")


@dataclass(frozen=True)
class FailRange:
    """A hook that fails every access, or those of one kind, that touches ``start`` to ``end``."""

    start: int
    end: int
    """The first address after the range."""
    kind: AccessKind | None = None

    def __call__(self, kind: AccessKind, address: int, size: int, value: int) -> None:
        """Raise InjectedRangeError if the access is one of those."""
        if self.kind in (None, kind) and address < self.end and self.start < address + size:
            raise InjectedRangeError(
                address, f"injected error: {kind.value} in {self.start:#x}-{self.end:#x}"
            )
