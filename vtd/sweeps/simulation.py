"""One run of the kernel through a trace: caches of passes, their counters, and their history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtd.sweeps import kernel
from vtd.sweeps.designs import PAGE_SIZES, Pass
from vtd.sweeps.outcomes import Counts, Outcome
from vtd.traces.rows import follows
from vtd.unit.caching.cache import Replacement, Shape

Array = NDArray[Any]
POLICIES = {
    Replacement.LRU: kernel.LRU,
    Replacement.FIFO: kernel.FIFO,
    Replacement.RANDOM: kernel.RANDOM,
}
SEED = 0x9E3779B97F4A7C15
"""Of random replacement, mixed with the shape's."""
NEEDED = ("time", "address", "length", "kind", "attributes")
"""Columns that the kernel reads."""
SHARED = 1 + kernel.RANDOM_STATE
"""Counters that sizes share, and the time."""


class Requesters:
    """Pairs of source and PASID as numbers from 0 on."""

    def __init__(self) -> None:
        self._keys: Array = np.zeros(1 << 10, np.uint64)
        self._values: Array = np.zeros(1 << 10, np.uint32)
        self.count = 0

    def numbers(self, rows: Mapping[str, Array]) -> Array:
        """The number of each row's requester."""
        found = np.empty(len(rows["pasid"]), np.uint32)
        sources, pasids, at = rows["source_id"], rows["pasid"], 0
        while True:
            done = kernel.intern(
                sources[at:], pasids[at:], self._keys, self._values, self.count, found[at:]
            )
            if done >= 0:
                self.count = done
                return found
            at += -1 - done
            self.count = int(np.count_nonzero(self._keys))
            self._grow()

    def pairs(self) -> dict[str, Array]:
        """Source and PASID of each number."""
        there = self._keys != 0
        pairs = (self._keys[there] - np.uint64(1))[np.argsort(self._values[there])]
        return {
            "source_id": (pairs >> np.uint64(32)).astype(np.uint32),
            "pasid": (pairs & np.uint64(0xFFFF_FFFF)).astype(np.uint32),
        }

    def _grow(self) -> None:
        pairs = self.pairs()
        self._keys = np.zeros(4 * len(self._keys), np.uint64)
        self._values = np.zeros(4 * len(self._values), np.uint32)
        scratch = np.empty(len(pairs["pasid"]), np.uint32)
        kernel.intern(pairs["source_id"], pairs["pasid"], self._keys, self._values, 0, scratch)


class Batch(NamedTuple):
    """Rows of a trace, as a run takes them."""

    rows: dict[str, Array]
    """The columns that are NEEDED."""
    owners: Array
    """The requester of each row, by a number of this batch."""
    pairs: dict[str, Array]
    """Source and PASID of each number."""


def batch_of(columns: Mapping[str, Array]) -> Batch:
    """The rows that have these columns."""
    requesters = Requesters()
    owners = requesters.numbers(columns)
    rows = {name: np.ascontiguousarray(columns[name]) for name in NEEDED}
    return Batch(rows, owners, requesters.pairs())


def empty_caches(shape: Shape, ways: int, caches: int = 1) -> kernel.Cache:
    """Caches of a shape without entries, but of so many ways."""
    return kernel.Cache(
        np.zeros(caches * shape.sets * ways, np.uint64),
        np.full(caches * shape.sets * ways, kernel.HOLE, np.uint32),
        np.zeros(caches * shape.sets, np.int64),
        np.zeros(caches * shape.sets, np.int64),
        shape.sets,
        ways,
        shape.index,
        POLICIES[shape.replacement],
    )


