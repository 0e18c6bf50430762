"""What a page table maps: every page, and the merged ranges.

VT-d 3.6 to 3.8. The listing asks the walk itself, address after address, and so obeys every rule
of it; it sets no flags. Nested tables list the way from input address over guest physical address
to host physical address. Everything is lazy: a table that points to itself has 2^36 pages and
more. Left out: rules outside the tables, such as the interrupt range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pagetables.geometry import Geometry, StageKind
from pagetables.memory import TableMemory
from pagetables.nested import GuestMemory
from pagetables.unchanged import UnchangedMemory
from pagetables.walk import ADDRESS, Leaf, Stage, WalkFault, WalkRule, walk

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
    geometry = stage.geometry
    for address, (entry, shift, rights, _) in _walks(memory, stage, width, _Budget(limit), refused):
        yield Page(
            canonical(geometry, address),
            1 << shift,
            entry & ADDRESS & -(1 << shift),
            show_rights(geometry, rights),
            rights & geometry.user == geometry.user,
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
    unchanged = UnchangedMemory(memory)
    guest = GuestMemory(unchanged, second, width, lambda gpa: walk(unchanged, second, gpa))
    budget = _Budget(limit)
    host = second._replace(accessed=0, dirty=0)
    for address, (entry, shift, rights, _) in _walks(guest, first, None, budget, refused):
        start = entry & ADDRESS & -(1 << shift)
        outer = show_rights(first.geometry, rights)
        if start >> width:
            if refused is not None:
                fault = WalkFault(WalkRule.TABLE_BEYOND_WIDTH, StageKind.FIRST, shift, top=False)
                refused(canonical(first.geometry, address), 1 << shift, fault)
            continue

        def tell(gpa: int, length: int, fault: WalkFault, back: int = address - start) -> None:
            if refused is not None:
                refused(canonical(first.geometry, gpa + back), length, fault)

        pages = _walks(memory, host, width, budget, tell, start, start + (1 << shift))
        for gpa, (second_entry, second_shift, second_rights, _) in pages:
            inner = show_rights(second.geometry, second_rights)
            shown = inner[0] + ("w" if outer[1] == inner[1] == "w" else "-")
            if shown == "--":
                continue
            size = 1 << min(shift, second_shift)
            offset = gpa & (1 << second_shift) - 1
            yield Page(
                canonical(first.geometry, address + gpa - start),
                size,
                (second_entry & ADDRESS & -(1 << second_shift)) + offset,
                shown,
                rights & first.geometry.user == first.geometry.user,
                gpa,
                entry,
                second_entry,
            )


def merge(pages: Iterable[Page]) -> Iterator[Extent]:
    """Join neighbours that map to neighbours, in every stage, with the same rights."""
    last: Extent | None = None
    for page in pages:
        here = Extent(page.address, page.length, page.physical, page.rights, page.user, page.guest)
        if last is not None and _continues(last, here):
            last = last._replace(length=last.length + here.length)
            continue
        if last is not None:
            yield last
        last = here
    if last is not None:
        yield last


def canonical(geometry: Geometry, address: int) -> int:
    """The 64-bit input address: for the first stage the top bit that is translated, extended."""
    if geometry.kind is StageKind.FIRST and address >> geometry.width - 1:
        return address | -1 << geometry.width & (1 << 64) - 1
    return address


def show_rights(geometry: Geometry, rights: int) -> str:
    """Rights bits of a walk as ``"rw"``, ``"r-"``, ``"-w"`` or ``"--"``."""
    return ("r" if rights & geometry.read else "-") + ("w" if rights & geometry.write else "-")


class _Budget:
    """How many entries may still be looked at."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._used = 0

    def spend(self) -> None:
        if self._used == self._limit:
            raise ListingLimitError(f"listing stopped: limit of {self._limit} entries reached")
        self._used += 1


def _walks(
    memory: TableMemory,
    stage: Stage,
    width: int | None,
    budget: _Budget,
    refused: Refused | None,
    start: int = 0,
    end: int | None = None,
) -> Iterator[tuple[int, Leaf]]:
    """Each page of a table that meets a range: the first address in the range, and the leaf.

    Every walk starts at the deepest table of the walk before that covers the address too.
    """
    geometry = stage.geometry
    stage = stage._replace(accessed=0, dirty=0)
    top = geometry.width if width is None else min(width, geometry.width)
    address, end = start, min(1 << top, 1 << top if end is None else end)
    tables: list[tuple[int, int, int]] = []

    def visit(shift: int, frame: int, rights: int) -> None:
        tables.append((shift, frame, rights))

    while address < end:
        budget.spend()
        resume = (len(tables), *tables[-1][1:]) if tables else None
        leaf = fault = None
        try:
            leaf = walk(memory, stage, address, visit, resume)
        except WalkFault as error:
            fault = error
        shift = geometry.levels[len(tables)].shift
        after = min((address >> shift) + 1 << shift, end)
        if leaf is not None:
            yield address, leaf
        elif fault is not None and refused is not None and fault.rule is not WalkRule.NOT_PRESENT:
            refused(canonical(geometry, address), after - address, fault)
        address = after
        while tables and not address & (1 << tables[-1][0]) - 1:
            tables.pop()


def _continues(last: Extent, here: Extent) -> bool:
    return here == last._replace(
        address=last.address + last.length,
        length=here.length,
        physical=last.physical + last.length,
        guest=None if last.guest is None else last.guest + last.length,
    )
