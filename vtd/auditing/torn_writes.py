"""Present entries that are changed by several stores: inconsistent in between.

VT-d 6.2.2.1, 6.2.3.1, 6.2.6.2 and 9.9: where tables are and the tags of what is cached of them
change in one write, and so do the halves of an interrupt-remapping entry, and the kind of
translation with the tables that it uses. An invalidation that was waited for ends one change; what
follows is another. A new entry becomes present by the last of its stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pagetables.memory import BusError, TableMemory
from pagetables.observer import Structure
from vtd.layouts.entries import ContextEntry, PasidEntry, PasidTranslationType
from vtd.layouts.interrupt_entries import RemappedIrte


class Torn(NamedTuple):
    """An entry that several stores have changed while it was present."""

    structure: Structure
    address: int
    size: int
    before: int
    """Before the last of the stores."""
    after: int
    first: int
    """The line of the first one."""


@dataclass
class _Partly:
    """The lines of single stores that changed a part of a present entry."""

    tables: int | None = None
    tags: int | None = None


class TornWrites:
    """Follows the stores to the entries that a unit has read."""

    def __init__(self, memory: TableMemory) -> None:
        self._memory = memory
        self._records: dict[int, tuple[Structure, int]] = {}
        self._tables: dict[int, tuple[Structure, int]] = {}
        """Frames of tables that entries were read from."""
        self._partly: dict[int, dict[int, _Partly]] = {}
        """By entry, and number of the pair of what has to change together."""
        self._begun: dict[int, int] = {}
        """Lines of stores of a part that made an entry present, which no unit has read since."""

    def seen(self, structure: Structure, address: int, size: int) -> None:
        """A unit has read an entry."""
        if structure in _TOGETHER and size in _SIZES:
            self._records[address] = structure, size
            self._tables[address >> 12] = structure, size
            self._begun.pop(address, None)

    def waited(self) -> None:
        """Invalidations are complete."""
        self._partly.clear()
        self._begun.clear()

    def stored(self, address: int, data: bytes, line: int) -> Torn | None:
        """Software is about to store; whether that tears an entry."""
        if len(data) > max(_SIZES):  # memory that has another use now
            for start in range(address & -16, address + len(data), 16):
                self._records.pop(start, None)
            for frame in range(address >> 12, (address + len(data) - 1 >> 12) + 1):
                self._tables.pop(frame, None)
            return None
        for size in _SIZES:
            start = address & -size
            known = self._records.get(start) or self._tables.get(start >> 12)
            if known is not None and known[1] == size:
                return self._entry_stored(known[0], start, size, address - start, data, line)
        return None

    def _entry_stored(
        self, structure: Structure, start: int, size: int, offset: int, data: bytes, line: int
    ) -> Torn | None:
        try:
            before = self._memory.read_record(start, size)
        except BusError:
            return None
        content = bytearray(before.to_bytes(size, "little"))
        content[offset : offset + len(data)] = data[: size - offset]
        after = int.from_bytes(content, "little")
        bits = (before ^ after) & ~_unused(structure, before, after)
        changed = [(bool(bits & one), bool(bits & other)) for one, other in _TOGETHER[structure]]
        begun = self._begun.pop(start, None)
        if after & ~before & 1 and len(data) < size and structure is not Structure.INTERRUPT_ENTRY:
            self._begun[start] = line
        if not before & after & 1:  # not present before or afterwards
            tags = [each.tags for each in self._partly.pop(start, {}).values()]
            begun = next((each for each in tags if each is not None), None)
            if begun is None or not before & 1:
                return None
            return Torn(structure, start, size, before, after, begun)
        if begun is None and start in self._records:
            begun = self._changed_before(start, line, changed)
        if begun is None or not any(map(any, changed)):
            return None
        return Torn(structure, start, size, before, after, begun)

    def _changed_before(
        self, start: int, line: int, changed: list[tuple[bool, bool]]
    ) -> int | None:
        """The line that changed the other part of an entry, if one did since software waited."""
        first = None
        for number, (tables, tags) in enumerate(changed):
            if tables == tags:
                continue
            partly = self._partly.setdefault(start, {}).setdefault(number, _Partly())
            first = partly.tags if tables else partly.tables
            if tables:
                partly.tables = line
            else:
                partly.tags = line
            if first is not None:
                del self._partly[start]
                break
        return first


_SIZES = 16, 64
"""Bytes of legacy context, interrupt-remapping and PASID entries; all others have one quadword."""
_FIRST_STAGE = PasidEntry.fsptptr.mask | PasidEntry.fspm.mask
_TOGETHER: dict[Structure, tuple[tuple[int, int], ...]] = {
    Structure.CONTEXT: (
        (
            ContextEntry.ssptptr.mask | ContextEntry.tt.mask,
            ContextEntry.did.mask | ContextEntry.aw.mask,
        ),
    ),
    Structure.PASID: (
        (
            PasidEntry.ssptptr.mask | PasidEntry.pgtt.mask | PasidEntry.fsptptr.mask,
            PasidEntry.did.mask,
        ),
        (PasidEntry.hptptr.mask | PasidEntry.hptsz.mask, PasidEntry.hptdid.mask),
        (PasidEntry.pgtt.mask | PasidEntry.ssptptr.mask, _FIRST_STAGE),
    ),
    Structure.INTERRUPT_ENTRY: (
        ((1 << 64) - 1 & ~RemappedIrte.avail.mask, (1 << 128) - (1 << 64)),
    ),
}
"""What has to change together: where tables are, and the tags of what is cached of them."""


def _unused(structure: Structure, before: int, after: int) -> int:
    """The pointers of stages that a PASID entry does not have, which nobody looks at."""
    if structure is not Structure.PASID:
        return 0
    kinds = {PasidEntry(before).pgtt, PasidEntry(after).pgtt}
    first = 0 if kinds & {PasidTranslationType.FIRST_STAGE, NESTED} else _FIRST_STAGE
    second = 0 if kinds & {PasidTranslationType.SECOND_STAGE, NESTED} else PasidEntry.ssptptr.mask
    return first | second


NESTED = PasidTranslationType.NESTED