class Simulation:
    """The caches of one pass, and what they did so far."""

    def __init__(self, wanted: Pass) -> None:
        self.wanted = wanted
        sizes = len(wanted.ways)
        self._ways: Array = np.array(wanted.ways, np.int64)
        self._iotlb = empty_caches(wanted.iotlb, wanted.ways[-1])
        self._structures = empty_caches(wanted.structures, wanted.structures.ways or 0, sizes)
        self._state: Array = np.zeros(kernel.SHARED, np.uint64)
        self._state[kernel.RANDOM_STATE] = SEED ^ wanted.iotlb.seed
        self._depths: Array = np.zeros(wanted.ways[-1] + 1, np.int64)
        self._walks: Array = np.zeros((sizes, kernel.TOP), np.int64)
        self._cold: Array = np.zeros(sizes, np.int64)
        self._pending: Array = np.zeros(1, np.int64)
        self._since: Array = np.zeros(1, np.uint64)

    def feed(self, rows: Mapping[str, Array], requesters: Array, count: int) -> None:
        """Carry out rows; ``requesters`` are numbers below ``count``."""
        if count > len(self._pending):
            more = max(count, 2 * len(self._pending)) - len(self._pending)
            self._pending = np.r_[self._pending, np.zeros(more, np.int64)]
            self._since = np.r_[self._since, np.zeros(more, np.uint64)]
        kernel.run(
            rows["time"],
            rows["address"],
            rows["length"],
            rows["kind"],
            rows["attributes"],
            requesters,
            int(self.wanted.invalidation),
            PAGE_SIZES[self.wanted.page_size],
            self.wanted.levels,
            self._iotlb,
            self._ways,
            self._structures,
            self._state,
            self._depths,
            self._walks,
            self._cold,
            self._pending,
            self._since,
        )

    def counters(self, time: int) -> Array:
        """The counters as they are, at a time of the trace: as :func:`counts_of` takes them."""
        at_least = np.cumsum(self._depths[::-1])[::-1]
        by_size = at_least[self._ways], self._walks @ np.arange(kernel.TOP), self._cold
        shared = [time], self._state[: kernel.RANDOM_STATE]
        return np.concatenate((*shared, *by_size), dtype=np.uint64, casting="unsafe")


def counts_of(counters: Array) -> Counts:
    """Counters with names."""
    shared, by_size = counters[:SHARED], counters[SHARED:].reshape(3, -1)
    return Counts(*shared.tolist(), *by_size.tolist())


def contents(simulation: Simulation, ways: int) -> list[list[tuple[int, int]]]:
    """Page number and requester of each IOTLB entry of one size, by set, the newest first."""
    cache = simulation._iotlb
    found = []
    for at in range(cache.sets):
        first = at * cache.ways
        places = range(first, first + min(ways, int(cache.counts[at])))
        kept = (place for place in places if cache.owners[place] != kernel.HOLE)
        found.append([(int(cache.pages[place]), int(cache.owners[place])) for place in kept])
    return found


class Run:
    """Passes side by side through a trace, with counters kept after each ``window`` rows."""

    def __init__(self, passes: Iterable[Pass], window: int) -> None:
        self._simulations = [Simulation(each) for each in passes]
        self._history: list[Array] = [
            np.empty((0, SHARED + 3 * len(each.wanted.ways)), np.uint64)
            for each in self._simulations
        ]
        """Counters of each pass; arrays, as a run travels between workers."""
        self._requesters = Requesters()
        self._window = self._left = window
        self._time = 0
        self.start: int | None = None
        """Time of the first row."""
        self.rows = 0

    @property
    def requesters(self) -> int:
        """How many there were."""
        return self._requesters.count

    def feed(self, batch: Batch) -> None:
        """Carry out the next rows; TraceError if they are earlier than those before."""
        times = batch.rows["time"]
        count, at = len(times), 0
        if not count:
            return
        follows(self.rows, times, self._time)
        owners = self._requesters.numbers(batch.pairs)[batch.owners]
        self.start = int(times[0]) if self.start is None else self.start
        while at < count:
            part = slice(at, at + min(self._left, count - at))
            rows = {name: column[part] for name, column in batch.rows.items()}
            for simulation in self._simulations:
                simulation.feed(rows, owners[part], self.requesters)
            done = part.stop - at
            at, self._left, self._time = part.stop, self._left - done, int(times[part.stop - 1])
            if not self._left:
                self._left = self._window
                self._keep()
        self.rows += count

    def outcomes(self) -> list[Outcome]:
        """What came of each pass, to the last row."""
        if not self.rows or self._left != self._window:
            self._keep()
        return [
            Outcome(each.wanted, self.requesters, self.start or 0, [*map(counts_of, told)])
            for each, told in zip(self._simulations, self._history, strict=True)
        ]

    def _keep(self) -> None:
        self._history = [
            np.vstack([told, simulation.counters(self._time)])
            for told, simulation in zip(self._history, self._simulations, strict=True)
        ]
