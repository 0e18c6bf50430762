"""Writing page tables: map, unmap and protect ranges of first- or second-stage tables.

VT-d 9.7 and 9.8, from software's side. Pages are as large as alignment, the unit and the caller
allow; a superpage is split when a part of it changes, and a table that becomes empty is freed.
First-stage tables of a guest are written through ``translate``, as they live at guest physical
addresses. Left out: invalidation, which is up to the caller, as it is up to a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

from pagetables.first_stage import FirstStagePage2M, FirstStagePage4K
from pagetables.geometry import INDEX_BITS, PAGE_SHIFT, Geometry, Level, StageKind
from pagetables.memory import FRAME_SIZE, TableMemory
from pagetables.walk import ADDRESS

_PAT, _PAT_SUPERPAGE = FirstStagePage4K.pat.mask, FirstStagePage2M.pat.mask
RIGHTS = ("rw", "r-", "-w")


class BuildError(ValueError):
    """A request that these tables can't carry out; what is mapped has not changed."""


class Change(NamedTuple):
    """An entry that was written, other than in a table that nothing points to yet."""

    address: int
    """First input address that the entry translates; sign-extended in first-stage tables."""
    size: int
    """Bytes of input addresses that it translates."""
    before: int
    after: int
    leaf: bool
    """Whether the entry points to no table, before as well as after."""
    page: bool
    """Whether the entry maps a page, before or after."""


