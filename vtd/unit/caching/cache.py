"""A cache of any shape: off, unbounded, or sets and ways with a replacement, with counters."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from vtd.unit.state import Stateful

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Replacement(Enum):
    """Which way of a full set makes room."""

    LRU = "lru"
    FIFO = "fifo"
    RANDOM = "random"


@dataclass(frozen=True)
class Shape:
    """Size and replacement of a cache; ``ways`` 0 is off, None unbounded."""

    ways: int | None = None
    sets: int = 1
    replacement: Replacement = Replacement.LRU
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sets < 1 or (self.ways is not None and self.ways < 0):
            raise ValueError(f"cache shape: {self.sets} sets of {self.ways} ways")


OFF = Shape(ways=0)
UNBOUNDED = Shape()


@dataclass
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
    """Entries by key, in sets; the first entry of a set is the next to be replaced."""

    STATE = "counters", "_sets", "_random"

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.counters = Counters()
        self._sets: list[dict[K, V]] = [{} for _ in range(shape.sets)]
        self._refresh = shape.ways is not None and shape.replacement is Replacement.LRU
        self._random = random.Random(shape.seed)

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for entries in self._sets:
            yield from entries.items()

    def _set_of(self, key: K) -> dict[K, V]:
        """The set of a key; the same in every process, which a hash need not be."""
        sets = self._sets
        return sets[0 if len(sets) == 1 else zlib.crc32(repr(key).encode()) % len(sets)]

    def find(self, *keys: K) -> V | None:
        """The entry of the first key that has one, now the most recently used; counts once."""
        sets = self._sets
        for key in keys:
            entries = sets[0] if len(sets) == 1 else self._set_of(key)
            entry = entries.get(key)
            if entry is not None:
                self.counters.hits += 1
                if self._refresh:
                    entries[key] = entries.pop(key)
                return entry
        self.counters.misses += 1
        return None

    def peek(self, key: K) -> V | None:
        """The entry of this key, without counting or touching it."""
        return self._set_of(key).get(key)

    def put(self, key: K, entry: V) -> None:
        """Keep an entry, if the shape has room for any; a full set loses one first."""
        ways = self.shape.ways
        if ways == 0:
            return
        entries = self._set_of(key)
        if ways is not None and len(entries) >= ways and key not in entries:
            victim = next(iter(entries))
            if self.shape.replacement is Replacement.RANDOM:
                victim = self._random.choice(list(entries))
            del entries[victim]
            self.counters.evictions += 1
        entries[key] = entry
        self.counters.insertions += 1

    def remove(self, matches: Callable[[K, V], bool]) -> int:
        """Invalidate the entries that match; returns how many there were."""
        count = 0
        for entries in self._sets:
            doomed = [key for key, entry in entries.items() if matches(key, entry)]
            for key in doomed:
                del entries[key]
            count += len(doomed)
        self.counters.invalidated += count
        return count

    def clear(self) -> int:
        """Invalidate everything; returns how many entries there were."""
        count = len(self)
        for entries in self._sets:
            entries.clear()
        self.counters.invalidated += count
        return count
