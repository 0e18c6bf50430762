"""What a page table maps, as numpy columns: the same listing as in extents, table after table.

VT-d 3.6 to 3.8. All entries of some tables are judged at once, so a page costs a small part of
what it costs in :mod:`pagetables.extents`; pages, their order, limits and what is refused are the
same. What is not a plain page is left to that module, range by range: entries that break a rule,
and large pages of nested tables. For memory whose frames are buffers, as those of physical memory
are. Needs the ``numpy`` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagetables.extents import (
    Budget,
    Extent,
    ListingLimitError,
    Page,
    Refused,
    guest_memory,
    listing_end,
    nested_pages,
    stage_pages,
)
from pagetables.geometry import INDEX_BITS, PAGE_SHIFT, Geometry, Level, StageKind
from pagetables.memory import FRAME_SIZE, BusError, TableMemory
from pagetables.walk import ADDRESS, FRAME_NUMBER, Stage, WalkFault

Numbers = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Plain = Callable[[int, int], Iterator[Page]]
"""Lists the pages of a range of input addresses one by one."""

ENTRIES = 1 << INDEX_BITS
TOGETHER = 16
"""Tables whose entries are judged at once: a column of them is 64 KiB, and memory stays warm."""
_INDEXES = np.arange(ENTRIES, dtype=np.uint64)
_ONE, _ADDRESS = np.uint64(1), np.uint64(ADDRESS)
_BLANK = bytes(FRAME_SIZE)
_RIGHTS = np.array(["--", "r-", "-w", "rw"], dtype=object)


class Columns(NamedTuple):
    """Pages, a column for each field of :class:`pagetables.extents.Page`."""

    address: Numbers
    length: Numbers
    physical: Numbers
    rights: NDArray[np.uint8]
    """1 for read, 2 for write."""
    user: Flags
    guest: Numbers | None
    entry: Numbers
    second_entry: Numbers | None

    def pages(self) -> Iterator[Page]:
        """The pages one by one."""
        none = [None] * len(self.address)
        return map(
            Page,
            self.address.tolist(),
            self.length.tolist(),
            self.physical.tolist(),
            _RIGHTS[self.rights].tolist(),
            self.user.tolist(),
            none if self.guest is None else self.guest.tolist(),
            self.entry.tolist(),
            none if self.second_entry is None else self.second_entry.tolist(),
        )


def columns(
    memory: TableMemory,
    stage: Stage,
    *,
    width: int | None = None,
    limit: int | None = None,
    refused: Refused | None = None,
) -> Iterator[Columns]:
    """What :func:`pagetables.extents.leaves` lists, in pieces of some tables."""
    geometry = stage.geometry
    budget = Budget(limit)

    def plain(begin: int, end: int) -> Iterator[Page]:
        return stage_pages(memory, stage, width, budget, refused, begin, end)

    for found in _slots(memory, stage, listing_end(geometry, width, None), limit is not None):
        cost = np.ones(len(found.page), dtype=np.int64)
        for part in _parts(found, cost, budget, plain):
            if isinstance(part, Columns):
                yield part
                continue
            listed = found.choose(part, found.page[part])
            if len(listed.address):
                yield Columns(
                    _canonical(geometry, listed.address),
                    _sizes(listed.shift),
                    listed.entry & _ADDRESS & -_sizes(listed.shift),
                    _rights(geometry, listed.rights),
                    _user(geometry, listed.rights),
                    None,
                    listed.entry,
                    None,
                )


def nested_columns(
    memory: TableMemory,
    first: Stage,
    second: Stage,
    width: int,
    *,
    limit: int | None = None,
    refused: Refused | None = None,
) -> Iterator[Columns]:
    """What :func:`pagetables.extents.nested_leaves` lists, in pieces of some tables."""
    guest = guest_memory(memory, second, width)
    budget = Budget(limit)
    inside, outside = first.geometry, second.geometry

    def plain(begin: int, end: int) -> Iterator[Page]:
        return nested_pages(memory, guest, first, second, width, budget, refused, begin, end)

    for found in _slots(guest, first, listing_end(inside, None, None), limit is not None):
        gpa = found.entry & _ADDRESS
        usual = found.page & (found.shift == PAGE_SHIFT) & (gpa >> width == 0)
        walked = usual & (gpa < listing_end(outside, width, None))
        inner = _walk(memory, second, gpa, walked)
        rights = _rights(outside, inner.rights)
        rights &= _rights(inside, found.rights) | 1  # whatever is present may be read
        shown = inner.page & (rights != 0)
        odd = found.odd | found.page & ~usual | inner.odd
        for part in _parts(found._replace(odd=odd), 1 + walked, budget, plain):
            if isinstance(part, Columns):
                yield part
                continue
            outer, host = (each.choose(part, shown[part]) for each in (found, inner))
            if len(outer.address):
                size = _sizes(host.shift)
                yield Columns(
                    _canonical(inside, outer.address),
                    _sizes(outer.shift),
                    host.entry & _ADDRESS & -size | host.address & size - _ONE,
                    rights[part][shown[part]],
                    _user(inside, outer.rights),
                    host.address,
                    outer.entry,
                    host.entry,
                )


def merge(pieces: Iterable[Columns]) -> Iterator[Extent]:
    """What :func:`pagetables.extents.merge` makes of the same pages."""
    last: Extent | None = None
    for piece in pieces:
        goes_on = (
            (piece.address[1:] == piece.address[:-1] + piece.length[:-1])
            & (piece.physical[1:] == piece.physical[:-1] + piece.length[:-1])
            & (piece.rights[1:] == piece.rights[:-1])
            & (piece.user[1:] == piece.user[:-1])
        )
        if piece.guest is not None:
            goes_on &= piece.guest[1:] == piece.guest[:-1] + piece.length[:-1]
        starts = np.concatenate(([0], np.flatnonzero(~goes_on) + 1))
        guests = None if piece.guest is None else piece.guest[starts].tolist()
        for here in map(
            Extent,
            piece.address[starts].tolist(),
            np.add.reduceat(piece.length, starts).tolist(),
            piece.physical[starts].tolist(),
            _RIGHTS[piece.rights[starts]].tolist(),
            piece.user[starts].tolist(),
            [None] * len(starts) if guests is None else guests,
        ):
            if last is not None and last.goes_on_with(here):
                last = last._replace(length=last.length + here.length)
                continue
            if last is not None:
                yield last
            last = here
    if last is not None:
        yield last


class _Slots(NamedTuple):
    """Entries that point to no table, in ascending order of input addresses."""

    address: Numbers
    shift: Numbers
    entry: Numbers
    rights: Numbers
    page: Flags
    odd: Flags
    """Present and refused, or unreadable."""

    def of(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> _Slots:
        """Every column changed alike."""
        return _Slots(*map(change, self))

    def choose(self, part: slice, wanted: Flags) -> _Slots:
        """Of a part, those that are wanted."""
        if wanted.all():
            return self.of(lambda column: column[part])
        at = np.flatnonzero(wanted)  # quicker than the flags themselves, used six times
        return self.of(lambda column: column[part].take(at))


def _slots(memory: TableMemory, stage: Stage, end: int, counted: bool) -> Iterator[_Slots]:
    """The slots below ``end``, in pieces of one table or of the tables below one table.

    ``counted``: with those that are not present, which a limit counts too.
    """
    geometry = stage.geometry

    def below(depth: int, frames: Numbers, rights: Numbers, starts: Numbers) -> Iterator[_Slots]:
        everything, tables = _entries(memory, geometry, depth, frames, rights, starts)
        wanted = everything.address < end
        if not counted:
            wanted &= tables | everything.page | everything.odd
        if not wanted.all():
            everything, tables = everything.choose(slice(None), wanted), tables[wanted]
        at, done = np.flatnonzero(tables), 0
        last = depth + 1 < len(geometry.levels) and geometry.levels[depth + 1].shift == PAGE_SHIFT
        step = TOGETHER if last else 1
        for first in range(0, len(at), step):
            chosen: Any = at[first : first + step]
            stop = int(chosen[-1]) + 1
            here = everything.choose(slice(done, stop), ~tables[done:stop])
            numbers = everything.entry[chosen] >> PAGE_SHIFT & FRAME_NUMBER
            begins = everything.address[chosen]
            deeper = below(depth + 1, numbers, everything.rights[chosen], begins)
            if last:
                yield from (_together(here, low) for low in deeper)
            else:
                yield here
                yield from deeper
            done = stop
        yield everything.choose(slice(done, None), ~tables[done:])

    return below(0, _numbers(stage.root), _numbers(geometry.rights), _numbers(0))


def _entries(
    memory: TableMemory,
    geometry: Geometry,
    depth: int,
    frames: Numbers,
    rights: Numbers,
    starts: Numbers,
) -> tuple[_Slots, Flags]:
    """All entries of tables that begin at these input addresses, and which point to a table."""
    level = geometry.levels[depth]
    entries, unreadable = _read(memory, frames)
    granted = rights[:, None] & entries
    table, page, odd = _judge(level, geometry.present, entries, granted)
    odd |= unreadable[:, None]
    address = starts[:, None] + (_INDEXES << np.uint64(level.shift))
    shift = np.full(address.size, level.shift, dtype=np.uint64)
    columns: list[NDArray[Any]] = [each.ravel() for each in (entries, granted, page, odd)]
    return _Slots(address.ravel(), shift, *columns), table.ravel()


def _together(one: _Slots, other: _Slots) -> _Slots:
    """All slots of two tables in order."""
    if not len(one.address):
        return other
    order = np.argsort(np.concatenate((one.address, other.address)), kind="stable")
    pairs = zip(one, other, strict=True)
    return _Slots(*[np.concatenate(pair).take(order) for pair in pairs])


def _judge(
    level: Level, present: int, entries: Numbers, granted: Numbers
) -> tuple[Flags, Flags, Flags]:
    """Which entries point to a table, map a page, and are present but neither: as in a walk."""
    there = granted & present != 0
    table = there & (entries & level.stop == 0)
    page = there & ~table & (entries & level.leaf != 0) & (entries & level.page_reserved == 0)
    return table, page, there & ~table & ~page


def _walk(memory: TableMemory, stage: Stage, addresses: Numbers, wanted: Flags) -> _Slots:
    """The slot of each wanted address; neither page nor odd where nothing is present."""
    geometry = stage.geometry
    count = len(addresses)
    shifts, entries, rights = (np.zeros(count, dtype=np.uint64) for _ in range(3))
    pages, odds = (np.zeros(count, dtype=np.bool_) for _ in range(2))
    at = np.flatnonzero(wanted)
    frames = np.full(len(at), stage.root, dtype=np.uint64)
    granted = np.full(len(at), geometry.rights, dtype=np.uint64)
    for level in geometry.levels:
        if not len(at):
            break
        known, which = np.unique(frames, return_inverse=True)
        tables, unreadable = _read(memory, known)
        entry = tables[which, addresses[at] >> level.shift & ENTRIES - 1]
        granted &= entry
        table, page, odd = _judge(level, geometry.present, entry, granted)
        shifts[at], entries[at], rights[at] = level.shift, entry, granted
        pages[at], odds[at] = page, odd | unreadable[which]
        at, frames, granted = at[table], entry[table] >> PAGE_SHIFT & FRAME_NUMBER, granted[table]
    return _Slots(addresses, shifts, entries, rights, pages, odds)


def _read(memory: TableMemory, frames: Numbers) -> tuple[Numbers, Flags]:
    """The entries of tables, a row for each, and which tables could not be read."""
    unreadable = np.zeros(len(frames), dtype=np.bool_)
    contents: list[Any] = []
    source = memory.frames
    for row, number in enumerate(frames.tolist()):
        try:
            contents.append(source[number])
        except (BusError, WalkFault):
            contents.append(_BLANK)
            unreadable[row] = True
    return np.frombuffer(b"".join(contents), dtype=np.uint64).reshape(-1, ENTRIES), unreadable


def _parts(
    found: _Slots, cost: NDArray[np.int64], budget: Budget, plain: Plain
) -> Iterator[Columns | slice]:
    """Runs of slots without an odd one, paid for, and the pages of what was listed one by one."""
    edges = np.flatnonzero(found.odd[1:] != found.odd[:-1]) + 1
    bounds = [0, *edges.tolist(), len(found.odd)] if len(found.odd) else []
    for start, end in pairwise(bounds):
        price = int(cost[start:end].sum())
        if not found.odd[start] and (budget.left is None or price <= budget.left):
            budget.spend(price)
            yield slice(start, end)
            continue
        pages: list[Page] = []
        error: ListingLimitError | None = None
        after = int(found.address[end - 1]) + (1 << int(found.shift[end - 1]))
        try:
            for page in plain(int(found.address[start]), after):
                pages.append(page)
                if len(pages) == ENTRIES:
                    yield _columns(pages)
                    pages = []
        except ListingLimitError as reached:
            error = reached
        if pages:
            yield _columns(pages)
        if error is not None:
            raise error


def _columns(pages: list[Page]) -> Columns:
    """Pages as columns."""
    address, length, physical, rights, user, guest, entry, second = zip(*pages, strict=True)
    return Columns(
        np.array(address, dtype=np.uint64),
        np.array(length, dtype=np.uint64),
        np.array(physical, dtype=np.uint64),
        np.array([_RIGHTS.tolist().index(shown) for shown in rights], dtype=np.uint8),
        np.array(user, dtype=np.bool_),
        None if guest[0] is None else np.array(guest, dtype=np.uint64),
        np.array(entry, dtype=np.uint64),
        None if second[0] is None else np.array(second, dtype=np.uint64),
    )


def _numbers(number: int) -> Numbers:
    return np.array([number], dtype=np.uint64)


def _sizes(shifts: Numbers) -> Numbers:
    return _ONE << shifts


def _canonical(geometry: Geometry, addresses: Numbers) -> Numbers:
    if geometry.kind is not StageKind.FIRST:
        return addresses
    high = (1 << 64) - (1 << geometry.width)
    return np.where(addresses >> geometry.width - 1 != 0, addresses | high, addresses)


def _rights(geometry: Geometry, rights: Numbers) -> NDArray[np.uint8]:
    read: NDArray[np.uint8] = (rights & geometry.read != 0).astype(np.uint8)
    write: NDArray[np.uint8] = (rights & geometry.write != 0).astype(np.uint8)
    return read | write << np.uint8(1)


def _user(geometry: Geometry, rights: Numbers) -> Flags:
    user: Flags = rights & geometry.user == geometry.user
    return user
