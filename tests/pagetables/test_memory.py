"""Physical memory against a dict of bytes, and what it refuses."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import BusError, MemoryLayoutError, MemoryState, PhysicalMemory

FRAME = 4096
TOP = 1 << 52
START = 0x10000
SIZE = 4 * FRAME


def make_memory() -> PhysicalMemory:
    memory = PhysicalMemory()
    memory.add_region(START, SIZE)
    return memory


writes = st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(max_size=2 * FRAME)), max_size=8)


@given(writes, st.integers(-8, SIZE + 8), st.integers(1, SIZE))
def test_memory_reads_back_what_a_bytearray_would(
    stores: list[tuple[int, bytes]], offset: int, length: int
) -> None:
    memory, model = make_memory(), bytearray(SIZE)
    for at, data in stores:
        if at + len(data) <= SIZE:
            memory.write(START + at, data)
            model[at : at + len(data)] = data
        else:
            with pytest.raises(BusError):
                memory.write(START + at, data)
    assert memory.read(START, SIZE) == model
    if offset >= 0 and offset + length <= SIZE:
        assert memory.read(START + offset, length) == model[offset : offset + length]
    else:
        with pytest.raises(BusError):
            memory.read(START + offset, length)


@given(st.binary(min_size=64, max_size=64), st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
def test_records_and_frames_are_little_endian(data: bytes, size: int) -> None:
    memory = make_memory()
    data *= FRAME // 64
    memory.write(START, data)
    for offset in range(0, FRAME, 512):
        record = int.from_bytes(data[offset : offset + size], "little")
        assert memory.read_record(START + offset, size) == record
        quadword = int.from_bytes(data[offset : offset + 8], "little")
        assert memory.frames[START >> 12][offset >> 3] == quadword


@given(writes, writes)
def test_a_restored_snapshot_is_the_memory_of_before(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]]
) -> None:
    memory = PhysicalMemory()
    memory.add_region(START, SIZE + 2 * FRAME)
    memory.add_region(0, FRAME, read_only=True)
    memory.load(8, b"firmware")
    for at, data in before:
        memory.write(START + at, data)
    contents, then = memory.snapshot(), memory.read(START, SIZE + 2 * FRAME)
    for at, data in after:
        memory.write(START + at, data)
    memory.load(8, b"replaced")
    changed, later = memory.snapshot(), memory.read(START, SIZE + 2 * FRAME)
    for state, content, loaded in (
        (contents, then, b"firmware"), (changed, later, b"replaced"), (contents, then, b"firmware")
    ):  # fmt: skip
        memory.restore(state)
        assert memory.read(START, SIZE + 2 * FRAME) == content
        assert memory.read(8, 8) == loaded


PLACES = ((0, 2, False), (4, 3, False), (8, 2, True))
"""Regions that come and go: first frame, frames, and whether they are read-only."""
LAST = 11


class Model:
    """The same memory as a dictionary of bytes by frame, copied whenever anything is taken."""

    def __init__(self) -> None:
        self.frames: dict[int, bytes] = {}
        self.read_only: set[int] = set()

    def copy(self) -> Model:
        model = Model()
        model.frames, model.read_only = dict(self.frames), set(self.read_only)
        return model

    def place(self, first: int, count: int, read_only: bool) -> None:
        for number in range(first, first + count):
            self.frames[number] = bytes(FRAME)
            self.read_only |= {number} if read_only else set()

    def remove(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            del self.frames[number]
            self.read_only.discard(number)

    def store(self, address: int, data: bytes, *, loading: bool = False) -> bool:
        touched = range(address // FRAME, (address + len(data) - 1) // FRAME + 1) if data else ()
        for number in touched:
            if number not in self.frames or (number in self.read_only and not loading):
                return False
        for at, byte in enumerate(data, address):
            frame = bytearray(self.frames[at // FRAME])
            frame[at % FRAME] = byte
            self.frames[at // FRAME] = bytes(frame)
        return True


def carried_out(store: Callable[..., object], *arguments: object) -> bool:
    try:
        store(*arguments)
    except BusError:
        return False
    return True


def check_equal(memory: PhysicalMemory, model: Model, numbers: list[int]) -> None:
    for number in numbers:
        frame = model.frames.get(number)
        if frame is None:
            with pytest.raises(BusError):
                memory.read(number * FRAME, 8)
            with pytest.raises(BusError):
                memory.frames[number]
            continue
        assert memory.read(number * FRAME, FRAME) == frame
        quadwords = [memory.frames[number][index] for index in range(512)]
        assert b"".join(word.to_bytes(8, "little") for word in quadwords) == frame
        assert memory.read_record(number * FRAME + 16, 16).to_bytes(16, "little") == frame[16:32]


edges = st.builds(
    lambda number, offset: number * FRAME + offset,
    st.integers(0, LAST),
    st.sampled_from([0, 8, 16, FRAME - 8, FRAME - 1]),
)
some = st.binary(max_size=24)


def write(memory: PhysicalMemory, model: Model, data: st.DataObject) -> None:
    address, stored = data.draw(edges), data.draw(some)
    assert carried_out(memory.write, address, stored) == model.store(address, stored)


def load(memory: PhysicalMemory, model: Model, data: st.DataObject) -> None:
    address, stored = data.draw(edges), data.draw(some)
    done = model.store(address, stored, loading=True)
    assert carried_out(memory.load, address, stored) == done


def look(memory: PhysicalMemory, model: Model, data: st.DataObject) -> None:
    check_equal(memory, model, [data.draw(st.integers(0, LAST))])


def plug(memory: PhysicalMemory, model: Model, data: st.DataObject) -> None:
    """A region goes away, or comes back empty."""
    first, count, _ = data.draw(st.sampled_from(PLACES))
    if first in model.frames:
        memory.remove_region(first * FRAME)
        model.remove(first, count)
        return
    read_only = data.draw(st.booleans())
    memory.add_region(first * FRAME, count * FRAME, read_only=read_only)
    model.place(first, count, read_only)


def exchange(memory: PhysicalMemory, model: Model, data: st.DataObject) -> None:
    """A compare-exchange of a record, with the value that is there or with another one."""
    size = data.draw(st.sampled_from([8, 16]))
    number, index = data.draw(st.integers(0, LAST)), data.draw(st.integers(0, 2))
    address, new = number * FRAME + index * size, data.draw(some)[:size].ljust(size, b"+")
    old = model.frames.get(number, bytes(FRAME))[index * size :][:size]
    expected = int.from_bytes(old, "little") + data.draw(st.integers(0, 1))
    arguments = (address, size, expected, int.from_bytes(new, "little"))
    if number not in model.frames or number in model.read_only:
        assert not carried_out(memory.compare_exchange, *arguments)
        return
    same = expected == int.from_bytes(old, "little")
    assert memory.compare_exchange(*arguments) == same
    if same:
        model.store(address, new)


CHANGES = {"write": write, "load": load, "exchange": exchange, "look": look, "plug": plug}


@given(st.data())
def test_memories_snapshots_and_forks_never_see_each_others_changes(data: st.DataObject) -> None:
    memories = [(PhysicalMemory(), Model())]
    for first, count, read_only in PLACES:
        memories[0][0].add_region(first * FRAME, count * FRAME, read_only=read_only)
        memories[0][1].place(first, count, read_only)
    states: list[tuple[MemoryState, Model]] = []
    for _ in range(data.draw(st.integers(1, 24))):
        at = data.draw(st.integers(0, len(memories) - 1))
        memory, model = memories[at]
        action = data.draw(st.sampled_from([*CHANGES, "snapshot", "restore", "fork", "pickle"]))
        if action in CHANGES:
            CHANGES[action](memory, model, data)
        elif action == "snapshot":
            states.append((memory.snapshot(), model.copy()))
        elif action == "restore" and states:
            state, then = data.draw(st.sampled_from(states))
            memory.restore(state)
            memories[at] = memory, then.copy()
        elif action == "fork":
            memories.append((memory.fork(), model.copy()))
        elif action == "pickle":
            memories[at] = pickle.loads(pickle.dumps(memory)), model
    for memory, model in memories:
        check_equal(memory, model, list(range(LAST + 1)))
    for state, model in states:
        written = {number: frame for number, frame in model.frames.items() if any(frame)}
        assert {number: frame for number, frame in state.items() if any(frame)} == written
        assert pickle.loads(pickle.dumps(state)) == state == copy.copy(state)


def test_a_host_whose_quadwords_are_big_endian_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("pagetables.memory")
    assert spec is not None and spec.loader is not None
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(ImportError, match="a little-endian host is needed"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_states_differ_by_contents_and_by_regions() -> None:
    memory = make_memory()
    blank = memory.snapshot()
    memory.write(START, b"x")
    assert memory.snapshot() != blank
    written = memory.snapshot()
    assert (len(blank), len(written)) == (0, 1)
    memory.write(START, b"x")
    assert memory.snapshot() == written == {START >> 12: b"x".ljust(FRAME, bytes(1))}
    memory.restore(blank)
    assert memory.snapshot() == blank
    memory.add_region(0, FRAME)
    assert memory.snapshot() != blank


def test_what_many_snapshots_share_stays_in_few_layers() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 1000 * FRAME)
    for number in range(1000):
        memory.write(number * FRAME, number.to_bytes(4, "little"))
        state = memory.snapshot()
    assert len(state.layers) <= 10
    assert [memory.read_record(number * FRAME, 8) for number in range(1000)] == list(range(1000))


def test_memory_that_nobody_wrote_is_not_in_a_snapshot() -> None:
    memory = make_memory()
    memory.read(START, SIZE)
    assert memory.snapshot() == {}


def test_a_compare_exchange_stores_only_over_the_expected_value() -> None:
    memory = make_memory()
    assert memory.compare_exchange(START + 16, 8, 0, 5)
    assert not memory.compare_exchange(START + 16, 8, 0, 6)
    assert memory.read_record(START + 16, 8) == 5
    assert memory.compare_exchange(START + 16, 16, 5, 7 << 64)
    assert memory.read_record(START + 24, 8) == 7


def test_a_refused_write_stores_nothing() -> None:
    memory = make_memory()
    with pytest.raises(BusError, match="0x14000: no memory here"):
        memory.write(START + SIZE - 1, b"ab")
    assert memory.read(START + SIZE - 1, 1) == b"\0"


def test_read_only_memory_takes_what_is_loaded_but_no_write() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, FRAME, read_only=True)
    assert memory.read(0, 4) == bytes(4)
    memory.load(0, b"rom!")
    memory.load(4, b"more")
    assert memory.read(0, 8) == b"rom!more"
    with pytest.raises(BusError, match="read-only"):
        memory.write(0, b"x")
    with pytest.raises(BusError, match="read-only"):
        memory.compare_exchange(0, 8, 0, 1)
    assert memory.read(0, 4) == b"rom!"


def test_a_removed_region_is_a_hole_and_comes_back_empty() -> None:
    memory = make_memory()
    memory.add_region(0, FRAME, read_only=True)
    memory.load(0, b"rom")
    memory.write(START, b"data")
    for start, length in ((0, FRAME), (START, SIZE)):
        memory.remove_region(start)
        with pytest.raises(BusError, match="no memory here"):
            memory.read(start, 1)
        memory.add_region(start, length)
        assert memory.read(start, 4) == bytes(4)


def test_regions_are_listed_in_ascending_order() -> None:
    memory = make_memory()
    memory.add_region(TOP - FRAME, FRAME)
    memory.add_region(0, FRAME)
    assert [region.start for region in memory.regions] == [0, START, TOP - FRAME]


@pytest.mark.parametrize(
    ("start", "length", "message"),
    [
        (START + SIZE - FRAME, FRAME, "overlaps"),
        (START - FRAME, 2 * FRAME, "overlaps"),
        (0, 1 << 40, "overlaps"),
        (0, 0, "empty"),
        (0, -FRAME, "empty"),
        (-FRAME, FRAME, "outside"),
        (TOP, FRAME, "outside"),
        (0, 100, "whole 4 KiB frames"),
        (8, FRAME, "whole 4 KiB frames"),
    ],
)
def test_regions_that_can_not_be_are_refused(start: int, length: int, message: str) -> None:
    memory = make_memory()
    with pytest.raises(MemoryLayoutError, match=message):
        memory.add_region(start, length)
    assert len(memory.regions) == 1


def test_only_the_start_of_a_region_names_it() -> None:
    with pytest.raises(MemoryLayoutError, match="no region begins at 0x11000"):
        make_memory().remove_region(START + FRAME)


@pytest.fixture
def shared_file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "ram"
    path.write_bytes(bytes(FRAME) + b"theirs" + bytes(2 * FRAME - 6))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def test_a_mapped_region_is_the_memory_of_the_file(shared_file: int) -> None:
    memory = PhysicalMemory()
    memory.map_region(START, shared_file, FRAME, 2 * FRAME)
    assert memory.read(START, 6) == b"theirs"
    memory.write(START + FRAME - 1, b"ours")
    assert os.pread(shared_file, 4, 2 * FRAME - 1) == b"ours"
    os.pwrite(shared_file, b"again", FRAME)
    assert memory.read(START, 5) == b"again"
    assert memory.compare_exchange(START + 8, 8, 0, 1)
    state = memory.snapshot()
    assert state == {}
    memory.restore(state)
    assert memory.read(START, 5) == b"again"


POLLED = """
import mmap, os, signal, sys
from pagetables.memory import PhysicalMemory

