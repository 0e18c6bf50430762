"""The builder: what is mapped can be walked, and sequences of changes follow a dict of pages."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pagetables.bits import Implementation
from pagetables.build import BuildError, Change, FramePool, TableBuilder
from pagetables.extents import leaves
from pagetables.geometry import Geometry, StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.nested import GuestMemory
from pagetables.walk import ADDRESS, Stage, WalkFault, place, walk
from tests.support import oracle
from tests.support.strategies import geometries

PAGE, BIG, HUGE = 1 << 12, 1 << 21, 1 << 30
TABLES = 0x100_0000
ALL_SIZES = Implementation(46, 16, frozenset({"sslps_2m", "sslps_1g", "fs1gp", "sc"}))
SMALL_ONLY = Implementation(46, 16)


class Bench:
    """Memory, a pool of frames and a builder."""

    def __init__(
        self, geometry: Geometry, *, frames: int = 512, largest: int = 30, preset: int = 0
    ) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(TABLES, frames * PAGE)
        self.pool = FramePool(TABLES, TABLES + frames * PAGE)
        self.builder = TableBuilder(
            self.memory, geometry, self.pool, largest=largest, preset=preset
        )
        self.stage = Stage(geometry, self.builder.root)

    def listing(self) -> list[tuple[int, int, int, str]]:
        """What is mapped: address, length, physical address, rights."""
        return [page[:4] for page in leaves(self.memory, self.stage)]


def physical(memory: PhysicalMemory, stage: Stage, address: int) -> int:
    entry, shift, _, _, _ = walk(memory, stage, address)
    return entry & ADDRESS & -(1 << shift) | address & (1 << shift) - 1


@given(geometries(), st.data())
def test_what_is_mapped_is_found_by_the_walk(geometry: Geometry, data: st.DataObject) -> None:
    bench = Bench(geometry, frames=40)
    unit = data.draw(st.sampled_from([PAGE, BIG, HUGE]))
    half = (1 << geometry.width) >> (geometry.kind is StageKind.FIRST)
    pages = data.draw(st.integers(1, 3))
    address = data.draw(st.integers(0, half // unit - pages)) * unit
    target = data.draw(st.integers(0, (1 << 39) // unit - pages)) * unit
    length = pages * unit
    try:
        bench.builder.map(address, target, length)
    except BuildError as error:
        assert "out of table frames" in str(error)  # 1 GiB in small pages does not fit the pool
        assert bench.listing() == []
        assert bench.pool.used == 1
        return
    for offset in (0, length // 2, length - 1):
        assert physical(bench.memory, bench.stage, address + offset) == target + offset
    for outside in (address - 1, address + length):
        if 0 <= outside < 1 << geometry.width:
            with pytest.raises(WalkFault, match="not present"):
                walk(bench.memory, bench.stage, outside)
    assert bench.builder.unmap(address, length) == length
    assert bench.pool.used == 1


WINDOW = 4 * BIG
FIRST_BASES = (0, HUGE - 2 * BIG, (1 << 64) - WINDOW)


class BuilderAgainstADict(RuleBasedStateMachine):
    """Random map, unmap and protect in a window of 8 MiB, compared with a dict of 4 KiB pages."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, tuple[int, str]] = {}

    @initialize(
        kind=st.sampled_from(StageKind),
        large=st.booleans(),
        base=st.sampled_from(FIRST_BASES),
    )
    def start(self, kind: StageKind, large: bool, base: int) -> None:
        self.first = kind is StageKind.FIRST
        make = first_stage_geometry if self.first else second_stage_geometry
        self.base = base if self.first else base % (1 << 48)
        self.bench = Bench(make(4, ALL_SIZES if large else SMALL_ONLY), frames=16)

    def span(self, data: st.DataObject) -> tuple[int, int]:
        unit = data.draw(st.sampled_from([PAGE, BIG]))
        start = data.draw(st.integers(0, WINDOW // unit - 1))
        count = data.draw(st.integers(1, min(WINDOW // unit - start, 4)))
        return self.base + start * unit, count * unit

    def rights(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(["rw", "r-"] if self.first else ["rw", "r-", "-w"]))

    @rule(data=st.data())
    def map(self, data: st.DataObject) -> None:
        address, length = self.span(data)
        target = data.draw(st.sampled_from([0, PAGE, BIG, 5 * BIG]))
        rights = self.rights(data)
        pages = range(address, address + length, PAGE)
        taken = [page for page in pages if page in self.model]
        try:
            self.bench.builder.map(address, target, length, rights)
        except BuildError as error:
            if taken:
                assert f"{taken[0]:#x} is mapped already" in str(error)
            else:
                assert "out of table frames" in str(error)
            return
        assert not taken
        for page in pages:
            self.model[page] = target + page - address, rights

    @rule(data=st.data())
    def unmap(self, data: st.DataObject) -> None:
        address, length = self.span(data)
        pages = [page for page in range(address, address + length, PAGE) if page in self.model]
        assert self.bench.builder.unmap(address, length) == len(pages) * PAGE
        for page in pages:
            del self.model[page]

    @rule(data=st.data())
    def protect(self, data: st.DataObject) -> None:
        address, length = self.span(data)
        rights = self.rights(data)
        pages = [page for page in range(address, address + length, PAGE) if page in self.model]
        assert self.bench.builder.protect(address, length, rights) == len(pages) * PAGE
        for page in pages:
            self.model[page] = self.model[page][0], rights

    @invariant()
    def the_tables_map_what_the_dict_has(self) -> None:
        got = {
            start + offset: (target + offset, rights)
            for start, length, target, rights in self.bench.listing()
            for offset in range(0, length, PAGE)
        }
        assert got == self.model
        if not self.model:
            assert self.bench.pool.used == 1


TestBuilderAgainstADict = BuilderAgainstADict.TestCase
TestBuilderAgainstADict.settings = settings(max_examples=15, stateful_step_count=12)


@pytest.mark.parametrize(
    ("unit", "largest", "sizes"),
    [
        (ALL_SIZES, 30, [PAGE] * 511 + [BIG] * 511 + [HUGE] + [BIG] + [PAGE]),
        (ALL_SIZES, 21, [PAGE] * 511 + [BIG] * (511 + 512 + 1) + [PAGE]),
    ],
)
def test_pages_are_as_large_as_alignment_and_caller_allow(
    unit: Implementation, largest: int, sizes: list[int]
) -> None:
    bench = Bench(second_stage_geometry(4, unit), largest=largest)
    bench.builder.map(PAGE, HUGE * 4 + PAGE, HUGE - PAGE + HUGE + BIG + PAGE)
    assert [page[1] for page in bench.listing()] == sizes


@pytest.mark.parametrize(
    ("features", "largest"), [({"sslps_2m"}, 12), (set(), 30), ({"sslps_1g"}, 30)]
)
def test_pages_are_small_where_unit_or_caller_do_not_want_superpages(
    features: set[str], largest: int
) -> None:
    unit = SMALL_ONLY._replace(features=frozenset(features))
    bench = Bench(second_stage_geometry(4, unit), largest=largest)
    bench.builder.map(0, 0, 2 * BIG)
    assert [page[1] for page in bench.listing()] == [PAGE] * 1024


@pytest.mark.parametrize("size", [PAGE, BIG, HUGE])
def test_every_byte_of_a_page_is_where_the_page_is(size: int) -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(2 * size, 7 * size, 2 * size)
    for offset in (0, 1, PAGE - 1, size - 1, size, 2 * size - 1):
        assert bench.builder.physical(2 * size + offset) == 7 * size + offset
    assert bench.builder.physical(2 * size - 1) is None
    assert bench.builder.physical(4 * size) is None


def test_a_superpage_is_split_where_a_part_changes() -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(0, 0, HUGE)
    assert bench.builder.protect(BIG + PAGE, PAGE, "r-") == PAGE
    assert bench.builder.unmap(BIG + 3 * PAGE, PAGE) == PAGE
    pages = bench.listing()
    assert [page[1] for page in pages] == [BIG] + [PAGE] * 511 + [BIG] * 510
    assert all(page[0] == page[2] for page in pages)
    assert [page for page in pages if page[3] != "rw"] == [(BIG + PAGE, PAGE, BIG + PAGE, "r-")]
    assert bench.builder.unmap(0, HUGE) == HUGE - PAGE
    assert bench.pool.used == 1


def test_pages_are_for_user_requests_unless_it_is_said_otherwise() -> None:
    geometry = first_stage_geometry(4, ALL_SIZES)
    bench = Bench(geometry)
    bench.builder.map(0, 0, 2 * PAGE)
    bench.builder.protect(PAGE, PAGE, "r-")
    for address in (0, PAGE):
        _, _, rights, _, _ = walk(bench.memory, bench.stage, address)
        assert rights & geometry.user


@pytest.mark.parametrize("size", [BIG, HUGE])
def test_attributes_and_flags_keep_their_meaning_in_every_page_size(size: int) -> None:
    """PAT is bit 7 of a 4 KiB page's entry and bit 12 of the others (9.7)."""
    geometry = first_stage_geometry(4, ALL_SIZES)
    bench = Bench(geometry, preset=geometry.accessed)
    bench.builder.map(0, 0, size, attributes=1 << 7 | geometry.dirty, user=False)
    leaf = entry, _, rights, _, _ = walk(bench.memory, bench.stage, 0)
    where = place(leaf)
    assert entry & 0x1FFF == 1 << 12 | 1 << 7 | geometry.dirty | geometry.accessed | 3
    assert not rights & geometry.user
    assert bench.memory.read_record(where, 8) == entry
    bench.builder.protect(PAGE, PAGE, "r-", user=True)
    for address, low in ((0, 3), (PAGE, 5), (2 * PAGE, 3)):
        entry, shift, _, _, _ = walk(bench.memory, bench.stage, address)
        assert shift == 12
        assert entry == address | 1 << 7 | geometry.dirty | geometry.accessed | low
    quiet = replace(bench.stage, accessed=geometry.accessed, snooped=False)
    walk(bench.memory, quiet, PAGE)  # every entry on the way has A already


def test_the_upper_half_of_the_first_stage_takes_canonical_addresses() -> None:
    bench = Bench(first_stage_geometry(4, ALL_SIZES))
    top = (1 << 64) - PAGE
    bench.builder.map(top, 0x5000, PAGE)
    bench.builder.map((1 << 47) - PAGE, 0x6000, PAGE)
    assert physical(bench.memory, bench.stage, top) == 0x5000
    assert bench.listing() == [
        ((1 << 47) - PAGE, PAGE, 0x6000, "rw"),
        (top, PAGE, 0x5000, "rw"),
    ]
    for address, length in (
        (1 << 47, PAGE),
        ((1 << 48) - PAGE, PAGE),
        ((1 << 47) - PAGE, 2 * PAGE),
        (top, 2 * PAGE),
    ):
        with pytest.raises(BuildError, match="outside 48 address bits"):
            bench.builder.map(address, 0, length)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": 0x123}, "not made of whole 4 KiB pages"),
        ({"length": 0x123}, "not made of whole 4 KiB pages"),
        ({"length": 0}, "not made of whole 4 KiB pages"),
        ({"length": -PAGE}, "not made of whole 4 KiB pages"),
        ({"address": -PAGE}, "outside 48 address bits"),
        ({"address": 1 << 48}, "outside 48 address bits"),
        ({"length": (1 << 48) + PAGE}, "outside 48 address bits"),
        ({"physical": 0x10}, "not a multiple of 4 KiB"),
        ({"physical": -PAGE}, "beyond the address width"),
        ({"physical": 1 << 46}, "beyond the address width"),
        ({"physical": (1 << 46) - PAGE, "length": 2 * PAGE}, "beyond the address width"),
        ({"physical": 1 << 52}, "beyond the address width"),
        ({"rights": "rwx"}, "rights 'rwx'"),
        ({"rights": "--"}, "rights '--'"),
        ({"attributes": 1 << 62}, "attributes 0x4000000000000000"),
        ({"attributes": 1 << 12}, "attributes 0x1000"),
        ({"attributes": 1}, "attributes 0x1"),
        ({"address": 0x10000}, "input address 0x10000 is mapped already"),
        ({"address": 0xF000, "length": 2 * PAGE}, "input address 0x10000 is mapped already"),
    ],
)
def test_a_bad_map_is_refused_and_changes_nothing(
    changes: dict[str, int | str], message: str
) -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(0x10000, 0x20000, PAGE)
    before, used = bench.listing(), bench.pool.used
    arguments: dict[str, int | str] = {"address": 0, "physical": 0, "length": PAGE}
    with pytest.raises(BuildError, match=message):
        bench.builder.map(**(arguments | changes))  # type: ignore[arg-type]
    assert bench.listing() == before
    assert bench.pool.used == used


def test_the_last_page_of_the_address_width_can_be_mapped() -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    last = (1 << 46) - PAGE
    bench.builder.map(0, last, PAGE)
    assert bench.listing() == [(0, PAGE, last, "rw")]


def test_a_page_that_begins_where_a_range_ends_stays_whole() -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(0, 0, 2 * BIG)
    used = bench.pool.used
    bench.builder.unmap(0, BIG)
    assert bench.listing() == [(BIG, BIG, BIG, "rw")]
    assert bench.pool.used == used


def test_write_only_pages_are_for_the_second_stage() -> None:
    bench = Bench(first_stage_geometry(4, ALL_SIZES))
    with pytest.raises(BuildError, match="rights '-w'"):
        bench.builder.map(0, 0, PAGE, "-w")


@pytest.mark.parametrize("user", [True, False])
@pytest.mark.parametrize("rights", ["rw", "r-", "-w"])
def test_the_second_stage_has_no_privileges(rights: str, user: bool) -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(0, 0, PAGE, rights, user=user)
    assert bench.listing() == [(0, PAGE, 0, rights)]


def test_running_out_of_frames_leaves_what_was_mapped() -> None:
    bench = Bench(second_stage_geometry(4, SMALL_ONLY), frames=6)
    bench.builder.map(0, 0, BIG)
    before = bench.listing()
    with pytest.raises(BuildError, match="out of table frames"):
        bench.builder.map(BIG, BIG, 4 * BIG)
    assert bench.listing() == before
    assert bench.pool.used == 4
    bench.builder.map(BIG, BIG, 2 * BIG)


def test_running_out_of_frames_while_splitting_leaves_the_mapping() -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES), frames=4)
    bench.builder.map(0, 0, HUGE)
    with pytest.raises(BuildError, match="out of table frames"):
        bench.builder.unmap(PAGE, HUGE - 2 * PAGE)
    listed = bench.listing()
    assert sum(page[1] for page in listed) == HUGE
    assert all(one[0] + one[1] == other[0] for one, other in pairwise(listed))


@pytest.mark.parametrize("frame", [1 << 34, 1 << 40])
def test_table_frames_have_to_be_within_the_address_width(frame: int) -> None:
    pool = FramePool(frame << 12, frame + 1 << 12)
    with pytest.raises(BuildError, match="beyond the address width"):
        TableBuilder(PhysicalMemory(), second_stage_geometry(4, ALL_SIZES), pool)
    assert pool.used == 0


def test_preset_flags_have_to_be_flags_of_tables_too() -> None:
    with pytest.raises(BuildError, match="preset 0x800"):
        Bench(second_stage_geometry(4, ALL_SIZES), preset=1 << 11)


def test_a_pool_gives_each_frame_to_one_user_at_a_time() -> None:
    pool = FramePool(0x1000, 0x3000)
    assert [pool.allocate(), pool.allocate()] == [1, 2]
    with pytest.raises(BuildError, match="out of table frames"):
        pool.allocate()
    pool.free(1)
    for frame in (0, 1, 3):
        with pytest.raises(BuildError, match="was not given out"):
            pool.free(frame)
    assert pool.allocate() == 1
    for start, end in ((1, 0x1000), (0x2000, 0x1000), (-0x1000, 0)):
        with pytest.raises(BuildError, match="not a range of whole frames"):
            FramePool(start, end)


def test_guest_tables_are_written_where_the_guest_has_them() -> None:
    """The guest's RAM is the host's from 0x40000000 on; both stages agree with the oracle."""
    host = PhysicalMemory()
    host.add_region(TABLES, 64 * PAGE)
    host.add_region(HUGE, 64 * PAGE)
    second = second_stage_geometry(4, ALL_SIZES)
    outer = TableBuilder(host, second, FramePool(TABLES, TABLES + 64 * PAGE))
    outer.map(0, HUGE, BIG)
    geometry = first_stage_geometry(4, ALL_SIZES)
    inner = TableBuilder(host, geometry, FramePool(0, 16 * PAGE), translate=lambda gpa: HUGE + gpa)
    inner.map(0x7000_0000, 0x20000, 2 * PAGE, "r-")
    stage = Stage(second, outer.root)
    guest = GuestMemory(host, stage, 48, lambda gpa: walk(host, stage, gpa))
    entry, shift, rights, _, _ = walk(guest, Stage(geometry, inner.root), 0x7000_1000)
    assert (entry & ADDRESS, shift) == (0x21000, 12)
    assert not rights & geometry.write
    words = oracle.Words(
        frozenset(range(TABLES >> 12, (TABLES >> 12) + 64))
        | frozenset(range(HUGE >> 12, (HUGE >> 12) + 64)),
        {
            frame << 12 | index << 3: word
            for frame, data in host.snapshot().items()
            for index, word in enumerate(memoryview(data).cast("Q"))
        },
    )
    found = oracle.translate(
        words,
        oracle.Tables("first", 4, inner.root << 12, 46, ALL_SIZES.features),
        0x7000_1234,
        oracle.Nesting(oracle.Tables("second", 4, outer.root << 12, 46, ALL_SIZES.features), 48),
    )
    assert isinstance(found, oracle.Mapped)
    assert (found.physical, found.size) == (HUGE + 0x21234, PAGE)
    assert found.read and not found.write


def by_page(memory: PhysicalMemory, stage: Stage) -> dict[int, tuple[int, str]]:
    """Physical address and rights of every 4 KiB page that is mapped."""
    return {
        address + offset: (target + offset, rights)
        for address, length, target, rights, *_ in leaves(memory, stage)
        for offset in range(0, length, PAGE)
    }


@given(geometries(), st.data())
def test_every_page_that_changes_is_told_by_its_input_address(
    geometry: Geometry, data: st.DataObject
) -> None:
    changes: list[Change] = []
    memory = PhysicalMemory()
    memory.add_region(TABLES, 512 * PAGE)
    pool = FramePool(TABLES, TABLES + 512 * PAGE)
    builder = TableBuilder(memory, geometry, pool, changed=changes.append)
    stage = Stage(geometry, builder.root)
    top = (1 << 64) - (1 << geometry.width - 1) if geometry.kind is StageKind.FIRST else 0
    base = data.draw(st.sampled_from([0, HUGE, top, top + HUGE]))
    start = data.draw(st.integers(0, 1023)) * PAGE
    length = data.draw(st.integers(1, 1024 - start // PAGE)) * PAGE
    removed = data.draw(st.integers(0, 1023)) * PAGE
    for step in (
        lambda: builder.map(base, 0, 2 * BIG),
        lambda: builder.protect(base + start, length, "r-"),
        lambda: builder.unmap(base + removed, PAGE),
    ):
        before = by_page(memory, stage)
        changes.clear()
        step()
        after = by_page(memory, stage)
        told = {
            page
            for change in changes
            if change.page
            for page in range(change.address, change.address + change.size, PAGE)
        }
        assert {page for page in before | after if before.get(page) != after.get(page)} <= told
    assert builder.physical(base + removed) is None
    kept = (removed + PAGE) % (2 * BIG)
    assert builder.physical(base + kept + 5) == kept + 5
    builder.release()
    assert pool.used == 0


@pytest.mark.parametrize("page", [BIG, HUGE + BIG])
def test_what_leaves_a_page_alone_is_a_leaf_and_what_splits_it_is_not(page: int) -> None:
    changes: list[Change] = []
    memory = PhysicalMemory()
    memory.add_region(TABLES, 512 * PAGE)
    pool = FramePool(TABLES, TABLES + 512 * PAGE)
    geometry = second_stage_geometry(3, ALL_SIZES)
    builder = TableBuilder(memory, geometry, pool, changed=changes.append)
    builder.map(page, 0, BIG)
    assert [(each.size, each.leaf, each.page) for each in changes] == [
        (HUGE, False, False), (BIG, True, True),
    ]  # fmt: skip
    changes.clear()
    builder.protect(page, PAGE, "r-")
    assert [(each.address, each.size, each.leaf, each.page) for each in changes] == [
        (page, BIG, False, True), (page, PAGE, True, True),
    ]  # fmt: skip


class Racing(PhysicalMemory):
    """Memory in which a unit sets A of an entry while software clears D."""

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        if not expected & 1 << 8:
            super().compare_exchange(address, size, expected, expected | 1 << 8)
        return super().compare_exchange(address, size, expected, new)


def test_clearing_dirty_loses_no_flag_that_a_unit_sets_meanwhile() -> None:
    memory = Racing()
    memory.add_region(TABLES, 512 * PAGE)
    pool = FramePool(TABLES, TABLES + 512 * PAGE)
    geometry = second_stage_geometry(3, ALL_SIZES)
    builder = TableBuilder(memory, geometry, pool, preset=0)
    builder.map(0, 0, 2 * PAGE, attributes=geometry.dirty)
    assert builder.clear_dirty(0, 2 * PAGE) == [(0, PAGE), (PAGE, PAGE)]
    assert builder.clear_dirty(0, HUGE) == []
    entries = [entry for frame in memory.frames.values() for entry in frame if entry & 3]
    assert sum(bool(entry & geometry.accessed) for entry in entries) == 2


def test_where_nothing_is_mapped_no_table_is_looked_at() -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(0, 0, PAGE)
    assert bench.builder.unmap(HUGE + PAGE, PAGE) == 0  # there is no memory at 0
    assert bench.builder.unmap((1 << 40) + PAGE, PAGE) == 0
    assert bench.listing() == [(0, PAGE, 0, "rw")]


@pytest.mark.parametrize("geometry", [first_stage_geometry(4, ALL_SIZES)])
def test_pieces_of_a_superpage_without_attributes_have_none(geometry: Geometry) -> None:
    bench = Bench(geometry)
    bench.builder.map(0, 0, BIG)
    bench.builder.protect(PAGE, PAGE, "r-")
    entries = [walk(bench.memory, bench.stage, page * PAGE)[0] for page in range(512)]
    assert [entry & ~0xFFF for entry in entries] == [page * PAGE for page in range(512)]
    assert {entry & 0xF98 for entry in entries} == {0}


def test_pages_behind_the_first_table_are_told_where_they_are() -> None:
    geometry = second_stage_geometry(4, ALL_SIZES)
    bench = Bench(geometry)
    address = (5 << 39) + (3 << 30) + (7 << 21) + 2 * PAGE
    bench.builder.map(address, 0, PAGE, attributes=geometry.dirty)
    assert bench.builder.clear_dirty(0, 1 << 48) == [(address, PAGE)]


def test_what_is_released_can_be_allocated_again() -> None:
    bench = Bench(second_stage_geometry(4, ALL_SIZES))
    bench.builder.map(PAGE, 0, PAGE)
    assert bench.pool.used == 4
    bench.builder.release()
    assert bench.pool.used == 0
