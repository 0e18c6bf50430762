"""The kernel of sweeps counts and keeps what a scalar unit of the same shapes counts and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="sweeps need the batch extra")
pytest.importorskip("numba", reason="sweeps need the batch extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from devices.dma import READ, Request  # noqa: E402
from pagetables.build import FramePool  # noqa: E402
from pagetables.memory import PhysicalMemory  # noqa: E402
from pagetables.observer import Structure  # noqa: E402
from tests.support.interpreted import interpreted  # noqa: E402
from vtd.batch.columns import ONLY_LEAVES, RowKind, new_rows  # noqa: E402
from vtd.software.driver import Driver  # noqa: E402
from vtd.sweeps import kernel  # noqa: E402
from vtd.sweeps.designs import Invalidating, Pass  # noqa: E402
from vtd.sweeps.outcomes import Counts  # noqa: E402
from vtd.sweeps.simulation import (  # noqa: E402
    Requesters,
    Run,
    Simulation,
    batch_of,
    contents,
    counts_of,
)
from vtd.traces.rows import TraceError, TraceRow  # noqa: E402
from vtd.unit.caching.cache import OFF, Replacement, Shape  # noqa: E402
from vtd.unit.caching.policy import KEEPS_STALE  # noqa: E402
from vtd.unit.observer import Observer  # noqa: E402
from vtd.unit.options import Options  # noqa: E402
from vtd.unit.port import UnitPort  # noqa: E402
from vtd.unit.registers.capabilities import PROFILES  # noqa: E402
from vtd.unit.unit import RemappingUnit  # noqa: E402

SHIFTS = {"4K": 12, "2M": 21}
BASES = (0, 40 << 21, 1 << 30, 3 << 39)
"""Where mapped areas of 16 pages begin: they share tables of every level, or do not."""
SOURCES = (0x10, 0x18, 0x21)
CHECKED = (Replacement.LRU, Replacement.FIFO)
"""Random replacement chooses by other numbers, so that no two caches have the same victims."""


@pytest.fixture(scope="module", autouse=True, params=["compiled", "by Python"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Python notices an index beyond its array, compiled code does not."""
    with nullcontext() if request.param == "compiled" else interpreted(kernel):
        yield


class Reads(Observer):
    """How many second-stage entries were read."""

    count = 0

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self.count += structure is Structure.SECOND_STAGE


class Scalar:
    """A unit with the areas mapped for each source, in a domain of its own."""

    def __init__(self, iotlb: Shape, structures: Shape, shift: int) -> None:
        memory = PhysicalMemory()
        memory.add_region(0, 1 << 32)
        policy = replace(KEEPS_STALE, iotlb=iotlb, paging_structure=structures)
        self.unit = RemappingUnit(PROFILES["qemu"], memory, Options(caches=policy))
        driver = Driver(self.unit, memory, FramePool(0x10_0000, 0x200_0000))
        driver.start()
        self.domains = {}
        for source in SOURCES:
            domain = driver.domain(levels=4, largest=shift)
            for base in BASES:
                domain.map(base, 0x4000_0000, 16 << shift)
            driver.attach(source, domain)
            self.domains[source] = domain.domain_id
        self.ports = {each: UnitPort(self.unit, memory, each) for each in SOURCES}
        self.unit.caches.clear()
        self.reads = Reads()
        self.unit.observe(self.reads)
        self.before = replace(self.unit.caches.iotlb.counters)

    def take(self, row: TraceRow) -> None:
        caches, domain = self.unit.caches, self.domains[row.source_id]
        if row.kind == RowKind.DMA:
            request = Request(row.source_id, row.address, READ, row.length)
            assert self.ports[row.source_id].request(request).ok
        elif row.length == 0:
            caches.invalidate_iotlb_domain(domain)
        else:
            hint = bool(row.attributes & ONLY_LEAVES)
            end = row.address + row.length
            caches.invalidate_iotlb_pages(domain, row.address, end, hint=hint)

    def misses(self) -> int:
        return self.unit.caches.iotlb.counters.misses - self.before.misses

    def contents(self) -> list[list[tuple[int, int]]]:
        return [
            [(number, SOURCES.index(kind[0])) for kind, _, number in reversed(entries)]
            for entries in self.unit.caches.iotlb._sets
        ]