class _Place(NamedTuple):
    """An entry that maps a page."""

    level: Level
    table: int
    slot: int
    base: int
    """First input address that the table translates."""
    entry: int


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
    A and D where the unit can't set them itself (3.10). ``changed`` is told of each entry written.
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
        changed: Callable[[Change], None] | None = None,
    ) -> None:
        self._memory = memory
        self._geometry = geometry
        self._allocator = allocator
        self._translate = translate
        self._preset = preset
        self._changed = changed
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
            self._map(0, self.root, 0, start, end, physical, bits)
        except BuildError:
            self._change(0, self.root, 0, start, end, lambda entry: 0)
            raise

    def unmap(self, address: int, length: int) -> int:
        """Remove what is mapped in the range; the number of bytes that were."""
        start, end = self._range(address, length)
        self._split_at(start, end)
        return self._change(0, self.root, 0, start, end, lambda entry: 0)

    def protect(self, address: int, length: int, rights: str, *, user: bool = True) -> int:
        """Give what is mapped in the range these rights; the number of bytes that are."""
        start, end = self._range(address, length)
        bits = self._rights(rights, user)
        self._split_at(start, end)
        keep = ~self._geometry.rights
        return self._change(0, self.root, 0, start, end, lambda entry: entry & keep | bits)

    def release(self) -> None:
        """Give every table back to the allocator as it is; the builder is of no use afterwards."""
        self._release(0, self.root)

    def _release(self, depth: int, table: int) -> None:
        level = self._geometry.levels[depth]
        for slot in range(1 << INDEX_BITS):
            entry = self._read(table, slot)
            if entry & self._geometry.present and not entry & level.leaf:
                self._release(depth + 1, _frame(entry))
        self._allocator.free(table)

    def physical(self, address: int) -> int | None:
        """Where an input address leads, or None; rights do not matter."""
        start, _ = self._range(address & -FRAME_SIZE, FRAME_SIZE)
        for level, _, _, _, entry in self._pages(0, self.root, 0, start, start + FRAME_SIZE):
            offset = (1 << level.shift) - 1
            return entry & ADDRESS & ~offset | address & offset
        return None

    def clear_dirty(self, address: int, length: int) -> list[tuple[int, int]]:
        """Clear D in the pages that the range touches: address and size of each that had it set.

        Atomically, as a unit may be setting flags meanwhile (3.6.2, 3.7.2).
        """
        start, end = self._range(address, length)
        return [
            (self._input(place.base + (place.slot << place.level.shift)), 1 << place.level.shift)
            for place in self._pages(0, self.root, 0, start, end)
            if self._clear_dirty(place)
        ]

    def _clear_dirty(self, place: _Place) -> bool:
        """Clear D of a page; whether it was set."""
        level, table, index, base, entry = place
        dirty = self._geometry.dirty
        at = self._translate(table << PAGE_SHIFT | index << 3)
        while entry & dirty:
            if self._memory.compare_exchange(at, 8, entry, entry & ~dirty):
                self._tell(level, index, base, entry, entry & ~dirty)
                return True
            entry = self._read(table, index)
        return False

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
        read, write = (rights[0] == "r") * geometry.read, (rights[1] == "w") * geometry.write
        return read | write | user * geometry.user

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

    def _map(
        self, depth: int, table: int, base: int, start: int, end: int, physical: int, bits: int
    ) -> None:
        level = self._geometry.levels[depth]
        size = 1 << level.shift
        for index, low, high in _slots(level, start, end):
            target = physical + (index << level.shift) + low - start
            entry = self._read(table, index)
            if level.shift in self._page_shifts and high - low == size and not target % size:
                self._replace(level, table, index, base, entry, self._page(level, target, bits))
                continue
            if not entry & self._geometry.present:
                before, entry = entry, self._table_entry(self._new_table())
                self._replace(level, table, index, base, before, entry)
            inner = base + (index << level.shift)
            self._map(depth + 1, _frame(entry), inner, low, high, target, bits)

    def _change(
        self,
        depth: int,
        table: int,
        base: int,
        start: int,
        end: int,
        change: Callable[[int], int],
    ) -> int:
        """Replace each page's entry in a range at whose ends no page is cut; the bytes mapped."""
        level = self._geometry.levels[depth]
        mapped = 0
        for index, low, high in _slots(level, start, end):
            entry = self._read(table, index)
            if not entry & self._geometry.present:
                continue
            if entry & level.leaf:
                self._replace(level, table, index, base, entry, change(entry))
                mapped += 1 << level.shift
                continue
            inner = _frame(entry)
            mapped += self._change(
                depth + 1, inner, base + (index << level.shift), low, high, change
            )
            if not any(self._read(inner, slot) for slot in range(1 << INDEX_BITS)):
                self._replace(level, table, index, base, entry, 0)
                self._allocator.free(inner)
        return mapped

    def _pages(self, depth: int, table: int, base: int, start: int, end: int) -> Iterator[_Place]:
        """The entries of the pages that a range touches."""
        level = self._geometry.levels[depth]
        for index, low, high in _slots(level, start, end):
            entry = self._read(table, index)
            if not entry & self._geometry.present:
                continue
            if entry & level.leaf:
                yield _Place(level, table, index, base, entry)
            else:
                inner = base + (index << level.shift)
                yield from self._pages(depth + 1, _frame(entry), inner, low, high)

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
                    before, entry = entry, self._split(level, entry, below)
                    base = address & -(1 << level.shift + INDEX_BITS)
                    self._replace(level, table, index, base, before, entry)
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

    def _replace(
        self, level: Level, table: int, index: int, base: int, before: int, after: int
    ) -> None:
        """Write an entry that a unit may use, in a table that begins at input address ``base``."""
        self._write(table, index, after)
        self._tell(level, index, base, before, after)

    def _tell(self, level: Level, index: int, base: int, before: int, after: int) -> None:
        if self._changed is None:
            return
        present = [entry for entry in (before, after) if entry & self._geometry.present]
        leaf = all(entry & level.leaf for entry in present)
        page = any(entry & level.leaf for entry in present)
        where = self._input(base + (index << level.shift))
        self._changed(Change(where, 1 << level.shift, before, after, leaf, page))

    def _input(self, address: int) -> int:
        """The input address as requests have it: of the first stage, the canonical one."""
        geometry = self._geometry
        if geometry.kind is StageKind.FIRST and address >> geometry.width - 1:
            return address + (1 << 64) - (1 << geometry.width)
        return address

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
