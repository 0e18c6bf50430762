"""Columns against the listing page by page: the same pages, ranges, refusals and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables import columns, extents
from pagetables.bits import Implementation
from pagetables.build import FramePool, TableBuilder
from pagetables.columns import Columns
from pagetables.extents import ListingLimitError, Page
from pagetables.geometry import StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage, WalkFault, place, walk
from tests.support.strategies import (
    POOL,
    NestedScene,
    Path,
    Scene,
    geometry_of,
    hostile_scenes,
    nested_scenes,
    setups,
    valid_paths,
)

PAGE, PS, RESERVED = 1 << 12, np.uint64(1 << 7), 1 << 50
UNIT = Implementation(46, 16, frozenset({"sslps_2m", "sslps_1g", "fs1gp"}))
limits = st.one_of(st.integers(0, 40), st.integers(0, 4000), st.just(5000))

Listed = tuple[list[Page], list[tuple[int, int, Any, int, bool]], bool]


def heard(listing: Callable[[extents.Refused], Iterator[Page]]) -> Listed:
    """The pages, what was refused, and whether the limit was reached."""
    refused: list[tuple[int, int, Any, int, bool]] = []
    pages: list[Page] = []

    def tell(address: int, length: int, fault: WalkFault) -> None:
        refused.append((address, length, (fault.rule, fault.kind), fault.shift, fault.top))

    try:
        pages.extend(listing(tell))
    except ListingLimitError as error:
        assert str(error).startswith("listing stopped: limit of ")
        return pages, refused, True
    return pages, refused, False


def spread(pieces: Iterator[Columns]) -> Iterator[Page]:
    for piece in pieces:
        yield from piece.pages()


def check_one_stage(
    memory: PhysicalMemory, stage: Stage, width: int | None, limit: int | None
) -> Listed:
    plain = heard(
        lambda tell: extents.leaves(memory, stage, width=width, limit=limit, refused=tell)
    )
    fast = heard(
        lambda tell: spread(columns.columns(memory, stage, width=width, limit=limit, refused=tell))
    )
    assert fast == plain
    return plain


def check_both_stages(
    memory: PhysicalMemory, first: Stage, second: Stage, width: int, limit: int | None
) -> None:
    plain = heard(
        lambda tell: extents.nested_leaves(memory, first, second, width, limit=limit, refused=tell)
    )
    fast = heard(
        lambda tell: spread(
            columns.nested_columns(memory, first, second, width, limit=limit, refused=tell)
        )
    )
    assert fast == plain


@given(hostile_scenes(), st.sampled_from(StageKind), st.data())
def test_columns_hold_the_pages_of_hostile_tables(
    scene: Scene, kind: StageKind, data: st.DataObject
) -> None:
    setup = data.draw(setups(kind, POOL[0]))
    width = data.draw(st.sampled_from([None, 39, 46, 64]))
    check_one_stage(scene.memory(), setup.stage, width, data.draw(limits))


@given(valid_paths(), st.sampled_from([None, 5000]))
def test_columns_hold_the_only_page_of_a_table(path: Path, limit: int | None) -> None:
    pages, refused, _ = check_one_stage(path.scene.memory(), path.setup.stage, None, limit)
    assert len(pages) == 1
    assert not refused


@given(nested_scenes(), limits)
def test_columns_hold_the_pages_of_hostile_nested_tables(scene: NestedScene, limit: int) -> None:
    memory = scene.scene.memory()
    before = memory.snapshot()
    check_both_stages(memory, scene.first.stage, scene.second.stage, scene.nesting.width, limit)
    assert memory.snapshot() == before


Range = tuple[int, int, int, str, bool]
"""Page, page that it is mapped to, how many, rights, whether users may."""
DIFFERENT: list[Range] = [
    (0, 0, 4, "rw", True),
    (4, 8, 4, "rw", True),
    (8, 12, 2, "r-", True),
    (10, 14, 2, "r-", False),
    (13, 17, 2, "r-", False),
]
"""Ranges of which each goes on where the last one ends, but for one thing."""
mapped = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 3, 510, 511, 512, 1024, (1 << 18) - 1, 1 << 18]),
        st.integers(0, 600),
        st.integers(1, 520),
        st.sampled_from(["rw", "r-", "-w"]),
        st.booleans(),
    ),
    max_size=6,
)
spoilt = st.lists(st.integers(0, 600).map(lambda page: page << 12), max_size=4)


def tables(kind: StageKind, ranges: list[Range], memory: PhysicalMemory, at: int) -> Stage:
    """Ordinary tables: the later mapping of a page is left out."""
    geometry = geometry_of(kind, 4, UNIT)
    builder = TableBuilder(memory, geometry, FramePool(at, at + (256 << 12)))
    taken: set[int] = set()
    for page, target, count, rights, user in ranges:
        pages = set(range(page, page + count))
        if taken & pages:
            continue
        taken |= pages
        if kind is StageKind.FIRST:
            known = "rw" if rights == "-w" else rights
            builder.map(page << 12, target << 12, count << 12, known, user=user)
        else:
            builder.map(page << 12, target << 12, count << 12, rights)
    return Stage(geometry, builder.root)


def spoil(memory: PhysicalMemory, stage: Stage, addresses: list[int]) -> None:
    """Set a reserved bit in the entries of pages."""
    for address in addresses:
        with suppress(WalkFault):
            leaf = walk(memory, stage, address)
            entry, where = leaf[0], place(leaf)
            memory.write(where, (entry | RESERVED).to_bytes(8, "little"))


@given(mapped, spoilt, st.sampled_from(StageKind), st.one_of(st.none(), st.integers(0, 3000)))
def test_columns_of_ordinary_tables_merge_to_the_same_ranges(
    ranges: list[Range],
    bad: list[int],
    kind: StageKind,
    limit: int | None,
) -> None:
    check_ranges(kind, ranges, bad, limit)


@pytest.mark.parametrize("kind", StageKind)
def test_columns_of_pages_that_differ_in_one_thing_merge_to_the_same_ranges(
    kind: StageKind,
) -> None:
    check_ranges(kind, DIFFERENT, [6 * PAGE], None)


@pytest.mark.parametrize("kind", StageKind)
def test_a_large_page_comes_before_the_small_ones_behind_it(kind: StageKind) -> None:
    check_ranges(kind, [(0, 0, 512, "rw", True), (513, 7, 3, "rw", True)], [], None)


@pytest.mark.parametrize("kind", StageKind)
def test_pieces_share_one_limit(kind: StageKind) -> None:
    memory = PhysicalMemory()
    memory.add_region(1 << 30, 256 << 12)
    count = columns.TOGETHER + 4
    ranges = [(512 * table, table, 1, "rw", True) for table in range(count)]
    stage = tables(kind, ranges, memory, 1 << 30)
    pages, _, reached = check_one_stage(memory, stage, None, 512 * (count - 1))
    assert reached and len(pages) >= columns.TOGETHER


def check_ranges(kind: StageKind, ranges: list[Range], bad: list[int], limit: int | None) -> None:
    memory = PhysicalMemory()
    memory.add_region(1 << 30, 256 << 12)
    stage = tables(kind, ranges, memory, 1 << 30)
    spoil(memory, stage, bad)
    check_one_stage(memory, stage, None, limit)
    assert list(columns.merge(columns.columns(memory, stage))) == list(
        extents.merge(extents.leaves(memory, stage))
    )


@given(mapped, mapped, spoilt, spoilt, st.one_of(st.none(), st.integers(0, 8000)))
def test_columns_of_ordinary_nested_tables_merge_to_the_same_ranges(
    inner: list[Range],
    outer: list[Range],
    bad_inner: list[int],
    bad_outer: list[int],
    limit: int | None,
) -> None:
    check_nested_ranges(inner, outer, bad_inner, bad_outer, limit)


def test_columns_of_nested_pages_that_differ_in_one_thing_merge_to_the_same_ranges() -> None:
    beyond = (24, 1 << 40 - 12, 2, "rw", True)
    outer = [(0, 7, 9, "rw", True), (9, 40, 3, "r-", True), (512, 1024, 512, "rw", True)]
    inner = [*DIFFERENT, beyond, (28, 520, 4, "rw", True)]
    check_nested_ranges(inner, outer, [6 * PAGE], [3 * PAGE], None)


def check_nested_ranges(
    inner: list[Range],
    outer: list[Range],
    bad_inner: list[int],
    bad_outer: list[int],
    limit: int | None,
) -> None:
    memory = PhysicalMemory()
    memory.add_region(1 << 30, 256 << 12)
    memory.add_region(1 << 31, 256 << 12)  # the guest's tables, which it sees where they are
    seen = (1 << 31) >> 12
    second = tables(StageKind.SECOND, [(seen, seen, 256, "rw", True), *outer], memory, 1 << 30)
    first = tables(StageKind.FIRST, inner, memory, 1 << 31)
    spoil(memory, first, bad_inner)
    spoil(memory, second, bad_outer)
    check_both_stages(memory, first, second, 39, limit)
    assert list(columns.merge(columns.nested_columns(memory, first, second, 39))) == list(
        extents.merge(extents.nested_leaves(memory, first, second, 39))
    )


def test_a_table_that_points_to_itself_is_listed_piece_by_piece() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, PAGE)
    memory.load(0x1000, (0x1000 | 3).to_bytes(8, "little") * 512)
    piece = next(columns.columns(memory, Stage(geometry_of(StageKind.SECOND, 4, UNIT), 1)))
    assert len(piece.address) == columns.TOGETHER * 512
    assert (piece.physical == 0x1000).all()
    assert (piece.address == np.arange(len(piece.address), dtype=np.uint64) * PAGE).all()


def test_large_pages_of_nested_tables_are_listed_by_the_small_pages_below() -> None:
    memory = PhysicalMemory()
    memory.add_region(1 << 30, 256 << 12)
    memory.add_region(1 << 31, 256 << 12)
    seen = (1 << 31) >> 12
    outer = [(seen, seen, 256, "rw", True), (1024, 1, 1500, "rw", True)]
    second = tables(StageKind.SECOND, outer, memory, 1 << 30)
    first = tables(StageKind.FIRST, [(0, 1024, 1024, "rw", True)], memory, 1 << 31)
    check_both_stages(memory, first, second, 39, None)
    pieces = list(columns.nested_columns(memory, first, second, 39))
    assert [len(piece.address) for piece in pieces] == [512, 512]
    assert {int(size) for piece in pieces for size in piece.length} == {PAGE}


@pytest.mark.parametrize("kind", StageKind)
def test_entries_that_are_not_present_are_no_pages_whatever_else_they_say(kind: StageKind) -> None:
    memory = PhysicalMemory()
    memory.add_region(1 << 30, 256 << 12)
    stage = tables(kind, [(0, 0, 1, "rw", True)], memory, 1 << 30)
    for frame, data in memory.snapshot().items():
        entries = np.frombuffer(data, np.uint64)
        memory.load(frame << 12, np.where(entries == 0, PS, entries).tobytes())
    listed, refused, _ = check_one_stage(memory, stage, None, None)
    assert [page.address for page in listed] == [0]
    assert not refused


@pytest.mark.parametrize("levels", [4, 5])
def test_pages_at_the_edges_of_both_halves_of_the_address_space_are_canonical(levels: int) -> None:
    geometry = first_stage_geometry(levels, UNIT._replace(features=UNIT.features | {"fs5lp"}))
    memory, half = PhysicalMemory(), 1 << geometry.width - 1
    memory.add_region(0, 1 << 20)
    builder = TableBuilder(memory, geometry, FramePool(0, 1 << 20))
    edges = (0, half // 2, half - PAGE, (1 << 64) - half, (1 << 64) - PAGE)
    for address in edges:
        builder.map(address, 0x8000, PAGE)
    listed, _, _ = check_one_stage(memory, Stage(geometry, builder.root), None, None)
    assert tuple(page.address for page in listed) == edges


@pytest.mark.parametrize("width", [30, 39])
def test_what_begins_at_the_width_is_not_listed(width: int) -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 64 * PAGE)
    geometry = second_stage_geometry(4, UNIT)
    builder = TableBuilder(memory, geometry, FramePool(0, 64 * PAGE))
    builder.map((1 << width) - PAGE, 0, PAGE)
    builder.map(1 << width, 0, 1 << 30)
    pages, _, _ = check_one_stage(memory, Stage(geometry, builder.root), width, None)
    assert [page.address for page in pages] == [(1 << width) - PAGE]


NEIGHBOURS = {
    "address": (0x4000, 0x5000, 0x6000),
    "physical": (0x8000, 0x9000, 0xB000),
    "rights": (1, 1, 3),
    "user": (True, True, False),
    "guest": (0xC000, 0xD000, 0xF000),
}
"""Of two pages, the second such that it continues the first, and such that it doesn't."""


@pytest.mark.parametrize("other", [None, *NEIGHBOURS])
def test_pages_are_one_range_where_they_go_on_in_every_respect(other: str | None) -> None:
    first = {name: values[0] for name, values in NEIGHBOURS.items()}
    second = {name: values[2 if name == other else 1] for name, values in NEIGHBOURS.items()}
    length = np.array([PAGE, PAGE], dtype=np.uint64)
    fields: dict[str, Any] = {
        name: np.array([first[name], second[name]], dtype=np.uint64) for name in NEIGHBOURS
    }
    fields |= {"rights": fields["rights"].astype(np.uint8), "user": fields["user"] != 0}
    piece = Columns(length=length, entry=length, second_entry=length, **fields)
    merged = list(columns.merge([piece]))
    assert merged == list(extents.merge(piece.pages()))
    assert len(merged) == (1 if other is None else 2)
