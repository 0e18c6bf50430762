"""Guest memory: the first-stage tables of a nested translation, found through the second stage.

VT-d 3.8. To a first-stage walk this is memory like any other; every frame it asks for is a guest
frame, translated by a second-stage walk that checks what the guest may do with that table. A table
that it refuses is a ``TableRefusedError``, for which the first-stage walk has faults of its own; a
fault of the second-stage walk itself passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

from pagetables.memory import FrameReader, TableMemory
from pagetables.observer import EntryObserver
from pagetables.walk import (
    FRAME_NUMBER,
    IndirectMemory,
    Leaf,
    Stage,
    TableRefusedError,
    WalkRule,
    output,
    set_flags,
)

SecondStageWalk = Callable[[int], Leaf]
"""Translates a guest physical address, with or without paging-structure caches."""
Located = Callable[[int, int], None]
"""Told of a table that is about to be read: its guest frame and its host frame."""


class GuestMemory(IndirectMemory):
    """Memory seen through a second stage (implements ``TableMemory``).

    ``width``: guest physical addresses at and above ``2**width`` can't be translated.
    ``known``: host frames of guest frames that a paging-structure cache remembers (6.2.5).
    """

    def __init__(
        self,
        memory: TableMemory,
        second: Stage,
        width: int,
        walk_second: SecondStageWalk,
        observer: EntryObserver | None = None,
    ) -> None:
        self._frames = memory.frames
        self._memory = memory
        self._second = second
        self._width = width
        self._walk = walk_second
        self._observer = observer
        self._hosts: dict[int, int] = {}
        self.known: dict[int, int] = {}
        self.located: Located | None = None
        geometry = second.geometry
        # A table page that can be walked with flags enabled has to be writable too (3.8.1).
        self._readable = geometry.read | geometry.write if second.accessed else geometry.read

    @property
    def frames(self) -> GuestMemory:
        """Frames by guest frame number."""
        return self

    def __getitem__(self, number: int) -> FrameReader:
        frame = self.known.get(number)
        if frame is None:
            address = number << 12
            if number >> self._width - 12:
                raise TableRefusedError(address, WalkRule.TABLE_BEYOND_WIDTH)
            leaf = entry, shift, rights, _, _ = self._walk(address)
            if rights & self._readable != self._readable:
                raise TableRefusedError(address, WalkRule.TABLE_NOT_READABLE)
            frame = (entry if shift == 12 else output(leaf, address)) >> 12 & FRAME_NUMBER
            if self.located is not None:
                self.located(number, frame)
        self._hosts[number] = frame
        return self._frames[frame]

    def host(self, address: int) -> int:
        """The host physical address where the last read of a guest frame found it."""
        return self._hosts[address >> 12] << 12 | address & 0xFFF

    def read_record(self, address: int, size: int) -> int:
        """A record at a guest physical address."""
        leaf = self._translate(address, self._readable, WalkRule.TABLE_NOT_READABLE)
        return self._memory.read_record(output(leaf, address), size)

    def reach(self, address: int) -> tuple[TableMemory, int]:
        """Where a first-stage entry is; setting flags in it dirties the page of its table."""
        leaf = self._translate(address, self._second.geometry.write, WalkRule.TABLE_NOT_WRITABLE)
        memory, stage, dirty = self._memory, self._second, self._second.dirty
        if dirty & ~leaf[0] and not set_flags(memory, stage, leaf, dirty, self._observer):
            return self.reach(address)
        frame = self.known.get(address >> 12, output(leaf, address) >> 12)
        return memory, frame << 12 | address & 0xFFF

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Set flags in a first-stage entry, where :meth:`reach` says it is."""
        memory, host = self.reach(address)
        return memory.compare_exchange(host, size, expected, new)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` within one guest frame."""
        leaf = self._translate(address, self._second.geometry.write, WalkRule.TABLE_NOT_WRITABLE)
        self._memory.write(output(leaf, address), data)

    def _translate(self, address: int, need: int, denied: WalkRule) -> Leaf:
        if address >> self._width:
            raise TableRefusedError(address, WalkRule.TABLE_BEYOND_WIDTH)
        leaf = _, _, rights, _, _ = self._walk(address)
        if rights & need != need:
            raise TableRefusedError(address, denied)
        return leaf
