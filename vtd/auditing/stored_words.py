"""Words of structures: as a unit read them, as they are now, and who stored them and when.

Left out: what a change means for what was cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pagetables import first_stage, second_stage
from pagetables.memory import BusError, PhysicalMemory
from pagetables.observer import Structure
from pagetables.walk import ADDRESS
from vtd.auditing.copies import Copy
from vtd.auditing.debt import Pointer, Word
from vtd.auditing.significance import change
from vtd.unit.unit import RemappingUnit

PAGING = (Structure.FIRST_STAGE, Structure.SECOND_STAGE)
LOOKUP = (
    Pointer.ROOT,
    Structure.ROOT,
    Structure.CONTEXT,
    Structure.PASID_DIRECTORY,
    Structure.PASID,
)


PAGING_ENTRY, PASID_ENTRY = 8, 64
"""Bytes of the shortest and of the longest entry that says where a table is."""
PRESENT_IN_EITHER_STAGE = first_stage.PRESENT | second_stage.READ | second_stage.WRITE


class Change(NamedTuple):
    """A word of a copy that software changed."""

    word: Word
    now: int | None
    bits: int


class StoredWords:
    """The words that copies came from; ``writer`` names who stores one, when it is stored."""

    def __init__(self, unit: RemappingUnit, writer: Callable[[], object]) -> None:
        self._unit = unit
        self._memory = unit.remapping.memory
        self._writer = writer
        self.now = 0
        """Counts stores and completed waits."""
        self._version = 0
        """Counts whatever may have changed a word."""
        self._stores: dict[int, tuple[int, object]] = {}
        """Of quadwords in frames that have structures: when and by whom they were last stored."""
        self._cleared: dict[int, int] = {}
        """When software last stored an entry that is not present, by quadword."""
        self._pointers: dict[Pointer, int] = {}
        """When they were last set."""
        self._filled: dict[int, tuple[int, int]] = {}
        """When software last stored something in a frame, and how many bytes."""
        self._entered: dict[int, int] = {}
        """When software last made an entry of a table present, by frame."""
        self._linked: dict[int, tuple[int, int]] = {}
        """When software last stored the address of a table, and where, by frame of the table."""
        self._frames: dict[int, int] = {}
        """Frames that have structures, and the version at which something was last stored there."""
        self._read: dict[int, Word] = {}
        """Records as they were last read."""

    def word(self, structure: Any, address: int, size: int, value: int, mask: int) -> Word:
        """A word, the same object as long as it stays the same."""
        if not size:
            return Word(structure, address, size, value, mask)
        known = self._read.get(address)
        if (
            known is not None
            and known.value == value
            and known.mask == mask
            and known.structure is structure
        ):
            return known
        self._frames.setdefault(address >> 12, 0)
        word = self._read[address] = Word(structure, address, size, value, mask)
        return word

    def current(self, word: Word) -> int | None:
        """What it holds now; None where there is no memory any more."""
        if word.structure is Pointer.ROOT:
            remapping = self._unit.remapping
            return int(remapping.root if remapping.new_root is None else remapping.new_root)
        if word.structure is Pointer.INTERRUPT:
            interrupts = self._unit.interrupts
            return int(interrupts.table if interrupts.new_table is None else interrupts.new_table)
        try:
            return self._memory.read_record(word.address, word.size)
        except BusError:
            return None

    def changes(self, copy: Copy) -> Iterator[Change]:
        """The words that software changed, from the root on."""
        if copy.intact == self._version:
            return
        known, intact, frames = copy.intact, self._shows_stores(), self._frames
        for word in copy.words:
            if word.size and frames[word.address >> 12] <= known:
                continue
            now = self.current(word)
            if now != word.value:
                bits = change(word, now)
                if bits:
                    intact = False
                    yield Change(word, now, bits)
        if intact:
            copy.intact = self._version

    def _shows_stores(self) -> bool:
        """Whether nothing changes but by stores that are told of: others show them later."""
        memory = self._memory
        return isinstance(memory, PhysicalMemory) and not memory.shared_with_others

    def changed_at(self, word: Word) -> int | None:
        """When software last stored it; None if it was not seen."""
        if isinstance(word.structure, Pointer):
            return self._pointers.get(word.structure)
        stamps = [self._stores[number][0] for number in _numbers(word) if number in self._stores]
        return max(stamps, default=None)

    def there_since(self, word: Word) -> int:
        """When software can have stored it last, at the latest; -1 for before all that was seen."""
        changed_at = self.changed_at(word)
        return self.filled(word.address >> 12)[0] if changed_at is None else changed_at

    def led_nowhere_since(self, word: Word, time: int) -> bool:
        """Whether a paging entry was not present for a while after a time."""
        return word.structure in PAGING and self._cleared.get(word.address >> 3, -1) > time

    def writer_of(self, word: Word) -> str | None:
        """Who last stored it; None if it was not seen."""
        if not word.size:
            return None
        stamps = [self._stores[number] for number in _numbers(word) if number in self._stores]
        return str(max(stamps, key=lambda stamp: stamp[0])[1]) if stamps else None

    def set_pointer(self, pointer: Pointer) -> None:
        """Software has set where tables begin."""
        self._pointers[pointer] = self.now
        self._version += 1

    def touched(self, frames: range) -> None:
        """Somebody stores something in these frames."""
        for frame in frames:
            if frame in self._frames:
                self._version += 1
                self._frames[frame] = self._version

    def store(self, frame: int, address: int, data: bytes) -> None:
        """Software stores something, in this frame too."""
        length = len(data)
        if frame in self._frames:
            stamp = self.now, self._writer()
            if self._appears(address, data):
                self._entered[frame] = self.now
            for number in range(address >> 3, (address + length - 1 >> 3) + 1):
                self._stores[number] = stamp
                at = max((number << 3) - address, 0)
                if number << 3 in self._read and not data[at] & PRESENT_IN_EITHER_STAGE:
                    self._cleared[number] = self.now
        self._filled[frame] = self.now, length
        if length <= PASID_ENTRY:
            for at in range(0, length - PAGING_ENTRY + 1, PAGING_ENTRY):
                table = (int.from_bytes(data[at : at + PAGING_ENTRY], "little") & ADDRESS) >> 12
                if table in self._frames:
                    self._linked[table] = self.now, address + at

    def _appears(self, address: int, data: bytes) -> bool:
        """Whether software is about to make a paging entry present that is not."""
        if len(data) != PAGING_ENTRY or not data[0] & PRESENT_IN_EITHER_STAGE:
            return False
        return not self._memory.read_record(address, PAGING_ENTRY) & PRESENT_IN_EITHER_STAGE

    def is_table_since(self, frame: int, time: int, word: Word) -> bool:
        """Whether a table is one again since a time, by another entry than a word."""
        linked_at, where = self._linked.get(frame, (-1, 0))
        return min(self._entered.get(frame, -1), linked_at) > time and where != word.address

    def filled(self, frame: int) -> tuple[int, int]:
        """When software last stored something in a frame, -1 for never, and how many bytes."""
        return self._filled.get(frame, (-1, 0))


def _numbers(word: Word) -> range:
    return range(word.address >> 3, (word.address + word.size - 1 >> 3) + 1)
