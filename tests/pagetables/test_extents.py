"""Listings: every page that a walk finds and no other, merged ranges, and the captures' truth."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import Implementation
from pagetables.build import FramePool, TableBuilder
from pagetables.extents import (
    Extent,
    ListingLimitError,
    Page,
    canonical,
    guest_memory,
    leaves,
    merge,
    nested_leaves,
    show_rights,
)
from pagetables.geometry import StageKind, first_stage_geometry, second_stage_geometry
from pagetables.images import load_capture
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage, WalkFault, WalkRule, place, walk
from tests.support import oracle
from tests.support.reference_data import capture_folders
from tests.support.strategies import (
    POOL,
    NestedScene,
    Scene,
    addresses,
    geometry_of,
    hostile_scenes,
    nested_scenes,
    setups,
)

PAGE, BIG, HUGE = 1 << 12, 1 << 21, 1 << 30
UNIT = Implementation(46, 16, frozenset({"sslps_2m", "sslps_1g", "fs1gp"}))
FIRST, SECOND = first_stage_geometry(4, UNIT), second_stage_geometry(4, UNIT)
ENTRIES = 6000
"""How far hostile tables are listed."""


def listed(pages: Iterator[Page]) -> list[Page]:
    """The pages up to the limit."""
    found: list[Page] = []
    with suppress(ListingLimitError):
        found.extend(pages)
    return found


def rights_of(mapped: oracle.Mapped) -> str:
    return ("r" if mapped.read else "-") + ("w" if mapped.write else "-")


@given(hostile_scenes(), st.sampled_from(StageKind), st.data())
def test_what_is_listed_is_what_the_oracle_translates(
    scene: Scene, kind: StageKind, data: st.DataObject
) -> None:
    setup = data.draw(setups(kind, POOL[0]))
    geometry = setup.stage.geometry
    memory = scene.memory()
    before = memory.snapshot()
    pages = listed(leaves(memory, setup.stage, limit=ENTRIES))
    assert memory.snapshot() == before
    plain = oracle.Tables(
        kind.value, setup.tables.levels, setup.tables.root, setup.tables.haw, setup.tables.features
    )
    words = scene.words()
    for page in pages[:40] + pages[-40:]:
        mapped = oracle.translate(words, plain, page.address)
        assert isinstance(mapped, oracle.Mapped)
        assert (mapped.physical, mapped.size) == (page.physical, page.length)
        assert (rights_of(mapped), mapped.user) == (page.rights, page.user)
        assert words.read(mapped.entry_at) == page.entry
    last = pages[-1].address + pages[-1].length if pages else 0
    for address in data.draw(st.lists(addresses(setup.tables.levels), max_size=8)):
        mapped = oracle.translate(words, plain, address)
        at = canonical(geometry, address)
        if at < last and isinstance(mapped, oracle.Mapped) and rights_of(mapped) != "--":
            assert any(page.address <= at < page.address + page.length for page in pages)


@given(nested_scenes(), st.data())
def test_what_is_listed_through_both_stages_is_what_the_oracle_translates(
    scene: NestedScene, data: st.DataObject
) -> None:
    first, second, width = scene.first.stage, scene.second.stage, scene.nesting.width
    memory = scene.scene.memory()
    before = memory.snapshot()
    pages = listed(nested_leaves(memory, first, second, width, limit=2000))
    assert memory.snapshot() == before
    tables = replace(scene.first.tables, flags=False)
    for page in pages[:20] + pages[-20:]:
        words = oracle.Words(frozenset(scene.scene.frames), scene.scene.words().words)
        nesting = replace(scene.nesting, second=replace(scene.second.tables, snooped=True))
        mapped = oracle.translate(words, tables, page.address, nesting)
        assert isinstance(mapped, oracle.Mapped)
        assert (mapped.physical, mapped.size) == (page.physical, page.length)
        assert (rights_of(mapped), mapped.user) == (page.rights, page.user)
    last = pages[-1].address + pages[-1].length if pages else 0
    for address in data.draw(st.lists(addresses(tables.levels), max_size=8)):
        mapped = oracle.translate(scene.scene.words(), tables, address, scene.nesting)
        at = canonical(first.geometry, address)
        if at < last and isinstance(mapped, oracle.Mapped) and rights_of(mapped) != "--":
            assert any(page.address <= at < page.address + page.length for page in pages)


def make_tables(geometry_kind: StageKind) -> tuple[PhysicalMemory, TableBuilder, Stage]:
    memory = PhysicalMemory()
    memory.add_region(0x100_0000, 256 * PAGE)
    pool = FramePool(0x100_0000, 0x100_0000 + 256 * PAGE)
    builder = TableBuilder(memory, geometry_of(geometry_kind, 4, UNIT), pool)
    return memory, builder, Stage(geometry_of(geometry_kind, 4, UNIT), builder.root)


def test_neighbours_merge_if_they_continue_each_other_with_the_same_rights() -> None:
    memory, builder, stage = make_tables(StageKind.SECOND)
    builder.map(0, BIG, BIG)  # one 2 MiB page ...
    builder.map(BIG, 2 * BIG, 3 * PAGE)  # ... goes on in small ones
    builder.map(BIG + 3 * PAGE, 2 * BIG + 3 * PAGE, PAGE, "r-")  # other rights
    builder.map(BIG + 4 * PAGE, 9 * BIG, PAGE, "r-")  # elsewhere
    builder.map(BIG + 6 * PAGE, 9 * BIG + 2 * PAGE, PAGE, "-w")  # after a hole
    assert list(merge(leaves(memory, stage))) == [
        Extent(0, BIG + 3 * PAGE, BIG, "rw", True, None),
        Extent(BIG + 3 * PAGE, PAGE, 2 * BIG + 3 * PAGE, "r-", True, None),
        Extent(BIG + 4 * PAGE, PAGE, 9 * BIG, "r-", True, None),
        Extent(BIG + 6 * PAGE, PAGE, 9 * BIG + 2 * PAGE, "-w", True, None),
    ]


def test_first_stage_addresses_are_canonical_and_users_are_told_apart() -> None:
    memory, builder, stage = make_tables(StageKind.FIRST)
    top = (1 << 64) - 2 * PAGE
    builder.map((1 << 47) - PAGE, 0, PAGE)
    builder.map(top, 0x4000, PAGE, user=False)
    builder.map(top + PAGE, 0x5000, PAGE, "r-")
    assert list(merge(leaves(memory, stage))) == [
        Extent((1 << 47) - PAGE, PAGE, 0, "rw", True, None),
        Extent(top, PAGE, 0x4000, "rw", False, None),
        Extent(top + PAGE, PAGE, 0x5000, "r-", True, None),
    ]
    assert [page.entry for page in leaves(memory, stage)] == [7, 0x4003, 0x5005]


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("top", range(4))
@given(below=st.integers(0, (1 << 46) - 1))
@pytest.mark.section("3.6")
def test_a_first_stage_address_is_extended_by_its_top_bit(
    levels: int, top: int, below: int
) -> None:
    geometry = first_stage_geometry(levels, UNIT)
    whole = 1 << geometry.width
    address = top * whole // 4 + below
    signed = address if address < whole // 2 else address - whole
    assert canonical(geometry, address) == signed % (1 << 64)
    assert canonical(second_stage_geometry(levels, UNIT), address) == address


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["rw", "r-"]))))
def test_merging_loses_no_page_and_leaves_no_neighbours(pages: list[tuple[int, str]]) -> None:
    given_pages = [
        Page(number * PAGE, PAGE, physical * PAGE, rights, True, None, 0, None)
        for number, (physical, rights) in enumerate(pages)
    ]
    extents = list(merge(given_pages))
    spread = [
        (extent.address + offset, extent.physical + offset, extent.rights)
        for extent in extents
        for offset in range(0, extent.length, PAGE)
    ]
    assert spread == [(page.address, page.physical, page.rights) for page in given_pages]
    for one, other in pairwise(extents):
        assert (one.physical + one.length, one.rights) != (other.physical, other.rights)


def test_nested_pages_are_as_large_as_both_stages_allow_and_say_where_they_pass() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x100_0000, 64 * PAGE)
    memory.add_region(HUGE, BIG)
    outer = TableBuilder(memory, SECOND, FramePool(0x100_0000, 0x100_0000 + 64 * PAGE))
    outer.map(0, HUGE, BIG)
    outer.map(BIG, 5 * BIG, BIG)
    outer.map(2 * BIG, 8 * BIG, PAGE, "r-")
    outer.map(2 * BIG + PAGE, 8 * BIG + 5 * PAGE, PAGE, "-w")
    inner = TableBuilder(memory, FIRST, FramePool(0, BIG), translate=lambda gpa: HUGE + gpa)
    inner.map(0x4000_0000, BIG, 2 * BIG)  # two superpages, the second one full of holes
    inner.map(0x5000_0000, BIG + 3 * PAGE, PAGE, "r-")
    inner.map(0x5800_0000, 2 * BIG + PAGE, PAGE, "r-")  # which the second stage makes nothing
    inner.map(0x6000_0000, 1 << 40, PAGE)  # beyond the guest's address width
    first, second = Stage(FIRST, inner.root), Stage(SECOND, outer.root)
    outer.map(2 * BIG + 2 * PAGE, 0, PAGE)
    leaf = entry, _, _, _, _ = walk(memory, second, 2 * BIG + 2 * PAGE)
    where = place(leaf)
    memory.write(where, (entry | 1 << 50).to_bytes(8, "little"))
    refused: list[tuple[int, int, WalkRule]] = []

    def tell(address: int, length: int, fault: WalkFault) -> None:
        refused.append((address, length, fault.rule))
        assert not fault.top

    pages = list(nested_leaves(memory, first, second, 39, refused=tell))
    assert [page[:6] for page in pages] == [
        (0x4000_0000, BIG, 5 * BIG, "rw", True, BIG),
        (0x4000_0000 + BIG, PAGE, 8 * BIG, "r-", True, 2 * BIG),
        (0x4000_0000 + BIG + PAGE, PAGE, 8 * BIG + 5 * PAGE, "-w", True, 2 * BIG + PAGE),
        (0x5000_0000, PAGE, 5 * BIG + 3 * PAGE, "r-", True, BIG + 3 * PAGE),
    ]
    assert pages[0].entry == BIG | 0x87
    assert pages[0].second_entry == 5 * BIG | 0x83
    assert refused == [
        (0x4000_0000 + BIG + 2 * PAGE, PAGE, WalkRule.RESERVED),
        (0x6000_0000, PAGE, WalkRule.TABLE_BEYOND_WIDTH),
    ]


@pytest.mark.section("3.8.1")
def test_a_guest_table_that_the_second_stage_refuses_is_reported_with_that_fault() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x100_0000, 64 * PAGE)
    memory.add_region(HUGE, BIG)
    outer = TableBuilder(memory, SECOND, FramePool(0x100_0000, 0x100_0000 + 64 * PAGE))
    outer.map(0, HUGE, 8 * PAGE)
    inner = TableBuilder(memory, FIRST, FramePool(0, BIG), translate=lambda gpa: HUGE + gpa)
    inner.map(0, 0x4000, PAGE)
    first, second = Stage(FIRST, inner.root), Stage(SECOND, outer.root)
    guest = guest_memory(memory, second, 39)
    _, _, _, table, _ = walk(guest, first, 0)
    leaf = entry, _, _, _, _ = walk(memory, second, table << 12)
    memory.write(place(leaf), (entry | 1 << 50).to_bytes(8, "little"))
    with pytest.raises(WalkFault) as met:
        walk(guest_memory(memory, second, 39), first, 0)
    assert (met.value.rule, met.value.kind) == (WalkRule.RESERVED, StageKind.SECOND)
    refused: list[tuple[int, int, WalkRule, StageKind]] = []

    def tell(address: int, length: int, fault: WalkFault) -> None:
        refused.append((address, length, fault.rule, fault.kind))

    assert not list(nested_leaves(memory, first, second, 39, refused=tell))
    assert refused == [
        (number * PAGE, PAGE, WalkRule.RESERVED, StageKind.SECOND) for number in range(512)
    ]


def test_a_table_that_points_to_itself_is_listed_lazily_and_within_limits() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, PAGE)
    memory.load(0x1000, (0x1000 | 3).to_bytes(8, "little") * 512)
    stage = Stage(SECOND, 1)
    first_pages = list(islice(leaves(memory, stage), 3))
    assert [page.address for page in first_pages] == [0, PAGE, 2 * PAGE]
    assert next(merge(islice(leaves(memory, stage), 3))).physical == 0x1000
    with pytest.raises(ListingLimitError, match="limit of 1000 entries"):
        list(leaves(memory, stage, limit=1000))
    with pytest.raises(ListingLimitError):
        list(leaves(memory, stage, limit=0))


def test_only_addresses_below_the_width_are_listed() -> None:
    memory, builder, stage = make_tables(StageKind.SECOND)
    builder.map((1 << 39) - PAGE, 0, 2 * PAGE)
    assert [page.address for page in leaves(memory, stage, width=39)] == [(1 << 39) - PAGE]
    assert len(list(leaves(memory, stage, width=60))) == 2


def test_entries_that_can_not_be_used_are_reported() -> None:
    memory, builder, stage = make_tables(StageKind.SECOND)
    builder.map(0, 0, 3 * PAGE)
    table = 0x100_3000
    memory.write(table + 8, (0x1000 | 3 | 1 << 50).to_bytes(8, "little"))
    memory.write(builder.root << 12 | 8, (0x7000_0000 | 3).to_bytes(8, "little"))
    refused: list[tuple[int, int, str]] = []
    pages = leaves(
        memory, stage, refused=lambda *what: refused.append((what[0], what[1], what[2].rule.name))
    )
    assert [page.address for page in pages] == [0, 2 * PAGE]
    assert refused[0] == (PAGE, PAGE, "RESERVED")
    assert refused[1:] == [((1 << 39) + number * HUGE, HUGE, "READ_ERROR") for number in range(512)]


def test_the_tables_of_every_capture_are_listed_as_recorded() -> None:
    folders = capture_folders()
    assert folders
    for folder in folders:
        memory = PhysicalMemory()
        load_capture(memory, folder)
        with gzip.open(folder / "mappings.json.gz") as file:
            tables = json.load(file)["tables"]
        for name, table in tables.items():
            kind, levels, root = name.split(":")
            geometry = geometry_of(StageKind(kind), int(levels), UNIT)
            pages = leaves(memory, Stage(geometry, int(root, 16) >> 12))
            got = [
                [hex(number) for number in page[:3]] + [page.rights, hex(page.entry)]
                for page in pages
            ]
            assert got == [leaf[:5] for leaf in table["leaves"]], (folder.name, name)


@pytest.mark.parametrize("guest", [0x9000, 0x7000, None])
def test_a_range_goes_on_where_the_guest_s_does(guest: int | None) -> None:
    first = Extent(0x4000, 0x1000, 0x10_0000, "rw", True, 0x8000)
    then = Extent(0x5000, 0x3000, 0x10_1000, "rw", True, guest)
    assert first.goes_on_with(then) == (guest == 0x9000)


@pytest.mark.parametrize("kind", StageKind)
def test_rights_are_shown_by_the_bits_of_their_stage(kind: StageKind) -> None:
    geometry = geometry_of(kind, 4, UNIT)
    shown = {
        show_rights(geometry, read | write)
        for read in (0, geometry.read)
        for write in (0, geometry.write)
    }
    assert shown == {"--", "r-", "-w", "rw"}
    assert show_rights(geometry, geometry.read) == "r-"
    assert show_rights(geometry, geometry.write) == "-w"
