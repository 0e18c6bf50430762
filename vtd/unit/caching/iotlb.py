"""The IOTLB: translations of whole requests, tagged as VT-d 6.2.1 (Table 17) says.

An entry is one number: the output page, the rights, the page size and the number of its tags. It is
found by what kind of request asks (source-id, PASID, privilege) and the input page. A large page is
one entry; the 4 KiB pages of it that were asked for are kept beside it as fractions (6.5.3.2) that
come and go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from devices.dma import READ, WRITE
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage
from vtd.layouts.entries import PasidTranslationType
from vtd.unit.caching.cache import Cache, Counters, Shape
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.state import State, Stateful

SNOOP = 1 << 2
FAULT = 1 << 3
SHIFT_AT = 4
"""Bits 9:4 hold log2 of the page size."""
FRAME = (1 << 52) - (1 << 12)
TAGS_AT = 52


class IotlbTags(NamedTuple):
    """What invalidations match, besides the address."""

    domain_id: int
    kind: PasidTranslationType
    pasid: int
    """The PASID whose tables were used: RID_PASID for requests without PASID, 0 in legacy mode."""
    width: int = 64
    """Input-address bits that are compared, where canonical addresses repeat them (Table 18)."""


def canonical_range(start: int, end: int, width: int) -> tuple[int, int]:
    """The canonical addresses, of ``width`` bits, with the low bits of those in a range.

    The range is a naturally aligned power of two, as those of invalidations are.
    """
    size = end - start
    if size >> width:
        return 0, 1 << 64
    low = start & (1 << width) - 1
    if low >> width - 1:
        low += (1 << 64) - (1 << width)
    return low, low + size


class IotlbEntry(NamedTuple):
    """A translation, spelled out."""

    tags: IotlbTags
    address: int
    """Start of the input page."""
    shift: int
    """log2 of the page size."""
    physical: int
    """Start of the output page."""
    rights: int
    """READ and WRITE as far as a request may use them without a flag update."""
    snoop: bool
    """Whether the access snoops processor caches whatever the request asks for (3.10)."""
    fault: TranslationFault | None = None
    """What the request met, for a faulting result cached under CM = 1 (6.1)."""


class Shortcut(NamedTuple):
    """What the next miss of the same kind of request needs (``vtd.unit.translation.refill``)."""

    memory: PhysicalMemory
    stage: Stage
    width: int
    """Input addresses have at most this many bits."""
    tables: dict[int, int]
    """Cached tables of the last level: frame number and rights by address bits 63:21."""
    reserved: int
    """Bits of a page's entry that need the long way."""
    template: int
    """Everything of a packed entry but the frame and the rights."""
    iotlb: Counters
    context: Counters
    pasid: Counters | None
    """None in legacy mode."""
    second_stage: Counters | None
    """None where paging structures are not cached."""


class Space:
    """The translations of one kind of request."""

    __slots__ = ("large", "pages", "shortcut", "store")

    def __init__(self) -> None:
        self.store: dict[int, int] = {}
        """Entries by 4 KiB page number: those of 4 KiB pages, and fractions of larger ones."""
        self.large: dict[tuple[int, int], int] = {}
        """Entries of larger pages by shift and page number."""
        self.pages: dict[int, int] = self.store
        """What a port may answer from by itself: the store, or nothing."""
        self.shortcut: Shortcut | None = None


