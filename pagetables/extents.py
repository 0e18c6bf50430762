"""What a page table maps: every page, and the merged ranges.

VT-d 3.6 to 3.8. The listing goes through the tables by the rules of the walk, entry after entry,
and sets no flags. Nested tables list the way from input address over guest physical address to
host physical address. Everything is lazy: a table that points to itself has 2^36 pages and more.
:mod:`pagetables.columns` lists the same as columns of numbers, many times faster. Left out: rules
outside the tables, such as the interrupt range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

from pagetables.geometry import Geometry, StageKind
from pagetables.memory import BusError, FrameReader, TableMemory
from pagetables.nested import GuestMemory
from pagetables.unchanged import UnchangedMemory
from pagetables.walk import (
    ADDRESS,
    FRAME_NUMBER,
    Stage,
    TableRefusedError,
    WalkFault,
    WalkRule,
    walk,
)

Refused = Callable[[int, int, WalkFault], None]
"""Told what is present but can't be used: input address, length, and why."""


class ListingLimitError(ValueError):
    """More entries to look at than the caller allows."""


class Page(NamedTuple):
    """A page, or with nested tables the part of it that is one page in both stages."""

    address: int
    """Input address; canonical for the first stage."""
    length: int
    physical: int
    """Host physical address."""
    rights: str
    """``"rw"``, ``"r-"`` or ``"-w"``, ANDed over all levels and both stages."""
    user: bool
    """Whether requests without supervisor privilege may use it; always, for second stage."""
    guest: int | None
    """Guest physical address of nested tables."""
    entry: int
    """The leaf entry as it is in memory, of the first stage if there are two."""
    second_entry: int | None
    """The second-stage leaf entry of nested tables."""


class Extent(NamedTuple):
    """Neighbouring pages that continue each other with the same rights; fields as in Page."""

    address: int
    length: int
    physical: int
    rights: str
    user: bool
    guest: int | None

    def goes_on_with(self, other: Extent) -> bool:
        """Whether ``other`` begins where this ends, in every stage, with the same rights."""
        return other == self._replace(
            address=self.address + self.length,
            length=other.length,
            physical=self.physical + self.length,
            guest=None if self.guest is None else self.guest + self.length,
        )


def leaves(
    memory: TableMemory,
    stage: Stage,
    *,
    width: int | None = None,
    limit: int | None = None,
    refused: Refused | None = None,
) -> Iterator[Page]:
    """The pages of one stage in ascending order of the bits that the table translates.

    ``width``: input addresses at and above ``2**width`` are not listed (MGAW). ``limit``: entries
    to look at before a ListingLimitError ends the listing; without it the listing of a hostile
    table does not end in any useful time. ``refused`` is told of entries that are present and
    break a rule, and of those that can't be read.
    """
    return stage_pages(memory, stage, width, Budget(limit), refused)


def stage_pages(
    memory: TableMemory,
    stage: Stage,
    width: int | None,
    budget: Budget,
    refused: Refused | None,
    begin: int = 0,
    end: int | None = None,
) -> Iterator[Page]:
    """The pages from input address ``begin`` up to ``end``, not canonical, of one stage."""
    geometry = stage.geometry
    read, write, user = geometry.read, geometry.write, geometry.user
    half = 1 << geometry.width - 1
    for address, entry, shift, rights in slots(memory, stage, width, budget, refused, begin, end):
        yield Page(
            canonical(geometry, address) if address >= half else address,
            1 << shift,
            entry & ADDRESS & -(1 << shift),
            _shown(read, write, rights),
            rights & user == user,
            None,
            entry,
            None,
        )


def nested_leaves(
    memory: TableMemory,
    first: Stage,
    second: Stage,
    width: int,
    *,
    limit: int | None = None,
    refused: Refused | None = None,
) -> Iterator[Page]:
    """The pages of first-stage tables that live in, and map to, guest memory (3.8).

    ``width``: guest physical addresses at and above ``2**width`` can't be translated.
    """
    guest = guest_memory(memory, second, width)
    return nested_pages(memory, guest, first, second, width, Budget(limit), refused)


def guest_memory(memory: TableMemory, second: Stage, width: int) -> GuestMemory:
    """Guest memory to look at only."""
    unchanged = UnchangedMemory(memory)
    return GuestMemory(unchanged, second, width, lambda gpa: walk(unchanged, second, gpa))


def nested_pages(
    memory: TableMemory,
    guest: GuestMemory,
    first: Stage,
    second: Stage,
    width: int,
    budget: Budget,
    refused: Refused | None,
    begin: int = 0,
    end: int | None = None,
) -> Iterator[Page]:
    """The pages from input address ``begin`` up to ``end``, not canonical, of nested tables."""
    inside = first.geometry
    for address, entry, shift, rights in slots(guest, first, None, budget, refused, begin, end):
        start = entry & ADDRESS & -(1 << shift)
        outer = show_rights(inside, rights)
        if start >> width:
            if refused is not None:
                fault = WalkFault(WalkRule.TABLE_BEYOND_WIDTH, StageKind.FIRST, shift, False)
                refused(canonical(inside, address), 1 << shift, fault)
            continue

        def tell_inner(
            gpa: int, length: int, fault: WalkFault, back: int = address - start
        ) -> None:
            if refused is not None:
                refused(canonical(inside, gpa + back), length, fault)

        inner_slots = slots(memory, second, width, budget, tell_inner, start, start + (1 << shift))
        for gpa, second_entry, second_shift, second_rights in inner_slots:
            inner = show_rights(second.geometry, second_rights)
            shown = inner[0] + ("w" if outer[1] == inner[1] == "w" else "-")
            if shown == "--":
                continue
            size = 1 << min(shift, second_shift)
            offset = gpa & (1 << second_shift) - 1
            yield Page(
                canonical(inside, address + gpa - start),
                size,
                (second_entry & ADDRESS & -(1 << second_shift)) + offset,
                shown,
                rights & inside.user == inside.user,
                gpa,
                entry,
                second_entry,
            )


