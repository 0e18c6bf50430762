"""A cache in an array, as the kernel and Python see it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtd.batch import kernel as k
from vtd.unit.caching.cache import Counters, Replacement, Shape

Words = NDArray[np.int64]

FIRST_CAPACITY = 256


class Store:
    """Rows by two keys, in the sets of a shape, with what they hold: three words."""

    def __init__(self, shape: Shape, *, moves: bool = True) -> None:
        self.shape = shape
        self.limit = None if shape.ways is None else shape.ways * shape.sets + k.ROOM
        self.words = self._made(FIRST_CAPACITY)
        words = self.words
        words[k.WAYS] = k.UNBOUNDED_WAYS if shape.ways is None else shape.ways
        words[k.SET_COUNT], words[k.SET_SHIFT] = shape.sets, shape.index
        words[k.REFRESHES] = shape.ways is not None and shape.replacement is Replacement.LRU
        words[k.RANDOM] = shape.replacement is Replacement.RANDOM
        words[k.MOVES] = moves

    def _made(self, capacity: int) -> Words:
        if self.limit is not None:
            capacity = max(min(capacity, self.limit), k.ROOM + 1)
        entries = 1 << capacity.bit_length()
        index = k.HEADER + capacity * k.ROW
        words = np.zeros(index + entries + self.shape.sets * k.SET, np.int64)
        words[k.MASK], words[k.INDEX], words[k.SETS] = entries - 1, index, index + entries
        words[k.CAPACITY] = capacity
        return words

    def __len__(self) -> int:
        return int(self.words[k.SIZE])

    def make_room(self) -> None:
        """Have more rows than a request fills."""
        old = self.words
        if old[k.CAPACITY] - old[k.SIZE] >= k.ROOM:
            return
        new = self._made(2 * int(old[k.CAPACITY]))
        new[k.FREE : k.CAPACITY] = old[k.FREE : k.CAPACITY]
        new[k.SIZE : k.HEADER] = old[k.SIZE : k.HEADER]
        rows = slice(k.HEADER, int(old[k.INDEX]))
        new[rows] = old[rows]
        sets = self.shape.sets * k.SET
        new[new[k.SETS] : new[k.SETS] + sets] = old[old[k.SETS] : old[k.SETS] + sets]
        k.index(new)
        self.words = new

    def find(self, key: int, tag: int) -> int:
        """The row with these keys, 0 if there is none."""
        return int(k.find(self.words, key, tag))

    def put(self, key: int, tag: int, *what: int) -> int:
        """Keep a row; one that has to go for it goes first."""
        self.make_room()
        return int(k.put(self.words, key, tag, *what))

    def remove(self, row: int) -> None:
        """Take a row out."""
        k.remove(self.words, row)

    def clear(self) -> int:
        """Take all rows out; how many there were."""
        count = len(self)
        k.clear(self.words)
        return count

    def rows(self, number: int = 0) -> list[int]:
        """The rows of a set, from the next to be replaced to the newest."""
        head = int(self.words[k.SETS]) + number * k.SET
        found = np.zeros(int(self.words[head + k.COUNT]), np.int64)
        k.ordered(self.words, head, found)
        return found.tolist()

    def take_counts(self, counters: Counters) -> None:
        """Add what was counted to the counters of the cache."""
        words = self.words
        counters.hits += int(words[k.HITS])
        counters.misses += int(words[k.MISSES])
        counters.insertions += int(words[k.INSERTIONS])
        counters.evictions += int(words[k.EVICTIONS])
        words[k.HITS : k.EVICTIONS + 1] = 0


class Generator(random.Random):
    """A Mersenne Twister whose state is in a store, where the kernel draws from it."""

    def __init__(self, store: Store, other: random.Random) -> None:
        self._store = store
        super().__init__()
        self.setstate(other.getstate())

    def getstate(self) -> tuple[Any, ...]:
        """As of any Mersenne Twister."""
        return 3, tuple(self._store.words[DRAWS].tolist()), None

    def setstate(self, state: tuple[Any, ...]) -> None:
        """Go on from a state."""
        self._store.words[DRAWS] = state[1]


DRAWS = slice(k.DRAWS, k.DRAWS + 625)
