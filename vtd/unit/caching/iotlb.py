"""The IOTLB: translations of whole requests, tagged as VT-d 6.2.1 (Table 17) says.

An entry is found by what kind of request asks (source-id, PASID, privilege) and the input page, the
smallest page first (6.2.4.1). Entries of all kinds share the sets of the IOTLB's shape. What
invalidations match is kept by domain, so that none of them has to look through what it leaves.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from devices.dma import READ, WRITE
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.geometry import PAGE_SHIFT
from vtd.unit.caching.cache import Counters, Replacement, Shape
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.requests.target import IotlbTags
from vtd.unit.state import State, Stateful

END = 1 << 64


def canonical_range(start: int, end: int, width: int) -> tuple[int, int]:
    """The canonical addresses, of ``width`` bits, with the low bits of those in a range.

    The range is a naturally aligned power of two, as those of invalidations are.
    """
    if width == 64:
        return start, end
    size = end - start
    if size >> width:
        return 0, END
    low = start % (1 << width)
    if low >> width - 1:
        low += END - (1 << width)
    return low, low + size


class IotlbEntry(NamedTuple):
    """A translation."""

    tags: IotlbTags
    address: int
    """Start of the input page."""
    shift: int
    """log2 of the page size."""
    physical: int
    """Start of the output page."""
    rights: int
    """READ and WRITE as far as a request may use them without a flag update; shifted by 2, what the
    tables grant, where that is more."""
    snoop: bool
    """Whether the access snoops processor caches whatever the request asks for (3.10)."""
    fault: TranslationFault | None = None
    """What the request met, for a faulting result cached under CM = 1 (6.1)."""


Translation = tuple[IotlbTags, int, int, int, int, bool, TranslationFault | None]
"""The fields of an :class:`IotlbEntry`, bare: a named tuple takes five times as long to be made and
taken apart, which is a tenth of what a miss costs."""

GRANTS = ((), (READ,), (WRITE,), (READ, WRITE)) * 4
"""By the rights of an entry: atomics, whose alignment counts too, are not among them."""


Line = tuple[tuple[int, ...], int, int, Callable[[], None] | None, Translation | None]
"""An entry, last, behind what a hit needs at hand: the accesses that it grants by itself, the frame
that it leads to, a mask of the frame-number bits within its page, and whom to tell of the use."""
Place = tuple[RequestKind, int, int]
"""Where an entry is: kind of request, log2 of the page size, page number."""

NOTHING: Line = (), 0, 0, None, None
"""What the IOTLB answers where it has no entry."""


class Space:
    """The translations of one kind of request: 4 KiB pages by number, larger ones beside them.

    Requests without PASID to the interrupt address range are none for memory, so no page covers
    them (3.15).
    """

    __slots__ = ("kind", "larger", "small", "tags")

    def __init__(self, kind: RequestKind) -> None:
        self.kind = kind
        self.small: dict[int, Line] = {}
        """Pages of 4 KiB by number."""
        self.larger: dict[int, dict[int, Line]] = {}
        """By log2 of the page size, the smallest first, and page number."""
        self.tags: IotlbTags | None = None
        """Of the last insertion, which are known to the index."""

    def line(self, number: int) -> Line:
        """The line that covers the 4 KiB page with this number, or NOTHING."""
        for shift, pages in self.sizes():
            line = pages.get(number >> shift - PAGE_SHIFT)
            if line is not None:
                interrupt = self.kind[1] is None and number << PAGE_SHIFT in INTERRUPT_RANGE
                return NOTHING if interrupt else line
        return NOTHING

    def sizes(self) -> tuple[tuple[int, dict[int, Line]], ...]:
        """The pages of each size: its log2, and lines by page number."""
        return (PAGE_SHIFT, self.small), *self.larger.items()

    def pages(self, shift: int) -> dict[int, Line]:
        """The pages of one size, by page number."""
        if shift == PAGE_SHIFT:
            return self.small
        if shift not in self.larger:
            self.larger = dict(sorted([*self.larger.items(), (shift, {})]))
        return self.larger[shift]


class Iotlb(Stateful):
    """The IOTLB of one unit, of any shape."""

    STATE = "counters", "_random"

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._ways = shape.ways
        self.counters = Counters()
        self._random = random.Random(shape.seed)
        self._touched = shape.ways is not None and shape.replacement is Replacement.LRU
        self._sets: list[OrderedDict[Place, Translation]] = [
            OrderedDict() for _ in range(shape.sets)
        ]
        """Where the shape is bounded: the next entry to be replaced first."""
        self._spaces: dict[RequestKind, Space] = {}
        self._domains: dict[int, dict[IotlbTags, set[RequestKind]]] = {}
        """By domain-id: which kinds of request have entries with which tags."""
        self.removed: list[tuple[RequestKind, int]] | None = None
        """Where invalidations removed something, by address, while somebody wants to know."""

    def snapshot(self) -> State:
        """The counters, and the entries in the order of their replacement."""
        if self.shape.ways:
            entries = [(kind, entry) for each in self._sets for (kind, *_), entry in each.items()]
        else:
            entries = list(self)
        return (*super().snapshot(), entries)

    def restore(self, state: State) -> None:
        """Put the entries back, into the spaces that ports keep."""
        *others, entries = state
        self._empty()
        for kind, entry in entries:
            self.insert(kind, entry)
        super().restore(tuple(others))

    def space(self, kind: RequestKind) -> Space:
        """The translations of one kind of request; stays the same, so a port may keep it."""
        space = self._spaces.get(kind)
        if space is None:
            space = self._spaces[kind] = Space(kind)
        return space

    def find(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        """The entry that covers ``address``; counts one hit or one miss."""
        return named(self.use(self.space(kind).line(address >> PAGE_SHIFT)))

    def use(self, line: Line) -> Translation | None:
        """The entry of the line that a request met; counts a hit or a miss."""
        _, _, _, touch, entry = line
        if entry is None:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        if touch is not None:
            touch()
        return entry

    def peek(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        """The entry that covers ``address``, without counting or touching it."""
        *_, entry = self.space(kind).line(address >> PAGE_SHIFT)
        return named(entry)

    def insert(self, kind: RequestKind, entry: Translation) -> None:
        """Keep a translation for a kind of request, if the shape has room for any."""
        self.keep(self.space(kind), entry)

    def keep(self, space: Space, entry: Translation) -> None:
        """The same, among those of the kind of request that the space is for."""
        ways = self._ways
        if ways == 0:
            return
        tags, address, shift, physical, rights, _, _ = entry
        pages, number, within, touch = space.small, address >> PAGE_SHIFT, 0, None
        if shift != PAGE_SHIFT:
            number, within = address >> shift, (1 << shift - PAGE_SHIFT) - 1
            pages = space.pages(shift)
        if ways is not None:
            touch = self._take((space.kind, shift, number), entry)
        pages[number] = GRANTS[rights], physical >> PAGE_SHIFT, within, touch, entry
        if tags is not space.tags:
            space.tags = tags
            self._domains.setdefault(tags.domain_id, {}).setdefault(tags, set()).add(space.kind)
        self.counters.insertions += 1

    def _take(self, place: Place, entry: Translation) -> Callable[[], None] | None:
        """Have an entry be the newest of its set, in place of its like or of one that has to go.

        What to call at each use of it, if that counts.
        """
        entries = self._sets[self.shape.set_of(place[2])]
        if place in entries:
            del entries[place]
        elif len(entries) == self.shape.ways:
            victim = next(iter(entries))
            if self.shape.replacement is Replacement.RANDOM:
                victim = self._random.choice(list(entries))
            self._drop(victim)
            self.counters.evictions += 1
        entries[place] = entry
        return partial(entries.move_to_end, place) if self._touched else None

    def _drop(self, place: Place) -> None:
        kind, shift, number = place
        space = self._spaces[kind]
        del (space.small if shift == PAGE_SHIFT else space.larger[shift])[number]
        if self._ways is not None:
            del self._sets[self.shape.set_of(number)][place]

    def remove(
        self,
        domain_id: int,
        matches: Callable[[IotlbTags], bool] | None = None,
        start: int = 0,
        end: int = END,
    ) -> int:
        """Invalidate entries of a domain by their tags and what they cover of ``start`` to ``end``.

        The range is a naturally aligned power of two.
        """
        count = 0
        for tags, kinds in self._domains.get(domain_id, {}).items():
            if matches is None or matches(tags):
                first, last = canonical_range(start, end, tags.width)
                for kind in kinds:
                    doomed = _covering(self._spaces[kind], tags, first, last)
                    for place in doomed:
                        self._drop(place)
                    count += len(doomed)
                    if self.removed is not None:
                        self.removed += [(kind, number << shift) for _, shift, number in doomed]
        self.counters.invalidated += count
        return count

    def clear(self) -> int:
        """Invalidate everything."""
        if self.removed is not None:
            self.removed += [(kind, entry.address) for kind, entry in self]
        count = self._empty()
        self.counters.invalidated += count
        return count

    def _empty(self) -> int:
        count = 0
        for space in self._spaces.values():
            count += len(space.small) + sum(map(len, space.larger.values()))
            space.small.clear()
            space.larger, space.tags = {}, None
        for lines in self._sets:
            lines.clear()
        self._domains.clear()
        return count

    def __len__(self) -> int:
        return sum(len(pages) for space in self._spaces.values() for _, pages in space.sizes())

    def __iter__(self) -> Iterator[tuple[RequestKind, IotlbEntry]]:
        """The entries with the kind of request they are for."""
        for kind, space in self._spaces.items():
            for _, pages in space.sizes():
                for *_, entry in pages.values():
                    if entry is not None:
                        yield kind, IotlbEntry._make(entry)


def named(entry: Translation | None) -> IotlbEntry | None:
    """A translation with names to its fields."""
    return None if entry is None else IotlbEntry._make(entry)


def _covering(space: Space, tags: IotlbTags, start: int, end: int) -> list[Place]:
    """Where entries of these tags cover any of a range: by page number where those are fewer."""
    found: list[Place] = []
    for shift, pages in space.sizes():
        inside = range(start >> shift, (end - 1 >> shift) + 1)
        few = len(inside) < len(pages)
        for number in inside if few else [page for page in pages if page in inside]:
            *_, entry = pages.get(number, NOTHING)
            if entry is not None and entry[0] == tags:
                found.append((space.kind, shift, number))
    return found
