"""Table geometry as data: levels, shifts, page sizes and the bits each level reserves.

VT-d 3.6, 3.7, 9.7, 9.8. A walk is one loop over :attr:`Geometry.levels`; what differs between
first and second stage, between 3, 4 and 5 levels and between units is in these values.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord, Implementation

PAGE_SHIFT = 12
INDEX_BITS = 9


class StageKind(Enum):
    """Which of the two stages a table belongs to."""

    FIRST = "first"
    SECOND = "second"


TABLE_RECORDS: Mapping[StageKind, type[BitRecord]] = {
    StageKind.FIRST: first_stage.FirstStageEntry,
    StageKind.SECOND: second_stage.SecondStageEntry,
}
"""The layout of an entry that points to a table."""

PAGE_RECORDS: Mapping[StageKind, Mapping[int, type[BitRecord]]] = {
    StageKind.FIRST: {
        12: first_stage.FirstStagePage4K,
        21: first_stage.FirstStagePage2M,
        30: first_stage.FirstStagePage1G,
    },
    StageKind.SECOND: {
        12: second_stage.SecondStagePage4K,
        21: second_stage.SecondStagePage2M,
        30: second_stage.SecondStagePage1G,
    },
}
"""The layout of an entry that maps a page, by log2 of the page size."""


class Level(NamedTuple):
    """What a walk needs to know of one level."""

    shift: int
    """Lowest input address bit of the index; a page mapped here has ``2**shift`` bytes."""
    stop: int
    """An entry with any of these bits set does not point to a table."""
    leaf: int
    """An entry with any of these bits set maps a page; others that stop break a reserved rule."""
    page_reserved: int
    """Bits that must be 0 in an entry that maps a page."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """One kind of page table on one unit."""

    kind: StageKind
    levels: tuple[Level, ...]
    """From the root down."""
    present: int
    """An entry with none of these bits set is not present."""
    read: int
    write: int
    user: int
    """Rights bits, ANDed over all levels; 0 where the stage has no such right."""
    rights: int
    """All of the four: what a walk starts with."""
    accessed: int
    dirty: int
    rights_at: int = field(init=False)
    """Lowest bit of the rights: reading, and writing above it."""
    width: int = field(init=False)
    """Input address bits that the levels translate: 39, 48 or 57."""
    steps: tuple[tuple[int, int, int, int], ...] = field(init=False, repr=False)
    """The levels as bare tuples, which a walk takes apart in half the time."""
    page_reserved: int = field(init=False, repr=False)
    """Bits that must be 0 in an entry that maps a page of 4 KiB."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rights_at", self.read.bit_length() - 1)
        object.__setattr__(self, "width", self.levels[0].shift + INDEX_BITS)
        object.__setattr__(self, "steps", tuple(tuple(level) for level in self.levels))
        object.__setattr__(self, "page_reserved", self.levels[-1].page_reserved)


@functools.cache
def second_stage_geometry(levels: int, implementation: Implementation) -> Geometry:
    """Second-stage tables of 3, 4 or 5 levels (3.7), ValueError for others.

    The feature ``ssirwe`` makes IR and IW the rights instead of R and W (11.4.5).
    """
    if levels not in (3, 4, 5):
        raise ValueError(f"levels: second-stage tables have 3, 4 or 5 of them, not {levels}")
    read, write = second_stage.READ, second_stage.WRITE
    if "ssirwe" in implementation.features:
        read, write = second_stage.IO_READ, second_stage.IO_WRITE
    return Geometry(
        StageKind.SECOND,
        levels_of(
            levels,
            implementation,
            TABLE_RECORDS[StageKind.SECOND],
            PAGE_RECORDS[StageKind.SECOND],
            read | write,
            second_stage.PAGE_SIZE,
        ),
        present=read | write,
        read=read,
        write=write,
        user=0,
        rights=read | write,
        accessed=second_stage.ACCESSED,
        dirty=second_stage.DIRTY,
    )


@functools.cache
def first_stage_geometry(levels: int, implementation: Implementation) -> Geometry:
    """First-stage tables of 4 or 5 levels (3.6), ValueError for others.

    There is no right to read of its own: whatever is present may be read.
    """
    if levels not in (4, 5):
        raise ValueError(f"levels: first-stage tables have 4 or 5 of them, not {levels}")
    return Geometry(
        StageKind.FIRST,
        levels_of(
            levels,
            implementation,
            TABLE_RECORDS[StageKind.FIRST],
            PAGE_RECORDS[StageKind.FIRST],
            first_stage.PRESENT,
            first_stage.PAGE_SIZE,
        ),
        present=first_stage.PRESENT,
        read=first_stage.PRESENT,
        write=first_stage.WRITE,
        user=first_stage.USER,
        rights=first_stage.PRESENT | first_stage.WRITE | first_stage.USER,
        accessed=first_stage.ACCESSED,
        dirty=first_stage.DIRTY,
    )


def levels_of(
    count: int,
    implementation: Implementation,
    table: type[BitRecord],
    pages: Mapping[int, type[BitRecord]],
    present: int,
    page_size: int,
) -> tuple[Level, ...]:
    """The levels of tables with these layouts, from the root down.

    ``pages``: the layout of an entry that maps a page, by log2 of the page size.
    """
    table_reserved = table.reserved_mask(implementation)
    levels = []
    for number in range(count, 0, -1):
        shift = PAGE_SHIFT + INDEX_BITS * (number - 1)
        leaf = page_reserved = 0
        page = pages.get(shift)
        if page is not None:
            leaf = present if shift == PAGE_SHIFT else page_size
            page_reserved = page.reserved_mask(implementation)
        levels.append(Level(shift, leaf | table_reserved, leaf, page_reserved))
    return tuple(levels)
