"""The shortcut for common misses: the same answers and counts as the long way, for every page."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, WRITE, CompletionStatus
from pagetables.observed import FailRead, ObservedMemory
from pagetables.second_stage import SecondStageEntry, SecondStagePage2M, SecondStagePage4K
from tests.vtd.world import HOST, PAGE, Mode, Started, World, capabilities
from vtd.layouts.registers import RootTableAddress, TranslationTableMode
from vtd.unit.caching.cache import UNBOUNDED
from vtd.unit.caching.caches import TranslationCaches
from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.options import Options
from vtd.unit.requests.request import ATOMIC, INTERRUPT_RANGE
from vtd.unit.unit import RemappingUnit

LIKE_HARDWARE = CachePolicy(paging_structure=UNBOUNDED)
NEXT = 0x1000
POLICIES = pytest.mark.parametrize("policy", [KEEPS_STALE, LIKE_HARDWARE])
MODES = pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
REFUSED = CompletionStatus.UNSUPPORTED_REQUEST


def is_ready(started: Started) -> bool:
    """Whether the next miss may take the shortcut."""
    space = started.unit.caches.iotlb.space((started.world.source_id, None, False))
    return space.shortcut is not None


def begin(world: World, policy: CachePolicy) -> Started:
    """A unit that has seen the requester before; its memory is not observed."""
    started = Started(world, RemappingUnit(world.unit, world.memory, Options(caches=policy)))
    started.set_root(world.root)
    started.command(te=True)
    assert started.port().resolve(world.address, READ) == HOST | PAGE
    assert is_ready(started)
    return started


def counts(caches: TranslationCaches) -> list[object]:
    return [
        dataclasses.asdict(counters)
        for counters in (
            caches.iotlb.counters,
            caches.context.counters,
            caches.pasid.counters,
            caches.second_stage.counters,
        )
    ]


@MODES
@POLICIES
def test_a_second_page_resolves_and_counts_as_on_the_long_way(
    mode: Mode, policy: CachePolicy
) -> None:
    world = World(mode)
    quick, slow = begin(world, policy), begin(world, policy)
    for address in (world.address + NEXT, world.address + NEXT, world.address + 2 * NEXT):
        slow.unit.caches.iotlb.forget_shortcuts()
        assert quick.port().resolve(address, READ) == slow.port().resolve(address, READ)
    assert counts(quick.unit.caches) == counts(slow.unit.caches)
    assert [entry for _, entry in quick.unit.caches.iotlb] == [
        entry for _, entry in slow.unit.caches.iotlb
    ]


@MODES
@POLICIES
@given(entry=st.integers(0, (1 << 64) - 1), access=st.sampled_from([READ, WRITE, ATOMIC]))
def test_any_entry_has_the_outcome_of_the_long_way(
    mode: Mode, policy: CachePolicy, entry: int, access: int
) -> None:
    world = World(mode)
    quick, slow = begin(world, policy), begin(world, policy)
    name = f"second1 {PAGE + NEXT:#x}"
    where, _ = world.places[name]
    world.memory.write(where, entry.to_bytes(8, "little"))
    slow.unit.caches.iotlb.forget_shortcuts()
    address = world.address + NEXT
    assert quick.port().resolve(address, access) == slow.port().resolve(address, access)


@MODES
@POLICIES
def test_an_invalidation_ends_the_shortcut(mode: Mode, policy: CachePolicy) -> None:
    world = World(mode)
    started = begin(world, policy)
    started.unit.caches.clear()
    assert not is_ready(started)
    world.change("context", p=False)
    assert started.port().resolve(world.address + NEXT, READ) is REFUSED


@POLICIES
def test_another_translation_table_mode_ends_the_shortcut(policy: CachePolicy) -> None:
    """Without ESRTPS the caches stay as they are (6.6); what is not in them is refused."""
    world = World(Mode.LEGACY, capabilities(esrtps=0))
    started = begin(world, policy)
    started.set_root(RootTableAddress.of(ttm=TranslationTableMode.ABORT_DMA))
    assert started.port().resolve(world.address, READ) == HOST | PAGE
    assert started.port().resolve(world.address + NEXT, READ) is REFUSED


@POLICIES
@pytest.mark.parametrize("quickly", [True, False])
def test_a_large_page_is_kept_until_an_invalidation(policy: CachePolicy, quickly: bool) -> None:
    world = World(Mode.LEGACY)
    started = begin(world, policy)
    port, size = started.port(), 1 << 21
    address, (directory_entry, _) = world.address + size, world.places["second2"]
    large = SecondStagePage2M.of(r=True, w=True, ps=True, addr=HOST)
    world.memory.write(directory_entry + 8, large.pack())
    assert port.resolve(address, READ) == HOST | PAGE
    table = SecondStageEntry.of(r=True, w=True, addr=0x1_F000)
    world.memory.write(directory_entry + 8, table.pack())
    page = SecondStagePage4K.of(r=True, w=True, addr=HOST)
    world.memory.write(0x1_F000 | ((PAGE + NEXT) >> 12 & 511) * 8, page.pack())
    if not quickly:
        started.unit.caches.iotlb.forget_shortcuts()
    assert port.resolve(address + NEXT, READ) == HOST | PAGE + NEXT
    started.unit.caches.invalidate_iotlb_global()
    assert port.resolve(address + NEXT, READ) == HOST


@MODES
@POLICIES
def test_an_error_of_one_read_is_not_read_again(mode: Mode, policy: CachePolicy) -> None:
    world = World(mode)
    started = begin(world, policy)
    remapping = started.unit.remapping
    remapping.memory = ObservedMemory(remapping.memory, FailRead(1))
    assert started.port().resolve(world.address + NEXT, READ) is REFUSED


@MODES
@POLICIES
def test_the_interrupt_range_is_never_resolved(mode: Mode, policy: CachePolicy) -> None:
    address = INTERRUPT_RANGE.start
    world = World(mode, guest=address >> 30 << 30)
    second2, table = world.places["second2"][0], world.get("second2")
    world.memory.write(second2 + (address >> 21 & 511) * 8, table.pack())
    page = SecondStagePage4K.of(r=True, w=True, addr=HOST)
    for index in (0, 0x100):  # in the range, and just above it
        world.memory.write(table.addr + index * 8, page.pack())
    port = begin(world, policy).port()
    assert port.resolve(INTERRUPT_RANGE.stop, READ) == HOST
    assert port.resolve(address, READ) is REFUSED
