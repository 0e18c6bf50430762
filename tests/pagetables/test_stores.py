"""Stores that wait: seen by the processor at once, by others after a flush and a drain."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import BusError, PhysicalMemory
from pagetables.stores import LINE, ProcessorStores

SIZE = 0x2000


def make(*, caches: bool = True, buffers: bool = False) -> ProcessorStores:
    memory = PhysicalMemory()
    memory.add_region(0, SIZE)
    return ProcessorStores(memory, caches=caches, buffers=buffers)


addresses = st.integers(0, SIZE - 64).map(lambda address: address & ~7)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), addresses, st.binary(min_size=1, max_size=64)),
        st.tuples(st.just("flush"), addresses, st.just(b"\1" * 64)),
        st.tuples(st.just("drain"), st.just(0), st.just(b"")),
    ),
    max_size=30,
)


@given(actions=actions, caches=st.booleans(), buffers=st.booleans())
def test_others_see_a_line_as_it_was_when_it_last_arrived(
    actions: list[tuple[str, int, bytes]], caches: bool, buffers: bool
) -> None:
    stores = make(caches=caches, buffers=buffers)
    mine, theirs = bytearray(SIZE), bytearray(SIZE)
    cached: set[int] = set()
    buffered: set[int] = set()
    for what, address, data in actions:
        lines = range(address // LINE, (address + len(data) - 1) // LINE + 1)
        if what == "write":
            stores.write(address, data)
            mine[address : address + len(data)] = data
            fresh = {line for line in lines if line not in buffered}
            if caches:
                cached |= fresh
            elif buffers:
                buffered |= fresh
        elif what == "flush":
            stores.flush(address, len(data))
            moved = cached & set(lines)
            cached -= moved
            if buffers:
                buffered |= moved
        else:
            stores.drain()
            buffered.clear()
        for line in range(SIZE // LINE):
            if line not in cached and line not in buffered:
                here = slice(line * LINE, line * LINE + LINE)
                theirs[here] = mine[here]
    assert stores.read(0, SIZE) == mine
    seen = b"".join(
        stores.unsnooped.frames[address >> 12][address >> 3 & 511].to_bytes(8, "little")
        for address in range(0, SIZE, 8)
    )
    assert seen == theirs
    records = [stores.unsnooped.read_record(address, 16) for address in range(0, SIZE, 16)]
    assert b"".join(record.to_bytes(16, "little") for record in records) == theirs


def test_snooped_walks_see_cache_lines_but_no_write_buffers() -> None:
    for buffers, seen in ((False, 1), (True, 0)):
        stores = make(caches=not buffers, buffers=buffers)
        stores.unsnooped.snoops_walks = True
        stores.write(0x1000, b"\1")
        assert stores.unsnooped.frames[1][0] == seen
        assert stores.unsnooped.read_record(0x1000, 8) == 0


def test_stores_of_the_unit_are_seen_by_everybody() -> None:
    stores = make()
    stores.write(0x40, bytes(8))
    assert stores.unsnooped.compare_exchange(0x80, 8, 0, 5)
    stores.unsnooped.write(0x88, b"\7")
    assert stores.read(0x80, 16) == bytes([5, *bytes(7), 7, *bytes(7)])
    assert stores.compare_exchange(0x80, 8, 5, 6)
    assert stores.unsnooped.read_record(0x80, 8) == 5
    assert not stores.compare_exchange(0x80, 8, 5, 7)
    assert stores.host(0x80) == stores.unsnooped.host(0x80) == 0x80


def test_where_there_is_no_memory_nothing_waits() -> None:
    stores = make()
    for write in (stores.write, stores.load):
        with pytest.raises(BusError):
            write(SIZE, b"\1")
    assert not stores.held


def test_what_waits_is_part_of_a_copy() -> None:
    stores = make()
    stores.load(0x40, b"\1")
    again = pickle.loads(pickle.dumps(stores.unsnooped))
    assert again.read_record(0x40, 8) == 0
    again.stores.flush(0x40, 0)
    assert again.read_record(0x40, 8) == 1
    assert stores.unsnooped.read_record(0x40, 8) == 0


@pytest.mark.parametrize(
    ("address", "length", "left"),
    [
        (0, LINE, {1, 2}),
        (LINE - 1, 1, {1, 2}),
        (LINE - 1, 2, {2}),
        (LINE, 0, {0, 2}),
    ],
)
def test_a_flush_takes_the_lines_that_it_touches(address: int, length: int, left: set[int]) -> None:
    stores = make()
    stores.write(0, b"x" * 3 * LINE)
    stores.flush(address, length)
    assert set(stores.held) == left


def test_a_watcher_is_told_of_stores_until_it_is_to_be_told_of_none() -> None:
    seen = make().unsnooped
    told: list[int] = []

    def watch(address: int, data: bytes) -> None:
        told.append(address)

    seen.watch(watch)
    seen.write(8, b"1")
    seen.ignore(watch)
    seen.write(16, b"1")
    assert told == [8]
    with pytest.raises(ValueError, match="not in"):
        seen.ignore(watch)


def test_stores_wait_in_cache_lines_alone_unless_said_otherwise() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, SIZE)
    stores = ProcessorStores(memory)
    stores.write(0, b"\1")
    assert stores.unsnooped.read_record(0, 8) == 0
    stores.flush(0, 1)  # no write buffer is behind them
    assert stores.unsnooped.read_record(0, 8) == 1


def test_a_store_of_nothing_waits_nowhere() -> None:
    stores = make()
    stores.write(0x48, b"")
    assert not stores.held
