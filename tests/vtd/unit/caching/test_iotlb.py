"""The IOTLB: large pages and their fractions, tags, faults, and the shortcuts of ports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, WRITE
from tests.vtd.world import HOST, PAGE, Mode, World
from vtd.layouts.entries import PasidTranslationType
from vtd.unit.caching.cache import OFF, UNBOUNDED, Shape
from vtd.unit.caching.iotlb import Iotlb, IotlbEntry, canonical_range
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.options import Options
from vtd.unit.requests.faults import FaultReason, TranslationFault
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


@pytest.mark.parametrize("shape", SHAPES)
def test_fractions_go_with_their_page(shape: str) -> None:
    iotlb = Iotlb(SHAPES[shape])
    iotlb.insert(KIND, LARGE)
    assert iotlb.find(KIND, 0x41_0000) == LARGE
    other = LARGE._replace(tags=TAGS._replace(domain_id=6), address=0x60_0000)
    iotlb.insert(KIND, other)
    assert iotlb.find(KIND, 0x60_0000) == other
    assert iotlb.remove(lambda tags: tags.domain_id == 5, 0x5F_F000, 0x60_0000) == 1
    assert iotlb.find(KIND, 0x41_0000) is None
    assert iotlb.find(KIND, 0x60_0000) == other
    assert iotlb.remove(lambda tags: tags.domain_id == 7) == 0
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
    fault = TranslationFault(FaultReason.SS_RESERVED, fpd=True)
    entry = SMALL._replace(physical=0, rights=0, fault=fault)
    iotlb.insert(KIND, entry)
    assert iotlb.find(KIND, 0x40_1234) == entry
    iotlb.insert(KIND, SMALL)
    assert iotlb.find(KIND, 0x40_1234) == SMALL


def test_an_iotlb_that_is_off_keeps_nothing() -> None:
    iotlb = Iotlb(OFF)
    iotlb.insert(KIND, LARGE)
    assert iotlb.find(KIND, 0x40_0000) is None
    assert len(iotlb) == 0


@pytest.mark.parametrize("paging_structure", [OFF, UNBOUNDED])
@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
def test_a_shortcut_counts_what_the_long_way_counts(mode: Mode, paging_structure: Shape) -> None:
    policy = CachePolicy(paging_structure=paging_structure)
    world = World(mode)
    quick, slow = world.start(Options(caches=policy)), world.start(Options(caches=policy))
    port = quick.port()
    pages = [world.address + offset for offset in (0, 0x1000, 0x2000, 0x3000, 0x1000, 0x4000)]
    for address in (*pages, 1 << 60, world.address ^ 1 << 21):
        outcome = port.resolve(address, READ)
        assert outcome == slow.unit.admit(world.request._replace(address=address, length=1))
    assert set(quick.unit.caches.iotlb) == set(slow.unit.caches.iotlb)
    for name in ("iotlb", "second_stage", "context"):
        one, other = getattr(quick.unit.caches, name), getattr(slow.unit.caches, name)
        assert one.counters == other.counters, name


@pytest.mark.parametrize("paging_structure", [OFF, UNBOUNDED])
def test_a_shortcut_leaves_what_is_out_of_the_ordinary(paging_structure: Shape) -> None:
    for change, outcome in (
        ({"addr": 0xFEE0_0000}, None),
        ({"w": False}, None),
        ({"r": False, "w": False}, None),
        ({"snp": True}, HOST | PAGE + 0x1000),
        ({}, HOST | PAGE + 0x1000),
    ):
        world = World(Mode.SECOND)
        world.change(f"second1 {PAGE + 0x1000:#x}", **change)
        started = world.start(Options(caches=CachePolicy(paging_structure=paging_structure)))
        port = started.port()
        assert port.resolve(world.address, WRITE) == HOST | PAGE
        found = port.resolve(world.address + 0x1000, WRITE)
        assert (found if isinstance(found, int) else None) == outcome


@pytest.mark.parametrize("paging_structure", [OFF, UNBOUNDED])
def test_a_shortcut_does_not_reach_past_the_tables(paging_structure: Shape) -> None:
    policy = CachePolicy(paging_structure=paging_structure)
    world = World(Mode.SECOND, second_levels=3)
    started = world.start(Options(caches=policy))
    port = started.port()
    assert port.resolve(world.address, READ) == HOST | PAGE
    beyond = world.address | 1 << 39
    assert not isinstance(port.resolve(beyond, READ), int)
    assert port.resolve(world.address + 0x1000, READ) == HOST | PAGE + 0x1000


@pytest.mark.parametrize("shape", SHAPES)
def test_a_snapshot_holds_entries_and_their_fractions(shape: str) -> None:
    iotlb = Iotlb(SHAPES[shape])
    iotlb.insert(KIND, LARGE)
    iotlb.insert(KIND, SMALL)
    assert iotlb.find(KIND, 0x40_5000) == LARGE
    space = iotlb.space(KIND)
    saved, before = iotlb.snapshot(), set(iotlb)
    iotlb.clear()
    iotlb.insert((0x0109, 5, True), SMALL._replace(tags=TAGS._replace(pasid=5)))
    iotlb.restore(saved)
    assert set(iotlb) == before
    assert iotlb.space(KIND) is space
    assert iotlb.find(KIND, 0x40_5000) == LARGE
    assert iotlb.find((0x0109, 5, True), 0x40_1000) is None


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 63), st.sampled_from([48, 57, 64]), st.data())
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
