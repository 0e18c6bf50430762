"""DeviceTlb: what it finds, what it drops, what it gives up."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import device_tlb
from devices.device_tlb import DeviceTlb, Replacement
from devices.dma import READ, WRITE, InvalidationRequest, Request, TranslationEntry

SIZES = st.sampled_from([12, 13, 21, 30]).map(lambda shift: 1 << shift)
PASIDS = st.sampled_from([None, 0, 1, (1 << 20) - 1])


KINDS = st.tuples(PASIDS, st.booleans())
"""PASID and privilege of a request."""


def tag(*kind: Any) -> int | None:
    return device_tlb.tag(Request(0, 0, READ, 1, *kind))


def translation(
    address: int,
    size: int = 4096,
    *,
    r: bool = True,
    w: bool = True,
    u: bool = False,
    global_: bool = False,
) -> TranslationEntry:
    return TranslationEntry(address, size, r, w, u, False, False, False, global_)


@given(
    size=SIZES,
    number=st.integers(0, 100),
    frame=st.integers(0, 100),
    offset=st.integers(0, (1 << 30) - 1),
    kind=KINDS,
)
@pytest.mark.section("6.3")
def test_a_translation_serves_its_whole_range_under_its_own_tag(
    size: int, number: int, frame: int, offset: int, kind: tuple[int | None, bool]
) -> None:
    tlb = DeviceTlb()
    offset %= size
    tlb.insert(number * size + offset, translation(frame * size, size), tag(*kind))
    for other in itertools.product((None, 0, 1, (1 << 20) - 1), (False, True)):
        found = tlb.lookup(number * size + offset, READ, tag(*other))
        same = other == kind or (other[0], kind[0]) == (None, None)
        assert found == (frame * size + offset if same else None)
    assert tlb.lookup((number + 1) * size, READ, tag(*kind)) is None


@given(st.booleans(), st.booleans(), st.sampled_from([READ, WRITE, READ | WRITE]))
def test_an_entry_serves_only_what_it_permits(r: bool, w: bool, need: int) -> None:
    tlb = DeviceTlb()
    tlb.insert(0x1000, translation(0x9000, r=r, w=w))
    granted = READ * r | WRITE * w
    found = tlb.lookup(0x1234, need)
    assert found == (0x9234 if granted and granted & need == need else None)


def test_ranges_for_untranslated_requests_are_not_kept() -> None:
    tlb = DeviceTlb()
    tlb.insert(0x1000, translation(0x9000, u=True))
    assert len(tlb) == 0


def test_a_small_entry_with_less_permission_does_not_hide_a_large_one() -> None:
    tlb = DeviceTlb()
    tlb.insert(0x20_0000, translation(0x40_0000, 0x20_0000))
    tlb.insert(0x20_0000, translation(0x9000, w=False))
    assert tlb.lookup(0x20_0000, WRITE) == 0x40_0000
    assert tlb.lookup(0x20_0000, READ) == 0x9000


@given(
    entries=st.lists(st.tuples(st.integers(0, 15), PASIDS, st.booleans()), max_size=12),
    page=st.integers(0, 15),
    order=st.integers(0, 4),
    pasid=PASIDS,
    global_=st.booleans(),
)
def test_an_invalidation_drops_its_range_and_tag_and_nothing_else(
    entries: list[tuple[int, int | None, bool]],
    page: int,
    order: int,
    pasid: int | None,
    global_: bool,
) -> None:
    tlb = DeviceTlb()
    for number, entry_pasid, privileged in entries:
        tlb.insert(number << 12, translation(number << 12), tag(entry_pasid, privileged))
    before = tlb.entries()
    start = page >> order << order
    every_pasid = global_ and pasid is not None
    tlb.invalidate(InvalidationRequest(start << 12, 4096 << order, every_pasid, pasid, 0))
    for entry in before:
        in_range = start <= entry.address >> 12 < start + (1 << order)
        tagged = entry.pasid is not None if every_pasid else entry.pasid == pasid
        assert (entry in tlb.entries()) is not (in_range and tagged)
    assert tlb.dropped == len(before) - len(tlb)


def test_a_global_entry_serves_every_pasid_until_a_global_invalidation() -> None:
    tlb = DeviceTlb()
    tlb.insert(0x1000, translation(0x9000, global_=True), 5)
    assert tlb.lookup(0x1000, READ, 7) == 0x9000
    assert tlb.lookup(0x1000, READ, tag(7, True)) is None
    assert tlb.lookup(0x1000, READ) is None
    assert tlb.entries()[0].global_
    everything = 1 << 64
    tlb.invalidate(InvalidationRequest(0, everything, False, 5, 0))
    assert len(tlb) == 1
    tlb.invalidate(InvalidationRequest(0, everything, True, 5, 0))
    assert len(tlb) == 0


def test_a_privileged_global_entry_serves_privileged_requests() -> None:
    tlb = DeviceTlb()
    tlb.insert(0x1000, translation(0x9000, global_=True), tag(5, True))
    assert tlb.lookup(0x1000, READ, tag(7, True)) == 0x9000
    assert tlb.lookup(0x1000, READ, 5) is None
    assert (tlb.entries()[0].privileged, tlb.entries()[0].pasid) == (True, None)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_lru_keeps_the_pages_used_last(pages: list[int], capacity: int) -> None:
    tlb = DeviceTlb(capacity, Replacement.LRU)
    recent: list[int] = []
    for page in pages:
        if tlb.lookup(page << 12, READ) is None:
            assert page not in recent
            tlb.insert(page << 12, translation(page << 12))
        else:
            recent.remove(page)
        recent = [*recent, page][-capacity:]
        assert [entry.address >> 12 for entry in tlb.entries()] == recent


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_fifo_keeps_the_pages_that_came_last(pages: list[int], capacity: int) -> None:
    tlb = DeviceTlb(capacity, Replacement.FIFO)
    came: list[int] = []
    for page in pages:
        if tlb.lookup(page << 12, READ) is None:
            tlb.insert(page << 12, translation(page << 12))
            came = [*came, page][-capacity:]
        assert [entry.address >> 12 for entry in tlb.entries()] == came


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6), st.integers(0, 9))
def test_random_replacement_repeats_with_its_seed(
    pages: list[int], capacity: int, seed: int
) -> None:
    one, other = (DeviceTlb(capacity, Replacement.RANDOM, seed) for _ in range(2))
    for page in pages:
        for tlb in (one, other):
            tlb.insert(page << 12, translation(page << 12))
            assert len(tlb) <= capacity
    assert one.entries() == other.entries()


def test_counters_count() -> None:
    tlb = DeviceTlb(1)
    tlb.lookup(0x1000, READ)
    tlb.insert(0x1000, translation(0x9000))
    tlb.insert(0x2000, translation(0xA000))
    tlb.lookup(0x2000, READ)
    tlb.lookup(0x2000, WRITE)
    tlb.invalidate(InvalidationRequest(0x2000, 4096, False, None, 0))
    assert (tlb.hits, tlb.misses, tlb.evictions, tlb.dropped) == (2, 1, 1, 1)


def test_capacity_zero_is_no_tlb_and_none_is_unbounded() -> None:
    off, unbounded = DeviceTlb(0), DeviceTlb(None)
    for page in range(1000):
        off.insert(page << 12, translation(page << 12))
        unbounded.insert(page << 12, translation(page << 12))
    assert (len(off), len(unbounded)) == (0, 1000)
    unbounded.clear()
    assert unbounded.lookup(0, READ) is None
    with pytest.raises(ValueError, match="capacity"):
        DeviceTlb(-1)
