"""A cache of any shape: off, unbounded, or sets and ways with a replacement, with counters."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from vtd.unit.state import State, Stateful

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Replacement(Enum):
    """Which way of a full set makes room."""

    LRU = "lru"
    FIFO = "fifo"
    RANDOM = "random"


@dataclass(frozen=True)
class Shape:
    """Size and replacement of a cache; ``ways`` 0 is off, None unbounded.

    The set of an entry is chosen by the low bits of its number: of the page number in the IOTLB,
    of the table's address prefix in paging-structure caches, of the source-id in the context cache,
    of source-id plus PASID in the PASID cache, of the index in the interrupt entry cache. ``index``
    leaves that many of the lowest out.
    """

    ways: int | None = None
    sets: int = 1
    replacement: Replacement = Replacement.LRU
    seed: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        if self.sets < 1 or self.index < 0 or (self.ways is not None and self.ways < 0):
            raise ValueError(f"cache shape: {self.sets} sets of {self.ways} ways")

    def set_of(self, number: int) -> int:
        """The set in which the entry with this number has its place."""
        return (number >> self.index) % self.sets


OFF = Shape(ways=0)
UNBOUNDED = Shape()


@dataclass(slots=True)
class Counters(Stateful):
    """What a cache did since the counters were made."""

    STATE = "hits", "misses", "insertions", "evictions", "invalidated"

    hits: int = 0
    misses: int = 0
    insertions: int = 0
    evictions: int = 0
    invalidated: int = 0

    @property
    def lookups(self) -> int:
        """How often the cache was asked."""
        return self.hits + self.misses


class Cache(Stateful, Generic[K, V]):
    """Entries by key, in sets; the first entry of a set is the next to be replaced.

    ``number`` gives the number of a key that chooses its set. ``derived`` is emptied whenever an
    entry goes or becomes another: somebody keeps there what the entries amount to.
    """

    STATE = "counters", "_random"

    def __init__(
        self,
        shape: Shape,
        number: Callable[[K], int],
        derived: dict[Any, Any] | None = None,
    ) -> None:
        self.shape = shape
        self._derived = {} if derived is None else derived
        self.off = shape.ways == 0
        self.unbounded = shape.ways is None
        self.counters = Counters()
        self._number = number
        self._sets: list[OrderedDict[K, V]] = [OrderedDict() for _ in range(shape.sets)]
        self._only = self._sets[0] if shape.sets == 1 else None
        self._refresh = shape.ways is not None and shape.replacement is Replacement.LRU
        self._random = random.Random(shape.seed)
        ranked = self._refresh or self._only is None
        self.take: Callable[[K], V | None] = self._take if ranked else self._sets[0].get
        """The entry of a key, now the most recently used; counts nothing."""

    def snapshot(self) -> State:
        """The counters, and the entries of each set in the order of their replacement."""
        return (*super().snapshot(), tuple(tuple(entries.items()) for entries in self._sets))

    def restore(self, state: State) -> None:
        """Put the entries back."""
        *others, sets = state
        super().restore(tuple(others))
        self._derived.clear()
        for entries, saved in zip(self._sets, sets, strict=True):
            entries.clear()
            entries.update(saved)

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for entries in self._sets:
            yield from entries.items()

    def _set_of(self, key: K) -> OrderedDict[K, V]:
        if self._only is not None:
            return self._only
        return self._sets[self.shape.set_of(self._number(key))]

    def find(self, key: K) -> V | None:
        """The entry of a key, now the most recently used; counts a hit or a miss."""
        entry = self.use(key)
        if entry is None:
            self.counters.misses += 1
        return entry

    def use(self, key: K) -> V | None:
        """As :meth:`find`, for one of several keys of a lookup: no miss is counted."""
        entry = self.take(key)
        if entry is not None:
            self.counters.hits += 1
        return entry

    def _take(self, key: K) -> V | None:
        entries = self._set_of(key)
        entry = entries.get(key)
        if entry is not None and self._refresh:
            entries.move_to_end(key)
        return entry

    def peek(self, key: K) -> V | None:
        """The entry of this key, without counting or touching it."""
        return self._set_of(key).get(key)

    def put(self, key: K, entry: V) -> None:
        """Keep an entry as the newest, if there is room for any; a full set loses one first."""
        ways = self.shape.ways
        if ways == 0:
            return
        entries = self._set_of(key)
        if key in entries:
            self._derived.clear()
        elif ways is not None and len(entries) >= ways:
            self._derived.clear()
            victim = next(iter(entries))
            if self.shape.replacement is Replacement.RANDOM:
                victim = self._random.choice(list(entries))
            del entries[victim]
            self.counters.evictions += 1
        entries[key] = entry
        entries.move_to_end(key)
        self.counters.insertions += 1

    def remove(self, matches: Callable[[K, V], bool]) -> int:
        """Invalidate the entries that match; returns how many there were."""
        count = 0
        self._derived.clear()
        for entries in self._sets:
            doomed = [key for key, entry in entries.items() if matches(key, entry)]
            for key in doomed:
                del entries[key]
            count += len(doomed)
        self.counters.invalidated += count
        return count

    def drop(self, key: K) -> None:
        """Invalidate the entry of a key, if there is one."""
        self._derived.clear()
        if self._set_of(key).pop(key, None) is not None:
            self.counters.invalidated += 1

    def clear(self) -> int:
        """Invalidate everything; returns how many entries there were."""
        count = len(self)
        self._derived.clear()
        for entries in self._sets:
            entries.clear()
        self.counters.invalidated += count
        return count
