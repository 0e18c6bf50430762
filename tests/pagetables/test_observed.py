"""Observed memory: every access is told, and errors come exactly where they were asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import BusError, PhysicalMemory
from pagetables.observed import (
    AccessKind,
    CountReads,
    FailRange,
    FailRead,
    InjectedError,
    InjectedRangeError,
    InjectedReadError,
    ObservedMemory,
    UnchangedMemory,
)
from pagetables.walk import WalkFault, WalkRule, walk
from tests.strategies import Path, valid_paths

Told = tuple[AccessKind, int, int, int]


@pytest.fixture
def memory() -> PhysicalMemory:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x2000)
    memory.write(0x1008, bytes(range(16)))
    return memory


def test_each_access_is_told_with_its_value(memory: PhysicalMemory) -> None:
    told: list[Told] = []
    watched = ObservedMemory(memory, lambda *access: told.append(access))
    low, high = 0x0706050403020100, 0x0F0E0D0C0B0A0908
    assert watched.frames[1][1] == low
    assert watched.read_record(0x1008, 16) == high << 64 | low
    assert not watched.compare_exchange(0x1010, 8, 0, 1)
    assert watched.compare_exchange(0x1010, 8, high, 1)
    watched.write(0x1FFE, b"\1\2\3\4")
    assert told == [
        (AccessKind.READ, 0x1008, 8, low),
        (AccessKind.READ, 0x1008, 16, high << 64 | low),
        (AccessKind.UPDATE, 0x1010, 8, 1),
        (AccessKind.UPDATE, 0x1010, 8, 1),
        (AccessKind.WRITE, 0x1FFE, 4, 0x04030201),
    ]
    assert memory.read_record(0x1010, 8) == 1
    assert memory.read(0x1FFE, 4) == b"\1\2\3\4"


def test_a_hole_is_a_hole_and_is_not_told(memory: PhysicalMemory) -> None:
    reads = CountReads()
    watched = ObservedMemory(memory, reads)
    with pytest.raises(BusError, match="no memory here"):
        watched.frames[0][0]
    assert reads.count == 0


@given(valid_paths(), st.integers(1, 6))
def test_the_nth_read_of_a_walk_fails_and_the_next_walk_does_not(path: Path, number: int) -> None:
    stage = path.setup.stage
    reads = CountReads()
    found = walk(ObservedMemory(path.scene.memory(), reads), stage, path.address)
    watched = ObservedMemory(path.scene.memory(), FailRead(number))
    if number > reads.count:
        assert walk(watched, stage, path.address) == found
        return
    with pytest.raises(WalkFault) as caught:
        walk(watched, stage, path.address)
    assert caught.value.rule is WalkRule.READ_ERROR
    assert caught.value.shift == stage.geometry.levels[number - 1].shift
    assert isinstance(caught.value.__cause__, InjectedReadError)
    assert walk(watched, stage, path.address) == found


def test_the_nth_read_does_not_count_other_accesses(memory: PhysicalMemory) -> None:
    watched = ObservedMemory(memory, FailRead(2))
    watched.read_record(0x1000, 8)
    watched.write(0x1000, b"x")
    with pytest.raises(InjectedReadError, match="0x1008: injected error: read number 2"):
        watched.read_record(0x1008, 8)


@given(st.integers(0x1000, 0x1100), st.integers(1, 64), st.integers(0, 0x20))
def test_a_range_fails_whatever_touches_it(start: int, length: int, slot: int) -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x1000)
    watched = ObservedMemory(memory, FailRange(start, start + length))
    address = 0x1000 + 8 * slot
    touched = any(start <= byte < start + length for byte in range(address, address + 8))
    for act in (
        lambda: watched.frames[1][slot],
        lambda: watched.read_record(address, 8),
        lambda: watched.compare_exchange(address, 8, 0, 0),
        lambda: watched.write(address, bytes(8)),
    ):
        if touched:
            with pytest.raises(InjectedRangeError, match="injected error"):
                act()
        else:
            act()


def test_a_refused_store_leaves_memory_as_it_was(memory: PhysicalMemory) -> None:
    watched = ObservedMemory(memory, FailRange(0x1000, 0x3000, AccessKind.UPDATE))
    with pytest.raises(InjectedError, match="update in 0x1000-0x3000"):
        watched.compare_exchange(0x1000, 8, 0, 1)
    assert memory.read_record(0x1000, 8) == 0
    watched.write(0x1000, b"\7")
    assert watched.read_record(0x1000, 8) == 7


@given(valid_paths())
def test_looking_at_tables_changes_nothing(path: Path) -> None:
    memory = path.scene.memory()
    before = memory.snapshot()
    unchanged = UnchangedMemory(memory)
    looked = walk(unchanged, path.setup.stage, path.address)
    unchanged.write(path.setup.tables.root, b"nothing")
    assert unchanged.read_record(path.setup.tables.root, 8) == memory.read_record(
        path.setup.tables.root, 8
    )
    assert memory.snapshot() == before
    assert looked == walk(memory, path.setup.stage, path.address)