class Iotlb(Stateful):
    """The IOTLB of one unit, of any shape."""

    STATE = "counters", "_bounded", "_tags", "_tag_numbers", "_shifts", "_faults"

    def __init__(self, shape: Shape) -> None:
        self.counters = Counters()
        self._unbounded = shape.ways is None
        self._kept = shape.ways != 0
        self._bounded: Cache[tuple[RequestKind, int, int], int] | None = None
        if shape.ways:
            self._bounded = Cache(shape)
            self.counters = self._bounded.counters
        self._direct = self._unbounded
        self._spaces: dict[RequestKind, Space] = {}
        self._tags: list[IotlbTags] = []
        self._tag_numbers: dict[IotlbTags, int] = {}
        self._shifts: tuple[int, ...] = ()
        self._faults: dict[tuple[RequestKind, int], TranslationFault] = {}

    def snapshot(self) -> State:
        """The entries, and what they refer to."""
        entries = {
            kind: (dict(space.store), dict(space.large)) for kind, space in self._spaces.items()
        }
        return (*super().snapshot(), entries)

    def restore(self, state: State) -> None:
        """Put the entries back, into the spaces that ports keep."""
        *others, entries = state
        super().restore(tuple(others))
        for kind in {*self._spaces, *entries}:
            space = self.space(kind)
            store, large = entries.get(kind, ({}, {}))
            space.store.clear()
            space.store.update(store)
            space.large.clear()
            space.large.update(large)
            space.shortcut = None

    def space(self, kind: RequestKind) -> Space:
        """The translations of one kind of request; stays the same, so a port may keep it."""
        space = self._spaces.get(kind)
        if space is None:
            space = self._spaces[kind] = Space()
            self._expose(space)
        return space

    @property
    def direct(self) -> bool:
        """Whether ports answer hits by themselves and misses take shortcuts."""
        return self._direct

    @direct.setter
    def direct(self, wanted: bool) -> None:
        self._direct = wanted and self._unbounded
        for space in self._spaces.values():
            self._expose(space)

    def _expose(self, space: Space) -> None:
        space.pages = space.store if self._direct else {}
        space.shortcut = None

    def forget_shortcuts(self) -> None:
        """What a shortcut relies on may have been invalidated."""
        for space in self._spaces.values():
            space.shortcut = None

    def pack(self, entry: IotlbEntry) -> int:
        """An entry as one number, for the page it starts at."""
        number = self._tag_numbers.setdefault(entry.tags, len(self._tags))
        if number == len(self._tags):
            self._tags.append(entry.tags)
        return (
            number << TAGS_AT
            | entry.physical
            | entry.shift << SHIFT_AT
            | (SNOOP if entry.snoop else 0)
            | (FAULT if entry.fault else 0)
            | entry.rights
        )

    def _unpack(self, kind: RequestKind, packed: int, address: int) -> IotlbEntry:
        shift = packed >> SHIFT_AT & 63
        start = address >> shift << shift
        return IotlbEntry(
            self._tags[packed >> TAGS_AT],
            start,
            shift,
            (packed & FRAME) >> shift << shift,
            packed & (READ | WRITE),
            bool(packed & SNOOP),
            self._faults.get((kind, start)) if packed & FAULT else None,
        )

    def find(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        """The entry that covers ``address``; counts one hit or one miss."""
        packed = self._find(kind, address)
        return None if packed is None else self._unpack(kind, packed, address)

    def _find(self, kind: RequestKind, address: int) -> int | None:
        if self._bounded is not None:
            return self._bounded.find(*((kind, shift, address >> shift) for shift in self._shifts))
        space = self.space(kind)
        packed = space.store.get(address >> 12)
        if packed is None:
            for shift in self._shifts:
                packed = space.large.get((shift, address >> shift))
                if packed is not None:
                    offset = address & (1 << shift) - 1 & FRAME
                    packed = space.store[address >> 12] = packed | offset
                    break
        if packed is None:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
        return packed

    def insert(self, kind: RequestKind, entry: IotlbEntry) -> None:
        """Keep a translation, if the shape has room for any."""
        if not self._kept:
            return
        packed, shift, number = self.pack(entry), entry.shift, entry.address >> entry.shift
        if entry.fault is not None:
            self._faults[kind, entry.address] = entry.fault
        if shift not in self._shifts:
            self._shifts = tuple(sorted((*self._shifts, shift)))
        if self._bounded is not None:
            self._bounded.put((kind, shift, number), packed)
            return
        space = self.space(kind)
        if shift == 12:
            space.store[number] = packed
        else:
            space.large[shift, number] = packed
            self._drop_fractions(space, entry)
        self.counters.insertions += 1

    def _drop_fractions(self, space: Space, entry: IotlbEntry) -> None:
        """A large entry hides larger ones, and one of its size: their fractions go."""
        first = entry.address >> 12
        pages = range(first, first + (1 << entry.shift - 12))
        kept = space.store
        if len(kept) < len(pages):
            candidates = [page for page in kept if page in pages]
        else:
            candidates = [page for page in pages if page in kept]
        for page in candidates:
            if kept[page] >> SHIFT_AT & 63 >= entry.shift:
                del kept[page]

    def remove(
        self, matches: Callable[[IotlbTags], bool], start: int = 0, end: int = 1 << 64
    ) -> int:
        """Invalidate entries by their tags and by what they cover of ``start`` up to ``end``.

        The range is a naturally aligned power of two.
        """
        self.forget_shortcuts()
        doomed = {
            number: canonical_range(start, end, tags.width)
            for number, tags in enumerate(self._tags)
            if matches(tags)
        }
        count = 0

        def hit(packed: int, address: int) -> bool:
            covered = doomed.get(packed >> TAGS_AT)
            if covered is None:
                return False
            shift = packed >> SHIFT_AT & 63
            first = address >> shift << shift
            return first < covered[1] and covered[0] < first + (1 << shift)

        if not doomed:
            return 0
        if self._bounded is not None:
            return self._bounded.remove(lambda key, packed: hit(packed, key[2] << key[1]))
        for space in self._spaces.values():
            for page in [page for page, packed in space.store.items() if hit(packed, page << 12)]:
                count += space.store.pop(page) >> SHIFT_AT & 63 == 12
            large = [key for key, packed in space.large.items() if hit(packed, key[1] << key[0])]
            for key in large:
                del space.large[key]
            count += len(large)
        self.counters.invalidated += count
        return count

    def clear(self) -> int:
        """Invalidate everything."""
        count = len(self)
        if self._bounded is not None:
            return self._bounded.clear()
        for space in self._spaces.values():
            space.store.clear()
            space.large.clear()
            space.shortcut = None
        self._shifts = ()
        self._tags.clear()
        self._tag_numbers.clear()
        self._faults.clear()
        self.counters.invalidated += count
        return count

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[tuple[RequestKind, IotlbEntry]]:
        """The entries, without the fractions of large ones."""
        if self._bounded is not None:
            for (kind, shift, number), packed in self._bounded:
                yield kind, self._unpack(kind, packed, number << shift)
            return
        for kind, space in self._spaces.items():
            for page, packed in space.store.items():
                if packed >> SHIFT_AT & 63 == 12:
                    yield kind, self._unpack(kind, packed, page << 12)
            for (shift, number), packed in space.large.items():
                yield kind, self._unpack(kind, packed, number << shift)
