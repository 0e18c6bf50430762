"""The IOTLB against a list of entries: large pages, tags, shapes, invalidations, and its ports."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import READ, WRITE
from devices.interrupt_messages import INTERRUPT_RANGE
from tests.support.world import HOST, PAGE, Mode, World
from vtd.layouts.entries import PasidTranslationType
from vtd.unit.caching.cache import OFF, UNBOUNDED, Cache, Replacement, Shape
from vtd.unit.caching.iotlb import NOTHING, Iotlb, IotlbEntry, canonical_range
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.requests.target import IotlbTags

KIND = (0x0108, None, False)
TAGS = IotlbTags(5, PasidTranslationType.SECOND_STAGE, 0)
LARGE = IotlbEntry(TAGS, 0x40_0000, 21, 0x80_0000, READ | WRITE, snoop=True)
SMALL = IotlbEntry(TAGS, 0x40_1000, 12, 0x9000, READ, snoop=False)
SHAPES = {"unbounded": UNBOUNDED, "bounded": Shape(4, 2)}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_entry_is_found_anywhere_in_its_page(shape: str) -> None:
    iotlb = Iotlb(SHAPES[shape])
    for entry in (LARGE, SMALL):
        iotlb.insert(KIND, entry)
    assert iotlb.find(KIND, 0x40_1FFF) == SMALL
    assert iotlb.find(KIND, 0x40_0000) == LARGE
    assert iotlb.find(KIND, 0x5F_FFFF) == LARGE
    assert iotlb.find(KIND, 0x60_0000) is None
    assert iotlb.find((0x0109, None, False), 0x40_0000) is None
    assert iotlb.find((0x0108, 5, False), 0x40_0000) is None
    assert iotlb.find((0x0108, None, True), 0x40_0000) is None
    assert set(iotlb) == {(KIND, LARGE), (KIND, SMALL)}
    assert len(iotlb) == 2
    assert (iotlb.counters.hits, iotlb.counters.misses, iotlb.counters.insertions) == (3, 4, 2)


@pytest.mark.parametrize("replacement", [Replacement.LRU, Replacement.FIFO])
def test_a_use_keeps_an_entry_where_that_counts(replacement: Replacement) -> None:
    iotlb = Iotlb(Shape(2, 1, replacement))
    pages = [SMALL._replace(address=number << 12) for number in range(3)]
    for page in pages[:2]:
        iotlb.insert(KIND, page)
    assert iotlb.find(KIND, 0) == pages[0]
    iotlb.insert(KIND, pages[2])
    kept = [page for page in pages if iotlb.peek(KIND, page.address)]
    assert kept == [pages[0] if replacement is Replacement.LRU else pages[1], pages[2]]


@pytest.mark.parametrize("replacement", Replacement)
def test_an_emptied_iotlb_has_all_its_room_again(replacement: Replacement) -> None:
    iotlb = Iotlb(Shape(2, 1, replacement))
    pages = [SMALL._replace(address=number << 12) for number in range(4)]
    for pair in (pages[:2], pages[2:]):
        for page in pair:
            iotlb.insert(KIND, page)
        assert [entry for _, entry in iotlb] == pair
        assert iotlb.clear() == 2
    assert not iotlb.counters.evictions


@pytest.mark.parametrize("shape", SHAPES)
def test_fractions_go_with_their_page(shape: str) -> None:
    iotlb = Iotlb(SHAPES[shape])
    iotlb.insert(KIND, LARGE)
    assert iotlb.find(KIND, 0x41_0000) == LARGE
    other = LARGE._replace(tags=TAGS._replace(domain_id=6), address=0x60_0000)
    iotlb.insert(KIND, other)
    assert iotlb.find(KIND, 0x60_0000) == other
    assert iotlb.remove(5, None, 0x5F_F000, 0x60_0000) == 1
    assert iotlb.find(KIND, 0x41_0000) is None
    assert iotlb.find(KIND, 0x60_0000) == other
    assert iotlb.remove(7) == 0
    assert iotlb.remove(6, lambda tags: tags.pasid == 3) == 0
    assert iotlb.clear() == 1
    assert list(iotlb) == []
    assert iotlb.counters.invalidated == 2


@pytest.mark.parametrize("pages", [1, 600])
def test_a_new_large_page_takes_the_place_of_the_old_one_and_its_fractions(pages: int) -> None:
    iotlb = Iotlb(UNBOUNDED)
    iotlb.insert(KIND, LARGE)
    for page in range(pages):
        iotlb.insert(KIND, SMALL._replace(address=0x1000_0000 + page * 0x1000))
    assert iotlb.find(KIND, 0x40_5000) == LARGE
    newer = LARGE._replace(physical=0xA0_0000)
    iotlb.insert(KIND, newer)
    assert iotlb.find(KIND, 0x40_5000) == newer
    assert len(iotlb) == 1 + pages


@pytest.mark.parametrize("shape", SHAPES)
def test_entries_of_other_page_sizes_are_kept_beside_a_new_one(shape: str) -> None:
    """6.2.4.1: several translations for an address, one for each page size."""
    iotlb = Iotlb(SHAPES[shape])
    huge = LARGE._replace(address=0, shift=30, physical=0x4000_0000)
    for entry in (SMALL, LARGE, huge):
        iotlb.insert(KIND, entry)
        assert iotlb.find(KIND, SMALL.address) == SMALL
    assert iotlb.find(KIND, LARGE.address) == LARGE
    assert iotlb.find(KIND, 0x1234_5678) == huge
    assert set(iotlb) == {(KIND, SMALL), (KIND, LARGE), (KIND, huge)}
    inner = LARGE._replace(address=0x1220_0000)
    for entry in (huge, inner):  # the smallest page is found, as if there were no fractions
        iotlb.insert(KIND, entry)
        assert iotlb.find(KIND, 0x1234_5678) == entry


@pytest.mark.parametrize("shape", SHAPES)
def test_a_faulting_result_is_kept_with_its_fault(shape: str) -> None:
    iotlb = Iotlb(SHAPES[shape])
    fault = TranslationFault(FaultReason.SS_RESERVED, True)
    entry = SMALL._replace(physical=0, rights=0, fault=fault)
    iotlb.insert(KIND, entry)
    assert iotlb.find(KIND, 0x40_1234) == entry
    iotlb.insert(KIND, SMALL)
    assert iotlb.find(KIND, 0x40_1234) == SMALL


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40),
    st.sampled_from([Replacement.FIFO, Replacement.LRU]),
)
def test_entries_are_replaced_as_those_of_other_caches(
    program: list[tuple[bool, int]], replacement: Replacement
) -> None:
    shape = Shape(3, 1, replacement)
    iotlb, cache = Iotlb(shape), Cache[int, bool](shape, int)
    for put, page in program:
        if put:
            iotlb.insert(KIND, SMALL._replace(address=page << 12))
            cache.put(page, True)
        else:
            assert (iotlb.find(KIND, page << 12) is None) == (cache.find(page) is None)
    assert {entry.address >> 12 for _, entry in iotlb} == {page for page, _ in cache}
    assert iotlb.counters == cache.counters


def test_an_iotlb_that_is_off_keeps_nothing() -> None:
    iotlb = Iotlb(OFF)
    iotlb.insert(KIND, LARGE)
    assert iotlb.find(KIND, 0x40_0000) is None
    assert len(iotlb) == 0


def reads(port: UnitPort, address: int) -> bytes | None:
    """Four bytes, None if the read is refused."""
    completion = port.read(address, 4)
    return completion.data if completion.ok else None


def numbered(world: World) -> World:
    """Its pages begin with their numbers."""
    for number in range(4):
        world.memory.write(HOST | PAGE + number * 0x1000, number.to_bytes(4, "little"))
    return world


@pytest.mark.parametrize("paging_structure", [OFF, UNBOUNDED])
@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
def test_a_port_counts_what_the_unit_counts(mode: Mode, paging_structure: Shape) -> None:
    policy = CachePolicy(paging_structure=paging_structure)
    world = numbered(World(mode))
    quick, slow = world.start(Options(caches=policy)), world.start(Options(caches=policy))
    port = quick.port()
    pages = [world.address + offset for offset in (0, 0x1000, 0x2000, 0x3000, 0x1000, 0x4000)]
    for address in (*pages, 1 << 60, world.address ^ 1 << 21):
        outcome = slow.admit(world.request._replace(address=address, length=1))
        data = None if outcome is None else world.memory.read(outcome, 4)
        assert reads(port, address) == data
    assert set(quick.unit.caches.iotlb) == set(slow.unit.caches.iotlb)
    for name in ("iotlb", "second_stage", "context"):
        one, other = getattr(quick.unit.caches, name), getattr(slow.unit.caches, name)
        assert one.counters == other.counters, name


@pytest.mark.parametrize("paging_structure", [OFF, UNBOUNDED])
def test_the_neighbour_of_a_known_page_may_be_out_of_the_ordinary(paging_structure: Shape) -> None:
    for change, passes in (
        ({"addr": 0xFEE0_0000}, False),
        ({"w": False}, False),
        ({"r": False, "w": False}, False),
        ({"snp": True}, True),
        ({}, True),
    ):
        world = World(Mode.SECOND)
        world.change(f"second1 {PAGE + 0x1000:#x}", **change)
        started = world.start(Options(caches=CachePolicy(paging_structure=paging_structure)))
        port = started.port()
        assert port.write(world.address, b"here").ok
        assert port.write(world.address + 0x1000, b"next").ok == passes
        assert world.memory.read(HOST | PAGE, 4) == b"here"
        there = world.memory.read(HOST | PAGE + 0x1000, 4)
        assert there == (b"next" if passes else bytes(4))


@pytest.mark.parametrize("paging_structure", [OFF, UNBOUNDED])
def test_a_known_page_says_nothing_of_addresses_past_the_tables(paging_structure: Shape) -> None:
    policy = CachePolicy(paging_structure=paging_structure)
    world = numbered(World(Mode.SECOND, second_levels=3))
    started = world.start(Options(caches=policy))
    port = started.port()
    assert reads(port, world.address) == bytes(4)
    assert reads(port, world.address | 1 << 39) is None
    assert reads(port, world.address + 0x1000) == b"\1\0\0\0"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_snapshot_holds_entries_and_their_fractions(shape: str) -> None:
    iotlb = Iotlb(SHAPES[shape])
    iotlb.insert(KIND, LARGE)
    iotlb.insert(KIND, SMALL)
    assert iotlb.find(KIND, 0x40_5000) == LARGE
    space = iotlb.space(KIND)
    assert iotlb.find(KIND, 0x40_5000) == LARGE
    saved, before, counted = iotlb.snapshot(), set(iotlb), replace(iotlb.counters)
    iotlb.clear()
    iotlb.insert((0x0109, 5, True), SMALL._replace(tags=TAGS._replace(pasid=5)))
    iotlb.restore(saved)
    assert iotlb.counters == counted
    assert set(iotlb) == before
    assert iotlb.space(KIND) is space
    assert iotlb.find(KIND, 0x40_5000) == LARGE
    assert iotlb.find((0x0109, 5, True), 0x40_1000) is None


@given(
    st.builds(int.__xor__, st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1 << 47, 1 << 56])),
    st.one_of(st.integers(0, 20), st.integers(21, 63)),
    st.sampled_from([48, 57, 64]),
    st.data(),
)
@settings(max_examples=200)
def test_a_canonical_range_holds_the_canonical_addresses_with_the_same_low_bits(
    address: int, mask: int, width: int, data: st.DataObject
) -> None:
    size = 0x1000 << mask
    start = address & -size
    low, high = canonical_range(start, start + size, width)
    inside = start + data.draw(st.integers(0, size - 1))
    outside = data.draw(st.integers(0, (1 << width) - 1))

    def canonical(value: int) -> int:
        value &= (1 << width) - 1
        return value + (1 << 64) - (1 << width) if value >> width - 1 else value

    assert low <= canonical(inside) < high
    alike = (outside - start) % (1 << width) < size
    assert (low <= canonical(outside) < high) == alike


# Any program against a list of entries

Step = tuple[Any, ...]


def canonical(address: int, width: int) -> int:
    """The canonical address with the same low bits."""
    address &= (1 << width) - 1
    return address + (1 << 64) - (1 << width) if address >> width - 1 else address


@st.composite
def entries(draw: st.DrawFn) -> tuple[RequestKind, IotlbEntry]:
    """Translations that crowd in few places, near both ends of the canonical addresses."""
    pasid, privileged = draw(st.sampled_from([(None, False), (7, False), (7, True)]))
    source_id = draw(st.sampled_from([0x0108, 0x0110]))
    stage = draw(
        st.sampled_from([PasidTranslationType.FIRST_STAGE, PasidTranslationType.SECOND_STAGE])
    )
    first = stage is PasidTranslationType.FIRST_STAGE
    width = draw(st.sampled_from([48, 57])) if first else 64
    tags = IotlbTags(draw(st.sampled_from([1, 1, 2])), stage, pasid or 0, width)
    shift = draw(st.sampled_from([12, 12, 12, 21, 30]))
    address = canonical(draw(places) & -(1 << shift), width)
    rights = draw(st.sampled_from([0, READ, READ | WRITE]))
    entry = IotlbEntry(tags, address, shift, address ^ 1 << 40, rights, snoop=False)
    return (source_id, pasid, privileged), entry


pages = st.sampled_from([0, 1, 2, 0x1FF, 0x200, 0xFEE00])
places = st.builds(
    lambda page, top: page << 12 | top,
    pages,
    st.sampled_from([0, 1 << 47, 1 << 56]),
)
ranges = st.builds(
    lambda place, mask: (place >> 12 + mask << 12 + mask, (place >> 12 + mask) + 1 << 12 + mask),
    places,
    st.sampled_from([0, 0, 1, 9, 18, 35, 36, 45, 52]),
)
MATCHES: dict[str, Callable[[IotlbTags], bool] | None] = {
    "all": None,
    "first stage": lambda tags: tags.kind is PasidTranslationType.FIRST_STAGE,
    "PASID": lambda tags: tags.pasid == 7,
}
steps = st.one_of(
    st.tuples(st.just("insert"), entries()),
    st.tuples(st.just("insert"), entries()),
    st.tuples(st.just("find"), entries(), st.integers(0, 0x3FFF)),
    st.tuples(st.just("remove"), st.sampled_from([1, 1, 2, 3]), st.sampled_from(sorted(MATCHES)),
              ranges),
    st.tuples(st.just("remove"), st.sampled_from([1, 2]), st.just("all"), st.just((0, 1 << 64))),
    st.tuples(st.sampled_from(["clear", "copy", "copy"])),
)  # fmt: skip
shapes = st.one_of(
    st.just(UNBOUNDED),
    st.builds(
        Shape,
        ways=st.integers(0, 3),
        sets=st.integers(1, 4),
        replacement=st.sampled_from(Replacement),
        index=st.sampled_from([0, 0, 9]),
    ),
)


class Model:
    """Sets as lists, the next entry to go first; every question goes through all of them."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.sets: list[list[tuple[RequestKind, IotlbEntry]]] = [[] for _ in range(shape.sets)]
        self.counts = dict.fromkeys(("hits", "misses", "insertions", "evictions", "invalidated"), 0)

    @property
    def entries(self) -> list[tuple[RequestKind, IotlbEntry]]:
        """All of them, in no particular order."""
        return [each for entries in self.sets for each in entries]

    def insert(self, kind: RequestKind, entry: IotlbEntry, present: set[Any]) -> None:
        """``present`` tells which entry a random replacement took."""
        ways = self.shape.ways
        if ways == 0:
            return
        number = entry.address >> entry.shift
        lines = self.sets[(number >> self.shape.index) % self.shape.sets]
        alike = [
            (other, old)
            for other, old in lines
            if (other, old.shift, old.address) == (kind, entry.shift, entry.address)
        ]
        for each in alike:
            lines.remove(each)
        if not alike and len(lines) == ways:
            gone = lines[0]
            if self.shape.replacement is Replacement.RANDOM:
                (gone,) = (each for each in lines if each not in present)
            lines.remove(gone)
            self.counts["evictions"] += 1
        lines.append((kind, entry))
        self.counts["insertions"] += 1

    def find(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        """The smallest page that covers it; a large one does not reach into interrupts."""
        interrupt = kind[1] is None and address in INTERRUPT_RANGE
        covering = [
            each
            for each in self.entries
            if each[0] == kind
            and each[1].address >> each[1].shift == address >> each[1].shift
            and not (interrupt and each[1].shift > 12)
        ]
        if not covering:
            self.counts["misses"] += 1
            return None
        self.counts["hits"] += 1
        found = min(covering, key=lambda each: each[1].shift)
        if self.shape.replacement is Replacement.LRU:
            (lines,) = (lines for lines in self.sets if found in lines)
            lines.remove(found)
            lines.append(found)
        return found[1]

    def remove(
        self,
        domain_id: int,
        matches: Callable[[IotlbTags], bool] | None,
        start: int,
        end: int,
    ) -> int:
        """By comparing the low bits of every entry (Table 18)."""

        def goes(entry: IotlbEntry) -> bool:
            tags = entry.tags
            if tags.domain_id != domain_id or (matches is not None and not matches(tags)):
                return False
            shift = max(entry.shift, (end - start).bit_length() - 1)
            return not (entry.address ^ start) >> shift & (1 << max(tags.width - shift, 0)) - 1

        count = len(self.entries)
        for lines in self.sets:
            lines[:] = [each for each in lines if not goes(each[1])]
        count -= len(self.entries)
        self.counts["invalidated"] += count
        return count

    def clear(self) -> int:
        """Everything."""
        count = len(self.entries)
        for lines in self.sets:
            lines.clear()
        self.counts["invalidated"] += count
        return count


@given(shapes, st.lists(steps, max_size=60))
@settings(max_examples=400)
@pytest.mark.section("6.2.4")
def test_any_program_has_the_outcomes_of_a_list_of_entries(
    shape: Shape, program: list[Step]
) -> None:
    iotlb, model = Iotlb(shape), Model(shape)
    for step in program:
        match step:
            case ("insert", (kind, entry)):
                iotlb.insert(kind, entry)
                model.insert(kind, entry, set(iotlb))
            case ("find", (kind, entry), offset):
                address = entry.address + offset
                assert iotlb.find(kind, address) == model.find(kind, address)
            case ("remove", domain_id, which, (start, end)):
                removed = iotlb.remove(domain_id, MATCHES[which], start, end)
                assert removed == model.remove(domain_id, MATCHES[which], start, end)
            case ("clear",):
                assert iotlb.clear() == model.clear()
            case _:
                state, iotlb = iotlb.snapshot(), Iotlb(shape)
                iotlb.restore(state)
                assert iotlb.snapshot() == state
        assert sorted(map(repr, iotlb)) == sorted(map(repr, model.entries))
        assert len(iotlb) == len(model.entries)
        assert {name: getattr(iotlb.counters, name) for name in model.counts} == model.counts


@pytest.mark.parametrize("shape", [UNBOUNDED, Shape(8, 64), Shape(1 << 12)])
@given(
    st.sets(st.integers(0, 1 << 12), min_size=300, max_size=600),
    st.integers(0, 1 << 12),
    st.integers(0, 12),
)
@settings(max_examples=10)
def test_pages_that_are_removed_by_number_are_those_that_a_scan_would_remove(
    shape: Shape, numbers: set[int], page: int, mask: int
) -> None:
    iotlb = Iotlb(shape)
    for number in numbers:
        tags = TAGS._replace(pasid=number % 3)
        shift = 21 if number % 5 == 0 else 12
        entry = SMALL._replace(tags=tags, address=number << shift, shift=shift)
        iotlb.insert((0x0108 + number % 2, None, False), entry)
    start, end = page >> mask << 12 + mask, (page >> mask) + 1 << 12 + mask

    def goes(entry: IotlbEntry) -> bool:
        here = entry.address < end and start < entry.address + (1 << entry.shift)
        return here and entry.tags.pasid != 1

    before = set(iotlb)
    doomed = {each for each in before if goes(each[1])}
    assert iotlb.remove(5, lambda tags: tags.pasid != 1, start, end) == len(doomed)
    assert set(iotlb) == before - doomed


@pytest.mark.parametrize("pasid", [None, 5])
@pytest.mark.section("3.15")
def test_a_large_page_does_not_answer_for_interrupts_in_it(pasid: int | None) -> None:
    kind: RequestKind = (0x0108, pasid, False)
    iotlb = Iotlb(UNBOUNDED)
    iotlb.insert(kind, LARGE._replace(address=INTERRUPT_RANGE.start))
    behind = INTERRUPT_RANGE.stop
    assert iotlb.space(kind).line(behind >> 12) is not NOTHING
    for address in (INTERRUPT_RANGE.start, behind - 0x1000):
        assert (iotlb.space(kind).line(address >> 12) is NOTHING) == (pasid is None)