@st.composite
def rows(draw: st.DrawFn, shift: int) -> list[TraceRow]:
    """Requests of up to three 4 KiB pages, and invalidations of aligned ranges or of all."""
    page, some = 1 << shift, st.integers(0, 15)
    found = []
    for _ in range(draw(st.integers(1, 60))):
        source, at = draw(st.sampled_from(SOURCES)), draw(st.sampled_from(BASES))
        address = at + draw(some) * page
        if draw(st.integers(0, 5)):
            offset = draw(st.integers(0, min(page, 1 << 14) - 1))
            length = draw(st.sampled_from([1, 64, 4096, 8192]))
            length = min(length, at + 16 * page - address - offset)
            found.append(TraceRow(0, address + offset, 0, length, source_id=source))
            continue
        size = page << draw(st.integers(0, 4))
        length = draw(st.sampled_from([0, size, size]))
        attributes = draw(st.sampled_from([0, ONLY_LEAVES]))
        found.append(
            TraceRow(0, address & -size, 0, length, source_id=source, kind=RowKind.INVALIDATE,
                     access=0, attributes=attributes)
        )  # fmt: skip
    return found


def columns(trace: list[TraceRow]) -> dict[str, NDArray[Any]]:
    array = np.array(trace, new_rows(0).dtype)
    return {name: np.ascontiguousarray(array[name]) for name in TraceRow._fields}


def run(wanted: Pass, trace: list[TraceRow]) -> tuple[Simulation, Counts]:
    simulation, requesters = Simulation(wanted), Requesters()
    first = [TraceRow(0, 0, source_id=each, kind=RowKind.MARKER) for each in SOURCES]
    every = columns(first + trace)
    simulation.feed(every, requesters.numbers(every), requesters.count)
    return simulation, counts_of(simulation.counters(0))


@settings(max_examples=20)
@given(st.data())
def test_every_size_counts_and_keeps_what_a_scalar_unit_does(data: st.DataObject) -> None:
    page_size = data.draw(st.sampled_from(sorted(SHIFTS)))
    policy = data.draw(st.sampled_from(CHECKED))
    ways = data.draw(st.sets(st.integers(1, 6), min_size=1, max_size=4))
    ways = ways if policy is Replacement.LRU else {max(ways)}
    iotlb = Shape(
        1, data.draw(st.sampled_from([1, 2, 4])), policy, index=data.draw(st.integers(0, 1))
    )
    structures = data.draw(
        st.just(OFF)
        | st.builds(Shape, st.integers(1, 5), st.sampled_from([1, 2]), st.sampled_from(CHECKED))
    )
    trace = data.draw(rows(SHIFTS[page_size]))
    wanted = Pass(iotlb, tuple(sorted(ways)), structures, page_size, 4, Invalidating.TRACE)
    simulation, counts = run(wanted, trace)
    for at, size in enumerate(wanted.ways):
        scalar = Scalar(replace(iotlb, ways=size), structures, SHIFTS[page_size])
        for row in trace:
            scalar.take(row)
        assert scalar.misses() == counts.misses[at]
        assert scalar.reads.count == counts.reads[at]
        assert scalar.contents() == contents(simulation, size)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=200), st.integers(1, 8))
def test_random_replacement_evicts_only_when_a_set_is_full(
    accesses: list[tuple[int, int]], ways: int
) -> None:
    trace = [TraceRow(0, page << 12, 0, 1, source_id=SOURCES[who % 3]) for who, page in accesses]
    wanted = Pass(Shape(ways, 2, Replacement.RANDOM), (ways,), OFF, "4K", 4, Invalidating.NONE)
    simulation, counts = run(wanted, trace)
    distinct = {(row.source_id, row.address) for row in trace}
    kept = contents(simulation, ways)
    for at in range(2):
        mine = {each for each in distinct if each[1] >> 12 & 1 == at}
        assert len(kept[at]) == min(ways, len(mine))
    assert len(distinct) <= counts.misses[0] <= counts.lookups == len(trace)
    if all(len(entries) < ways for entries in kept):
        assert counts.misses[0] == len(distinct)