def merge(pages: Iterable[Page]) -> Iterator[Extent]:
    """Join neighbours that map to neighbours, in every stage, with the same rights."""
    rest = iter(pages)
    first = next(rest, None)
    if first is None:
        return
    start, covered, target, shown, plain, through, _, _ = first
    for address, length, physical, rights, user, guest, _, _ in rest:
        goes_on = address - start == physical - target == covered
        if goes_on and through is not None:
            goes_on = guest == through + covered
        if goes_on and rights == shown and user == plain:
            covered += length
        else:
            yield Extent(start, covered, target, shown, plain, through)
            start, target, shown, plain, through = address, physical, rights, user, guest
            covered = length
    yield Extent(start, covered, target, shown, plain, through)


def canonical(geometry: Geometry, address: int) -> int:
    """The 64-bit input address: for the first stage the top bit that is translated, extended."""
    if geometry.kind is StageKind.FIRST and address >> geometry.width - 1:
        return address | -1 << geometry.width & (1 << 64) - 1
    return address


def show_rights(geometry: Geometry, rights: int) -> str:
    """Rights bits of a walk as ``"rw"``, ``"r-"``, ``"-w"`` or ``"--"``."""
    return _shown(geometry.read, geometry.write, rights)


@cache
def _shown(read: int, write: int, rights: int) -> str:
    return ("r" if rights & read else "-") + ("w" if rights & write else "-")


class Budget:
    """How many entries may still be looked at; None is any number."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.left = limit

    def spend(self, count: int = 1) -> None:
        """Look at so many; ListingLimitError if that is more than are left."""
        if self.left is not None:
            if self.left < count:
                raise ListingLimitError(f"listing stopped: limit of {self._limit} entries reached")
            self.left -= count


def slots(
    memory: TableMemory,
    stage: Stage,
    width: int | None,
    budget: Budget,
    refused: Refused | None,
    start: int,
    end: int | None,
) -> Iterator[tuple[int, int, int, int]]:
    """Each page of a table that meets a range: its first address there, entry, shift and rights.

    A table is looked for once, when the listing comes to it.
    """
    geometry = stage.geometry
    levels, present = geometry.levels, geometry.present
    end = listing_end(geometry, width, end)
    tables = [(0, stage.root, geometry.rights, start)]
    while tables:
        depth, frame, rights, address = tables.pop()
        shift, stop, leaf, reserved = levels[depth]
        table = read_table(memory, frame)
        last = min(((address >> shift + 9) + 1) << shift + 9, end)
        while address < last:
            after = (address >> shift) + 1 << shift
            problem: WalkRule | WalkFault | None = None
            try:
                entry = table[address >> shift & 511]
            except (BusError, WalkFault) as error:
                entry, granted, problem = 0, 0, read_problem(error)
            else:
                granted = rights & entry
                if granted & present:
                    if not entry & stop:
                        if after < last:
                            tables.append((depth, frame, rights, after))
                        tables.append((depth + 1, entry >> 12 & FRAME_NUMBER, granted, address))
                        break
                    if not entry & leaf or entry & reserved:
                        problem = WalkRule.RESERVED
            budget.spend()
            if problem is not None:
                if refused is not None:
                    tell(refused, geometry, depth, address, min(after, end) - address, problem)
            elif granted & present:
                yield address, entry, shift, granted
            address = after


def listing_end(geometry: Geometry, width: int | None, end: int | None) -> int:
    """The first input address that is not listed."""
    top = geometry.width if width is None else min(width, geometry.width)
    return 1 << top if end is None else min(end, 1 << top)


class _Unreadable:
    """A table that can't be read, in the place of its quadwords."""

    def __init__(self, error: BusError | WalkFault) -> None:
        self._error = error

    def __getitem__(self, index: int) -> int:
        raise self._error.with_traceback(None)


def read_table(memory: TableMemory, frame: int) -> FrameReader:
    """The quadwords of a table; if it can't be read, they say why when they are asked for."""
    try:
        return memory.frames[frame]
    except (BusError, WalkFault) as error:
        return _Unreadable(error)


def read_problem(error: BusError | WalkFault) -> WalkRule | WalkFault:
    """What a walk makes of the error: a rule of its own stage, or the fault of the stage below."""
    if isinstance(error, WalkFault):
        return error
    return error.rule if isinstance(error, TableRefusedError) else WalkRule.READ_ERROR


def tell(
    refused: Refused,
    geometry: Geometry,
    depth: int,
    address: int,
    length: int,
    problem: WalkRule | WalkFault,
) -> None:
    """Say what is present but can't be used."""
    if isinstance(problem, WalkRule):
        shift = geometry.levels[depth].shift
        problem = WalkFault(problem, geometry.kind, shift, depth == 0)
    if problem.rule is not WalkRule.NOT_PRESENT:
        refused(canonical(geometry, address), length, problem)
