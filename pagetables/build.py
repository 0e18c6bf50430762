"""Writing page tables: map, unmap and protect ranges of first- or second-stage tables.

VT-d 9.7 and 9.8, from software's side. Pages are as large as alignment, the unit and the caller
allow; a superpage is split when a part of it changes, and a table that becomes empty is freed.
First-stage tables of a guest are written through ``translate``, as they live at guest physical
addresses. Left out: invalidation, which is up to the caller, as it is up to a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

from pagetables.first_stage import FirstStagePage2M, FirstStagePage4K
from pagetables.geometry import INDEX_BITS, PAGE_SHIFT, Geometry, Level, StageKind
from pagetables.memory import FRAME_SIZE, TableMemory
from pagetables.walk import ADDRESS

_PAT, _PAT_SUPERPAGE = FirstStagePage4K.pat.mask, FirstStagePage2M.pat.mask
RIGHTS = ("rw", "r-", "-w")


class BuildError(ValueError):
    """A request that these tables can't carry out; what is mapped has not changed."""


class FrameAllocator(Protocol):
    """Where table frames come from, and go back to; frames are frame numbers."""

    def allocate(self) -> int: ...

    def free(self, frame: int) -> None: ...


class FramePool:
    """A frame allocator over the addresses from ``start`` to ``end``.

    Freed frames are given out again first, the most recently freed one before the others.
    """

    def __init__(self, start: int, end: int) -> None:
        if start % FRAME_SIZE or end % FRAME_SIZE or not 0 <= start <= end:
            raise BuildError(f"frame pool {start:#x}-{end:#x}: not a range of whole frames")
        self._first = start >> PAGE_SHIFT
        self._next = self._first
        self._end = end >> PAGE_SHIFT
        self._free: dict[int, None] = {}

    @property
    def used(self) -> int:
        """How many frames are given out."""
        return self._next - self._first - len(self._free)

    def allocate(self) -> int:
        """A frame nobody else has; BuildError when there is none."""
        if self._free:
            return self._free.popitem()[0]
        if self._next == self._end:
            raise BuildError("out of table frames")
        self._next += 1
        return self._next - 1

    def free(self, frame: int) -> None:
        """Take a frame back; BuildError unless it is given out."""
        if not self._first <= frame < self._next or frame in self._free:
            raise BuildError(f"frame {frame:#x} was not given out")
        self._free[frame] = None


