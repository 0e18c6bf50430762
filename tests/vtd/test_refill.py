"""The shortcut for common misses: the same answers and counts as the long way, for every page."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, WRITE, CompletionStatus
from pagetables.observed import FailRead, ObservedMemory
from tests.vtd.world import HOST, PAGE, Mode, World
from vtd.cache import UNBOUNDED
from vtd.caches import KEEPS_STALE, CachePolicy, TranslationCaches
from vtd.port import UnitPort
from vtd.remapping import Options
from vtd.request import ATOMIC, INTERRUPT_RANGE

LIKE_HARDWARE = CachePolicy(paging_structure=UNBOUNDED)
NEXT = 0x1000
POLICIES = pytest.mark.parametrize("policy", [KEEPS_STALE, LIKE_HARDWARE])
MODES = pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])


def started(world: World, policy: CachePolicy) -> UnitPort:
    """A port whose requester has been seen before, so that the next miss can take the shortcut."""
    port = world.start(Options(caches=policy)).port()
    assert port.resolve(world.address, READ) == HOST | PAGE
    return port


def counts(caches: TranslationCaches) -> list[object]:
    return [
        dataclasses.asdict(counters)
        for counters in (
            caches.iotlb.counters,
            caches.context.counters,
            caches.second_stage.counters,
        )
    ]


@MODES
@POLICIES
def test_a_second_page_resolves_and_counts_as_on_the_long_way(
    mode: Mode, policy: CachePolicy
) -> None:
    world = World(mode)
    quick, slow = world.start(Options(caches=policy)), world.start(Options(caches=policy))
    slow_port, quick_port = slow.port(), quick.port()
    for address in (world.address, world.address + NEXT, world.address + NEXT):
        slow.unit.caches.iotlb.forget_shortcuts()
        assert quick_port.resolve(address, READ) == slow_port.resolve(address, READ)
    assert counts(quick.unit.caches)[:1] == counts(slow.unit.caches)[:1]
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
    quick, slow = started(world, policy), started(world, policy)
    name = f"second1 {PAGE + NEXT:#x}"
    where, _ = world.places[name]
    world.memory.write(where, entry.to_bytes(8, "little"))
    slow._unit.caches.iotlb.forget_shortcuts()
    assert quick.resolve(world.address + NEXT, access) == slow.resolve(world.address + NEXT, access)


@MODES
@POLICIES
def test_an_invalidation_ends_the_shortcut(mode: Mode, policy: CachePolicy) -> None:
    world = World(mode)
    started_unit = world.start(Options(caches=policy))
    port = started_unit.port()
    port.resolve(world.address, READ)
    started_unit.unit.caches.clear()
    world.change("context", p=False)
    assert port.resolve(world.address + NEXT, READ) is CompletionStatus.UNSUPPORTED_REQUEST


@MODES
@POLICIES
def test_an_error_of_one_read_is_not_read_again(mode: Mode, policy: CachePolicy) -> None:
    world = World(mode)
    started_unit = world.start(Options(caches=policy))
    port = started_unit.port()
    port.resolve(world.address, READ)
    remapping = started_unit.unit.remapping
    remapping.memory = ObservedMemory(remapping.memory, FailRead(1))
    assert port.resolve(world.address + NEXT, READ) is CompletionStatus.UNSUPPORTED_REQUEST


@MODES
def test_the_interrupt_range_is_never_resolved(mode: Mode) -> None:
    world = World(mode, guest=INTERRUPT_RANGE.start >> 30 << 30)
    port = started(world, LIKE_HARDWARE)
    assert port.resolve(INTERRUPT_RANGE.start, READ) is CompletionStatus.UNSUPPORTED_REQUEST