UNMAPS = [
    TraceRow(time * 1000, (time % 400) << 12, 0, 4096, kind=kind, access=access)
    for time in range(1000)
    for kind, access in ((RowKind.DMA, 1), (RowKind.UNMAP, 0))
]


@pytest.mark.parametrize(
    ("mode", "removed"),
    [
        (Invalidating.NONE, 0),
        (Invalidating.TRACE, 0),
        (Invalidating.STRICT, 1000),
        (Invalidating.STRICT_LEAVES, 1000),
        (Invalidating.DEFERRED, 3 * 256),
    ],
)
def test_what_invalidates_may_be_other_than_in_the_trace(mode: Invalidating, removed: int) -> None:
    wanted = Pass(Shape(1024), (1024,), OFF, "4K", 4, mode)
    _, counts = run(wanted, UNMAPS)
    assert counts.removed == removed


def test_a_deferred_invalidation_does_not_wait_for_more_than_10_ms() -> None:
    wanted = Pass(Shape(8), (8,), OFF, "4K", 4, Invalidating.DEFERRED)
    trace = [
        TraceRow(0, 0, 0, 1),
        TraceRow(5, 0, 0, 4096, kind=RowKind.UNMAP),
        TraceRow(10_000_004, 0, 0, 1),
        TraceRow(10_000_005, 0, 0, 1),
    ]
    _, counts = run(wanted, trace)
    assert (counts.removed, counts.misses[0]) == (1, 2)


def test_many_requesters_have_numbers_of_their_own() -> None:
    sources = np.arange(5_000, dtype=np.uint32)
    pasids = np.arange(5_000, dtype=np.uint32) % 7
    every = {"kind": np.zeros(5_000, np.uint8), "source_id": sources, "pasid": pasids}
    requesters = Requesters()
    first = requesters.numbers(every)
    assert first.tolist() == list(range(5_000))
    assert requesters.numbers(every).tolist() == first.tolist()
    assert requesters.count == 5_000


def test_the_history_does_not_depend_on_how_the_trace_is_cut() -> None:
    wanted = Pass(Shape(1, 4), (1, 2, 4), OFF, "4K", 4, Invalidating.STRICT)

    told = []
    for size in (7, 300, 5000):
        through = Run([wanted], 100)
        for start in range(0, len(UNMAPS), size):
            through.feed(batch_of(columns(UNMAPS[start : start + size])))
        (outcome,) = through.outcomes()
        assert (through.rows, outcome.requesters, len(outcome.history)) == (2000, 1, 20)
        told.append([(each.time, each.misses) for each in outcome.history])
    assert told[0] == told[1] == told[2]


def test_requesters_keep_their_numbers_from_batch_to_batch() -> None:
    wanted = Pass(Shape(8), (8,), OFF, "4K", 4, Invalidating.TRACE)
    through = Run([wanted], 100)
    for sources in (SOURCES, SOURCES[::-1], SOURCES):
        through.feed(batch_of(columns([TraceRow(0, 0, 0, 1, source_id=at) for at in sources])))
    assert through.requesters == 3
    assert through.outcomes()[0].history[-1].misses == [3]


def test_rows_that_are_earlier_than_those_of_the_batch_before_are_refused() -> None:
    through = Run([Pass(Shape(8), (8,), OFF, "4K", 4, Invalidating.TRACE)], 100)
    through.feed(batch_of(columns([TraceRow(5, 0, 0, 1), TraceRow(7, 0, 0, 1)])))
    with pytest.raises(TraceError, match="row 2, column time: 6 is less than 7"):
        through.feed(batch_of(columns([TraceRow(6, 0, 0, 1)])))
