"""The caches of a unit in arrays, where the kernel works on them: same shape, same behaviour.

They take the place of the unit's own for good. What Python asks of them is answered by the
compiled functions that the kernel uses, so that there is one way of replacing an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from pagetables.geometry import PAGE_SHIFT
from vtd.batch import kernel as k
from vtd.batch.columns import NO_PASID
from vtd.batch.store import Generator, Store, Words
from vtd.unit.caching.cache import UNBOUNDED, Cache
from vtd.unit.caching.caches import StructureEntry, StructureKey, prefix_of
from vtd.unit.caching.iotlb import (
    END,
    GRANTS,
    Iotlb,
    IotlbEntry,
    Line,
    Space,
    Translation,
    canonical_range,
)
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.requests.target import IotlbTags
from vtd.unit.state import State

SHIFTS = (PAGE_SHIFT, 21, 30)
"""log2 of the sizes that pages have."""
FEW = 64
"""So many places are looked at one by one rather than all entries."""


def packed(kind: RequestKind) -> int:
    """A kind of request as the kernel reads it out of a row."""
    source_id, pasid, privileged = kind
    return (NO_PASID if pasid is None else pasid) | source_id << 32 | privileged << 48


def unpacked(key: int) -> RequestKind:
    """The kind of request of such a number."""
    pasid = key & NO_PASID
    return key >> 32 & 0xFFFF, None if pasid == NO_PASID else pasid, bool(key >> 48)


class Pages:
    """The pages of one size of a :class:`Space`: lines by page number."""

    def __init__(self, iotlb: ArrayIotlb, kind: int, shift: int) -> None:
        self._iotlb = iotlb
        self._tag = kind << 6 | shift

    def get(self, number: int, default: Line | None = None) -> Line | None:
        """The line of a page."""
        row = self._iotlb.store.find(number, self._tag)
        return self._iotlb.line(row) if row else default

    def __contains__(self, number: int) -> bool:
        return self._iotlb.store.find(number, self._tag) != 0


class ArrayIotlb(Iotlb):
    """An IOTLB in an array."""

    store: Store
    kinds: Store
    """Of each kind of request a row: its number, and what the kernel knows of its tables."""
    owner: Any
    """Whoever works on the arrays."""

    @staticmethod
    def replace(iotlb: Iotlb) -> ArrayIotlb:
        """Make an IOTLB one in an array. It stays the same object, as ports have it."""
        entries, counters = iotlb.snapshot()[-1], iotlb.counters.snapshot()
        iotlb.__class__ = ArrayIotlb
        assert isinstance(iotlb, ArrayIotlb)
        bounded = iotlb.shape.ways is not None
        iotlb.store, iotlb.kinds = Store(iotlb.shape, moves=bounded), Store(UNBOUNDED)
        iotlb._random = Generator(iotlb.store, iotlb._random)
        iotlb._tags, iotlb._faults = [], [None]
        iotlb._numbers = {}
        spaces, iotlb._spaces = iotlb._spaces, {}
        for kind, space in spaces.items():
            iotlb._show(iotlb.row_of(kind), space)
        for kind, entry in entries:
            iotlb.insert(kind, entry)
        iotlb.counters.restore(counters)
        for each in iotlb._sets:
            each.clear()
        return iotlb

    _tags: list[IotlbTags]
    _numbers: dict[IotlbTags, int]
    """Tags by number, and the numbers."""
    _faults: list[TranslationFault | None]

    def space(self, kind: RequestKind) -> Space:
        return self._show(self.row_of(kind), Space(kind))

    def _show(self, row: int, space: Space) -> Space:
        """Have a space be a view of the entries of a kind of request; it is not kept."""
        sizes: Any = {shift: Pages(self, row, shift) for shift in SHIFTS}
        space.small = sizes.pop(PAGE_SHIFT)
        space.larger = sizes
        return space

    def row_of(self, kind: RequestKind) -> int:
        """The row of a kind of request, made if need be."""
        key = packed(kind)
        return self.kinds.find(key, 0) or self.kinds.put(key, 0, 0, -1, 0)

    def number_of(self, kind: RequestKind, tags: IotlbTags) -> int:
        """The number of tags, which from now on entries of this kind may have."""
        self._domains.setdefault(tags.domain_id, {}).setdefault(tags, set()).add(kind)
        return self.tags_number(tags)

    def tags_number(self, tags: IotlbTags) -> int:
        """The number of tags."""
        number = self._numbers.get(tags)
        if number is None:
            number = self._numbers[tags] = len(self._tags)
            self._tags.append(tags)
        return number

    def keep(self, space: Space, entry: Translation) -> None:
        if self._ways == 0:
            return
        kind = space.kind
        tags, address, shift, physical, rights, snoop, fault = entry
        row = self.row_of(kind)
        if shift != PAGE_SHIFT:
            self.kinds.words[row + k.MARKS] |= k.HAS_2M if shift == 21 else k.HAS_1G
        number = 0
        if fault is not None:
            number = len(self._faults)
            self._faults.append(fault)
        grants = rights | snoop << k.SNOOP_BIT | self.number_of(kind, tags) << k.TAGS_AT
        place = address >> shift, row << 6 | shift
        self.store.put(*place, physical, grants, number)
        self.store.take_counts(self.counters)

    def line(self, row: int) -> Line:
        """The entry in a row, as a port uses it."""
        _, entry = self._entry(row)
        touch = partial(self._renew, row) if self._touched else None
        within = (1 << entry.shift - PAGE_SHIFT) - 1
        return GRANTS[entry.rights], entry.physical >> PAGE_SHIFT, within, touch, entry

    def _renew(self, row: int) -> None:
        k.renew(self.store.words, row)

    def _entry(self, row: int) -> tuple[RequestKind, IotlbEntry]:
        number, tag, physical, grants, fault = self.store.words[row : row + 5].tolist()
        row_of_kind, shift = tag >> 6, tag & 63
        return unpacked(int(self.kinds.words[row_of_kind])), IotlbEntry(
            self._tags[grants >> k.TAGS_AT],
            number << shift,
            shift,
            physical,
            grants & 0xF,
            bool(grants >> k.SNOOP_BIT & 1),
            self._faults[fault],
        )

    def snapshot(self) -> State:
        state = super().snapshot()
        if not self.shape.ways:
            return state
        rows = [row for number in range(self.shape.sets) for row in self.store.rows(number)]
        return (*state[:-1], [self._entry(row) for row in rows])

    def remove(
        self,
        domain_id: int,
        matches: Callable[[IotlbTags], bool] | None = None,
        start: int = 0,
        end: int = END,
    ) -> int:
        chosen = [
            (tags, kinds)
            for tags, kinds in self._domains.get(domain_id, {}).items()
            if matches is None or matches(tags)
        ]
        rows: list[int] = []
        for width in {tags.width for tags, _ in chosen}:
            first, last = canonical_range(start, end, width)
            of_width = [(tags, kinds) for tags, kinds in chosen if tags.width == width]
            rows += self._covering(of_width, first, last - 1)
        if self.removed is not None:
            for row in rows:
                kind, entry = self._entry(row)
                self.removed.append((kind, entry.address))
        for row in rows:
            self.store.remove(row)
        self.counters.invalidated += len(rows)
        return len(rows)

    def _covering(
        self, chosen: list[tuple[IotlbTags, set[RequestKind]]], first: int, last: int
    ) -> Iterable[int]:
        """The rows of entries with these tags that cover any of a range."""
        if not len(self.store):
            return []
        numbers = [self._numbers[tags] for tags, _ in chosen]
        pages = sum((last >> shift) - (first >> shift) + 1 for shift in SHIFTS)
        if pages * sum(len(kinds) for _, kinds in chosen) <= FEW:
            return self._found(chosen, first, last)
        words = self.store.words
        rows = words[k.HEADER : words[k.INDEX]].reshape(-1, k.ROW)[: words[k.USED]]
        wanted = np.zeros(len(self._tags) + 1, bool)
        wanted[numbers] = True
        taken = rows[:, k.TAG] != -1
        found = taken & wanted[np.where(taken, rows[:, k.TWO] >> k.TAGS_AT, -1)]
        shifts = rows[:, k.TAG] & 63
        found &= (rows[:, k.KEY] >= _shifted(first, shifts)) & (
            rows[:, k.KEY] <= _shifted(last, shifts)
        )
        return (np.flatnonzero(found) * k.ROW + k.HEADER).tolist()

    def _found(
        self, chosen: list[tuple[IotlbTags, set[RequestKind]]], first: int, last: int
    ) -> Iterator[int]:
        words = self.store.words
        for tags, kinds in chosen:
            number = self._numbers[tags]
            for kind in kinds:
                place = self.row_of(kind) << 6
                for shift in SHIFTS:
                    for page in range(first >> shift, (last >> shift) + 1):
                        row = self.store.find(page, place | shift)
                        if row and words[row + k.TWO] >> k.TAGS_AT == number:
                            yield row

    def _empty(self) -> int:
        return self.store.clear()

    def __len__(self) -> int:
        return len(self.store)

    def __iter__(self) -> Iterator[tuple[RequestKind, IotlbEntry]]:
        rows = [row for number in range(self.shape.sets) for row in self.store.rows(number)]
        words = self.store.words
        return map(self._entry, sorted(rows, key=lambda row: int(words[row + k.TAG])))


def _shifted(address: int, shifts: Words) -> Words:
    return (np.uint64(address) >> shifts.astype(np.uint64)).astype(np.int64)


class ArrayStructureCache(Cache[StructureKey, StructureEntry]):
    """A paging-structure cache in an array."""

    def __init__(self, cache: Cache[StructureKey, StructureEntry]) -> None:
        super().__init__(cache.shape, prefix_of)
        self.take = self._take
        self.store = Store(cache.shape)
        self._random = Generator(self.store, cache._random)
        self._tags: list[tuple[int, int | None]] = []
        self._numbers: dict[tuple[int, int | None], int] = {}
        for key, entry in cache:
            self.put(key, entry)
        self.counters.restore(cache.counters.snapshot())

    def number_of(self, tags: tuple[int, int | None]) -> int:
        """The number of domain-id and PASID."""
        number = self._numbers.get(tags)
        if number is None:
            number = self._numbers[tags] = len(self._tags)
            self._tags.append(tags)
        return number

    def _row(self, key: StructureKey) -> int:
        domain_id, pasid, shift, prefix = key
        return self.store.find(prefix, self.number_of((domain_id, pasid)) << 6 | shift)

    def _entry(self, row: int) -> tuple[StructureKey, StructureEntry]:
        prefix, tag, frame, rights, where = self.store.words[row : row + 5].tolist()
        domain_id, pasid = self._tags[tag >> 6]
        shift, host = tag & 63, (where & k.HOST) - 1
        width = where >> k.WIDTH_AT
        entry = StructureEntry(shift, frame, rights, width, None if host < 0 else host)
        return (domain_id, pasid, shift, prefix), entry

    def _rows(self) -> Iterator[int]:
        for number in range(self.shape.sets):
            yield from self.store.rows(number)

    def snapshot(self) -> State:
        *others, _ = super().snapshot()
        sets = (self.store.rows(number) for number in range(self.shape.sets))
        return (*others, tuple(tuple(map(self._entry, rows)) for rows in sets))

    def restore(self, state: State) -> None:
        *others, sets = state
        super().restore((*others, tuple(() for _ in sets)))
        self.store.clear()
        for entries in sets:
            for key, entry in entries:
                self._keep(key, entry)
        self.store.words[k.HITS : k.EVICTIONS + 1] = 0

    def __len__(self) -> int:
        return len(self.store)

    def __iter__(self) -> Iterator[tuple[StructureKey, StructureEntry]]:
        return map(self._entry, self._rows())

    def _take(self, key: StructureKey) -> StructureEntry | None:
        row = self._row(key)
        if not row:
            return None
        if self._refresh:
            k.renew(self.store.words, row)
        return self._entry(row)[1]

    def peek(self, key: StructureKey) -> StructureEntry | None:
        row = self._row(key)
        return self._entry(row)[1] if row else None

    def put(self, key: StructureKey, entry: StructureEntry) -> None:
        if self.off:
            return
        self._keep(key, entry)
        self.store.take_counts(self.counters)

    def _keep(self, key: StructureKey, entry: StructureEntry) -> None:
        domain_id, pasid, shift, prefix = key
        tag = self.number_of((domain_id, pasid)) << 6 | shift
        where = entry.width << k.WIDTH_AT | (0 if entry.host is None else entry.host + 1)
        self.store.put(prefix, tag, entry.frame, entry.rights, where)

    def remove(self, matches: Callable[[StructureKey, StructureEntry], bool]) -> int:
        doomed = [row for row in self._rows() if matches(*self._entry(row))]
        for row in doomed:
            self.store.remove(row)
        self.counters.invalidated += len(doomed)
        return len(doomed)

    def drop(self, key: StructureKey) -> None:
        row = self._row(key)
        if row:
            self.store.remove(row)
            self.counters.invalidated += 1

    def clear(self) -> int:
        count = self.store.clear()
        self.counters.invalidated += count
        return count