at, size, polled, rounds = map(int, sys.argv[1:])
file = os.memfd_create("shared")
os.truncate(file, 8192)
view = memoryview(mmap.mmap(file, 8192))
answered = view[4096:].cast("Q")
reader = os.fork()
if not reader:
    for number in range(1, rounds + 1):
        value = number % 255 + 1
        while not view[at + polled]:
            os.sched_yield()
        whole = view[at : at + size].tobytes()
        view[at : at + size] = bytes(size)
        if whole != bytes([value]) * size:
            answered[0] = rounds
            os._exit(1)
        answered[0] = number
    os._exit(0)
memory = PhysicalMemory()
memory.map_region(0, file, 0, 8192)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
for number in range(1, rounds + 1):
    memory.write(at, bytes([number % 255 + 1]) * size)
    while answered[0] < number:
        os.sched_yield()
signal.setitimer(signal.ITIMER_REAL, 0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]))
"""
"""A process polls one byte of a record, looks at all of it then, and clears it.

It ends with 1 where the record is not whole, or is one that it has cleared already. Whoever writes
the records is interrupted all the time.
"""


@pytest.mark.parametrize(
    ("at", "size", "polled"),
    [(64, 1, 0), (66, 2, 0), (68, 4, 0), (72, 8, 0), (80, 16, 15), (96, 32, 0), (128, 64, 0)],
)
def test_who_polls_a_record_in_shared_memory_sees_it_whole_and_once(
    at: int, size: int, polled: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", POLLED, *map(str, (at, size, polled, 50_000))],
        check=False,
    )
    assert done.returncode == 0


@given(st.integers(0, FRAME + 80), st.binary(max_size=80))
def test_stores_to_shared_memory_are_made_as_everywhere_else(at: int, data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * FRAME)
        memory = PhysicalMemory()
        memory.map_region(0, file.fileno(), 0, 2 * FRAME)
        memory.write(at, data)
        assert memory.read(0, 2 * FRAME) == bytes(at) + data + bytes(2 * FRAME - at - len(data))


def test_a_region_mapped_read_only_can_not_be_written(shared_file: int) -> None:
    memory = PhysicalMemory()
    memory.map_region(START, shared_file, FRAME, FRAME, read_only=True)
    assert memory.read(START, 6) == b"theirs"
    for store in (memory.write, memory.load):
        with pytest.raises(BusError, match="read-only"):
            store(START, b"ours")


def test_forks_share_what_is_mapped_and_pickles_refuse_it(shared_file: int) -> None:
    memory = PhysicalMemory()
    memory.map_region(START, shared_file, FRAME, FRAME)
    fork = memory.fork()
    fork.write(START, b"fork")
    assert memory.read(START, 4) == b"fork"
    assert memory.shared_with_others and fork.shared_with_others
    assert not make_memory().fork().shared_with_others
    with pytest.raises(TypeError, match="0x10000-0x11000 can't be pickled: remove the region"):
        pickle.dumps(memory)


def test_a_state_does_not_push_a_mapped_region_aside(shared_file: int) -> None:
    memory = make_memory()
    memory.write(START, b"before")
    state = memory.snapshot()
    memory.remove_region(START)
    memory.map_region(START, shared_file, FRAME, FRAME)
    with pytest.raises(MemoryLayoutError, match="overlaps"):
        memory.restore(state)
    assert memory.read(START, 6) == b"theirs"
    memory.remove_region(START)
    memory.restore(state)
    assert memory.read(START, 6) == b"before"


spans = st.tuples(st.integers(0, 7), st.integers(1, 8))


@given(
    st.booleans(),
    st.lists(st.one_of(spans, st.tuples(st.integers(0, 7), st.binary(min_size=1, max_size=9)))),
)
def test_what_is_left_of_regions_after_ranges_were_taken_away_reads_as_before(
    mapped: bool, steps: list[tuple[int, int | bytes]]
) -> None:
    memory = PhysicalMemory()
    model = dict(enumerate([bytes(FRAME)] * 8))
    with tempfile.TemporaryFile() as file:
        file.truncate(8 * FRAME)
        for first, end in ((0, 3), (3, 8)):
            if mapped:
                length = (end - first) * FRAME
                memory.map_region(first * FRAME, file.fileno(), first * FRAME, length)
            else:
                memory.add_region(first * FRAME, (end - first) * FRAME)
        for number, what in steps:
            if isinstance(what, int):
                memory.remove_range(number * FRAME, (number + what) * FRAME)
                for each in range(number, number + what):
                    model.pop(each, None)
            elif number in model:
                memory.write(number * FRAME, what)
                model[number] = what + model[number][len(what) :]
            for each in range(8):
                if each in model:
                    assert memory.read(each * FRAME, FRAME) == model[each]
                else:
                    with pytest.raises(BusError):
                        memory.read(each * FRAME, 1)
    assert sum(region.end - region.start for region in memory.regions) == len(model) * FRAME
    for region in memory.regions:
        assert region.backing is None or len(region.backing) == region.end - region.start
    for each in set(range(8)) - set(model):
        memory.add_region(each * FRAME, FRAME)
        assert memory.read(each * FRAME, FRAME) == bytes(FRAME)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (FRAME, 0), (0, 100), (8, FRAME)])
def test_no_range_is_taken_away_in_parts_of_frames(start: int, end: int) -> None:
    with pytest.raises(MemoryLayoutError):
        make_memory().remove_range(start, end)


@pytest.mark.parametrize(("offset", "length"), [(1, FRAME), (0, 8 * FRAME), (-FRAME, FRAME)])
def test_what_the_file_does_not_have_can_not_be_mapped(
    shared_file: int, offset: int, length: int
) -> None:
    memory = PhysicalMemory()
    with pytest.raises(MemoryLayoutError, match="can't map"):
        memory.map_region(0, shared_file, offset, length)
    assert memory.regions == ()


def test_whoever_follows_hears_of_frames_that_are_elsewhere() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 0x10_000)
    moves: list[int | None] = []
    memory.follow(moves.append)
    assert not memory.is_own(3)
    memory.write(0x3000, b"first")  # a frame of its own, instead of a blank one
    memory.write(0x3008, b"again")
    assert moves == [3]
    assert memory.is_own(3)
    memory.snapshot()  # it is shared, until somebody writes
    assert moves == [3, None]
    assert not memory.is_own(3)
    memory.own(3)
    assert moves == [3, None, 3]
    assert memory.is_own(3)
    memory.remove_range(0x3000, 0x4000)
    memory.add_region(0x3000, 0x1000, read_only=True)
    assert moves == [3, None, 3, None, None]
    with pytest.raises(BusError, match="read-only memory"):
        memory.own(3)


def test_watchers_are_told_of_stores_before_they_are_made_until_they_are_not_any_more() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 0x1000)
    told: list[tuple[int, bytes, int]] = []

    def watch(address: int, data: bytes) -> None:
        told.append((address, data, memory.read_record(8, 8)))

    def other(address: int, data: bytes) -> None:
        told.clear()

    memory.watch(watch)
    memory.watch(other)
    memory.ignore(other)
    assert memory.watched
    memory.write(8, b"\x01")
    memory.load(8, b"\x02")
    assert memory.compare_exchange(8, 8, 2, 3)
    eight = bytes([3, *bytes(7)])
    assert told == [(8, b"\x01", 0), (8, b"\x02", 1), (8, eight, 2)]
    memory.ignore(watch)
    memory.write(8, b"\x04")
    assert len(told) == 3
    assert not memory.watched
    with pytest.raises(ValueError, match="not in list"):
        memory.ignore(watch)


def test_an_error_names_the_address_of_read_only_memory() -> None:
    memory = PhysicalMemory()
    memory.add_region(3 * FRAME, FRAME, read_only=True)
    with pytest.raises(BusError) as raised:
        memory.write(3 * FRAME + 8, b"x")
    assert raised.value.address == 3 * FRAME