class TableBuilder:
    """One set of page tables and the software that maintains it.

    ``translate``: where in ``memory`` to find the table bytes at an address (guest to host).
    ``largest``: log2 of the largest page to use. ``preset``: flags to set in every entry, such as
    A and D where the unit can't set them itself (3.10).
    """

    def __init__(
        self,
        memory: TableMemory,
        geometry: Geometry,
        allocator: FrameAllocator,
        *,
        translate: Callable[[int], int] = lambda address: address,
        largest: int = 30,
        preset: int = 0,
    ) -> None:
        self._memory = memory
        self._geometry = geometry
        self._allocator = allocator
        self._translate = translate
        self._preset = preset
        if any(preset & level.stop for level in geometry.levels[:-1]):
            raise BuildError(f"preset {preset:#x}: not flags of every entry on this unit")
        self._page_shifts = [PAGE_SHIFT]
        for level in geometry.levels[-2::-1]:  # upwards; a page that can't be split is of no use
            if level.shift > largest or not level.leaf or level.leaf & level.page_reserved:
                break
            self._page_shifts.append(level.shift)
        self.root = self._new_table()
        """Frame number of the top table."""

    def map(
        self,
        address: int,
        physical: int,
        length: int,
        rights: str = "rw",
        *,
        user: bool = True,
        attributes: int = 0,
    ) -> None:
        """Map ``length`` bytes at input address ``address`` to ``physical``.

        ``rights``: ``"rw"``, ``"r-"`` or, second stage only, ``"-w"``. ``user``: first stage only.
        ``attributes``: further bits of a 4 KiB page's entry (memory type, SNP, PAT), moved to
        where a superpage has them. BuildError if anything is unaligned, out of range or already
        mapped, or if table frames run out.
        """
        start, end = self._range(address, length)
        if physical % FRAME_SIZE:
            raise BuildError(f"physical address {physical:#x} is not a multiple of 4 KiB")
        last = self._geometry.levels[-1]
        pages = physical | physical + length - FRAME_SIZE
        if physical < 0 or (pages & last.page_reserved or pages & ~ADDRESS):
            raise BuildError(
                f"physical range {physical:#x}-{physical + length:#x} is beyond the address width"
            )
        bits = self._rights(rights, user) | attributes | self._preset
        if attributes & self._geometry.rights or bits & (ADDRESS | last.page_reserved):
            raise BuildError(f"attributes {attributes:#x}: not attributes of a page on this unit")
        taken = self._first_mapped(0, self.root, start, end)
        if taken is not None:
            raise BuildError(f"input address {address + taken:#x} is mapped already")
        try:
            self._map(0, self.root, start, end, physical, bits)
        except BuildError:
            self._change(0, self.root, start, end, lambda entry: 0)
            raise

    def unmap(self, address: int, length: int) -> int:
        """Remove what is mapped in the range; the number of bytes that were."""
        start, end = self._range(address, length)
        self._split_at(start, end)
        return self._change(0, self.root, start, end, lambda entry: 0)

    def protect(self, address: int, length: int, rights: str, *, user: bool = True) -> int:
        """Give what is mapped in the range these rights; the number of bytes that are."""
        start, end = self._range(address, length)
        bits = self._rights(rights, user)
        self._split_at(start, end)
        keep = ~self._geometry.rights
        return self._change(0, self.root, start, end, lambda entry: entry & keep | bits)

    def _range(self, address: int, length: int) -> tuple[int, int]:
        """The range in the bits that the table translates."""
        if address % FRAME_SIZE or length % FRAME_SIZE or length <= 0:
            raise BuildError(
                f"range {address:#x}, length {length:#x}: not made of whole 4 KiB pages"
            )
        width = self._geometry.width
        limit = 1 << width
        if self._geometry.kind is StageKind.FIRST:
            half = limit >> 1
            if (1 << 64) - half <= address < 1 << 64:
                address -= (1 << 64) - limit
            else:
                limit = half
        if not 0 <= address < address + length <= limit:
            raise BuildError(
                f"range {address:#x}, length {length:#x}: outside {width} address bits"
            )
        return address, address + length

    def _rights(self, rights: str, user: bool) -> int:
        geometry = self._geometry
        if rights not in RIGHTS or (rights == "-w" and geometry.kind is StageKind.FIRST):
            raise BuildError(f"rights {rights!r}: not rights of this kind of table")
        return (
            (geometry.read if rights[0] == "r" else 0)
            | (geometry.write if rights[1] == "w" else 0)
            | (geometry.user if user else 0)
        )

    def _first_mapped(self, depth: int, table: int, start: int, end: int) -> int | None:
        """Offset from ``start`` of the first mapped address in the range."""
        level = self._geometry.levels[depth]
        for index, low, high in _slots(level, start, end):
            entry = self._read(table, index)
            if not entry & self._geometry.present:
                continue
            before = (index << level.shift) + low - start
            if entry & level.leaf:
                return before
            inner = self._first_mapped(depth + 1, _frame(entry), low, high)
            if inner is not None:
                return before + inner
        return None

    def _map(self, depth: int, table: int, start: int, end: int, physical: int, bits: int) -> None:
        level = self._geometry.levels[depth]
        size = 1 << level.shift
        for index, low, high in _slots(level, start, end):
            target = physical + (index << level.shift) + low - start
            if level.shift in self._page_shifts and high - low == size and not target % size:
                self._write(table, index, self._page(level, target, bits))
                continue
            entry = self._read(table, index)
            if not entry & self._geometry.present:
                entry = self._table_entry(self._new_table())
                self._write(table, index, entry)
            self._map(depth + 1, _frame(entry), low, high, target, bits)

    def _change(
        self, depth: int, table: int, start: int, end: int, change: Callable[[int], int]
    ) -> int:
        """Replace each page's entry in a range at whose ends no page is cut; the bytes mapped."""
        level = self._geometry.levels[depth]
        mapped = 0
        for index, low, high in _slots(level, start, end):
            entry = self._read(table, index)
            if not entry & self._geometry.present:
                continue
            if entry & level.leaf:
                self._write(table, index, change(entry))
                mapped += high - low
                continue
            inner = _frame(entry)
            mapped += self._change(depth + 1, inner, low, high, change)
            if not any(self._read(inner, slot) for slot in range(1 << INDEX_BITS)):
                self._write(table, index, 0)
                self._allocator.free(inner)
        return mapped

    def _split_at(self, *addresses: int) -> None:
        """Make sure that no page reaches across any of these addresses."""
        for address in addresses:
            table = self.root
            for level, below in pairwise(self._geometry.levels):
                if not address & (1 << level.shift) - 1:
                    break
                index = address >> level.shift & (1 << INDEX_BITS) - 1
                entry = self._read(table, index)
                if not entry & self._geometry.present:
                    break
                if entry & level.leaf:
                    entry = self._split(level, entry, below)
                    self._write(table, index, entry)
                table = _frame(entry)

    def _split(self, level: Level, entry: int, below: Level) -> int:
        """The entry for a new table that maps with pages of ``below`` what ``entry`` maps."""
        address = ADDRESS & -(1 << level.shift)
        bits = entry & ~address & ~level.leaf
        if self._geometry.kind is StageKind.FIRST and bits & _PAT_SUPERPAGE:
            bits ^= _PAT_SUPERPAGE | _PAT
        table = self._new_table()
        for index in range(1 << INDEX_BITS):
            target = (entry & address) + (index << below.shift)
            self._write(table, index, self._page(below, target, bits))
        return self._table_entry(table) | entry & self._geometry.accessed

    def _page(self, level: Level, target: int, bits: int) -> int:
        """The entry that maps a page at ``target``; ``bits`` are those of a 4 KiB page's entry."""
        if level.shift > PAGE_SHIFT:
            if self._geometry.kind is StageKind.FIRST and bits & _PAT:
                bits ^= _PAT_SUPERPAGE | _PAT
            bits |= level.leaf
        return target | bits

    def _table_entry(self, table: int) -> int:
        """An entry that points to a table and leaves all rights to the pages."""
        return table << PAGE_SHIFT | self._geometry.rights | self._preset

    def _new_table(self) -> int:
        table = self._allocator.allocate()
        address = table << PAGE_SHIFT
        if address & (self._geometry.levels[0].stop | ~ADDRESS):
            self._allocator.free(table)
            raise BuildError(f"table frame at {address:#x} is beyond the address width")
        self._memory.write(self._translate(address), bytes(FRAME_SIZE))
        return table

    def _read(self, table: int, index: int) -> int:
        return self._memory.read_record(self._translate(table << PAGE_SHIFT | index << 3), 8)

    def _write(self, table: int, index: int, entry: int) -> None:
        address = self._translate(table << PAGE_SHIFT | index << 3)
        self._memory.write(address, entry.to_bytes(8, "little"))


def _slots(level: Level, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The entries of one table that a range touches: index, and the part within each.

    ``start`` and ``end`` count from the first address of the table.
    """
    size = 1 << level.shift
    for index in range(start >> level.shift, (end - 1 >> level.shift) + 1):
        base = index << level.shift
        yield index, max(start - base, 0), min(end - base, size)


def _frame(entry: int) -> int:
    return (entry & ADDRESS) >> PAGE_SHIFT
