"""Memory, caches and IOTLB that tell of each use, to take the place of those of a unit.

A cache entry remembers the memory words that it came from
(:class:`vtd.auditing.stale_use.Word`). What a unit does stays the same, except that ports do not
answer IOTLB hits by themselves. Left out: what the uses mean, which :mod:`vtd.auditing.audit`
judges.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TypeVar

from pagetables.memory import TableMemory
from pagetables.observed import Hook, ObservedMemory
from vtd.auditing.stale_use import Words
from vtd.unit.caching.cache import OFF, Cache, Shape
from vtd.unit.caching.iotlb import Iotlb, IotlbEntry
from vtd.unit.requests.request import RequestKind

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class WatchedMemory:
    """Table memory that tells what was read, and of flags that were set.

    ``read`` is told of records: address, size in bytes, value. ``updated`` is told where a flag
    was set, and the entry since then. ``begin`` is asked who hears of the entries of a walk.
    """

    def __init__(
        self,
        memory: TableMemory,
        read: Callable[[int, int, int], None],
        updated: Callable[[int, int], None],
        begin: Callable[[], Hook],
    ) -> None:
        self._memory = memory
        self._read = read
        self._updated = updated
        self._begin = begin

    @property
    def frames(self) -> ObservedMemory:
        """Asked for once by a walk of its own memory, and once for each frame of guest memory."""
        return ObservedMemory(self._memory, self._begin())

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``."""
        value = self._memory.read_record(address, size)
        self._read(address, size, value)
        return value

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a record; False if it is not ``expected``."""
        done = self._memory.compare_exchange(address, size, expected, new)
        if done:
            self._updated(address, new)
        return done

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``."""
        self._memory.write(address, data)


class WatchedCache(Cache[K, V]):
    """A cache in place of ``cache`` that knows the words of its entries.

    ``found`` is told of each use: the keys that were asked for, or the one that hit; the entry or
    None; its words, None for an entry that was there before. ``words`` gives those of a new entry.
    """

    def __init__(
        self,
        cache: Cache[K, V],
        found: Callable[[tuple[K, ...], V | None, Words | None], None],
        words: Callable[[], Words],
    ) -> None:
        super().__init__(cache.shape)
        for key, entry in cache:
            super().put(key, entry)
        self.counters = cache.counters
        if self.shape == OFF:
            self.shape = _OFF_BUT_ASKED
        self._found = found
        self._words_now = words
        self._words: dict[K, Words] = {}

    def find(self, *keys: K) -> V | None:
        """The entry of the first key that has one, after telling of the use."""
        hit = next((key for key in keys if self.peek(key) is not None), None)
        entry = super().find(*keys)
        if hit is None:
            self._found(keys, None, None)
        else:
            self._found((hit,), entry, self._words.get(hit))
        return entry

    def put(self, key: K, entry: V) -> None:
        """Keep an entry with its words, if the shape has room for any."""
        super().put(key, entry)
        self._words[key] = dict(self._words_now())


_OFF_BUT_ASKED = replace(OFF, seed=1)
"""No room either, but walks do not pass the cache by, so that the audit sees where they begin."""


class WatchedIotlb(Iotlb):
    """An IOTLB of this shape in place of ``iotlb``; ``found`` and ``words`` as in WatchedCache."""

    def __init__(
        self,
        iotlb: Iotlb,
        shape: Shape,
        found: Callable[[RequestKind, IotlbEntry | None, Words | None], None],
        words: Callable[[], Words],
    ) -> None:
        super().__init__(shape)
        self._direct = False
        for kind, entry in iotlb:
            super().insert(kind, entry)
        self.counters = iotlb.counters
        self._found = found
        self._words_now = words
        self._words: dict[tuple[RequestKind, int, int], Words] = {}

    @property
    def direct(self) -> bool:
        """Never: every use is to be seen."""
        return False

    @direct.setter
    def direct(self, wanted: bool) -> None:
        """Ports stay indirect while a unit is watched, whatever its registers say."""

    def find(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        """The entry that covers ``address``, after telling of the use."""
        entry = super().find(kind, address)
        words = None if entry is None else self._words.get((kind, entry.shift, entry.address))
        self._found(kind, entry, words)
        return entry

    def insert(self, kind: RequestKind, entry: IotlbEntry) -> None:
        """Keep a translation with its words, if the shape has room for any."""
        super().insert(kind, entry)
        self._words[kind, entry.shift, entry.address] = dict(self._words_now())
