"""The IOTLB: translations of whole requests, tagged as VT-d 6.2.1 (Table 17) says.

An entry is found by what kind of request asks (source-id, PASID, privilege) and the input page, the
smallest page first (6.2.4.1). Entries of all kinds share the sets of the IOTLB's shape. What
invalidations match is kept by domain, so that none of them has to look through what it leaves.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
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
    size = end - start
    if size >> width:
        return 0, END
    low = start & (1 << width) - 1
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
    """READ and WRITE as far as a request may use them without a flag update."""
    snoop: bool
    """Whether the access snoops processor caches whatever the request asks for (3.10)."""
    fault: TranslationFault | None = None
    """What the request met, for a faulting result cached under CM = 1 (6.1)."""


GRANTS = (), (READ,), (WRITE,), (READ, WRITE)
"""By the rights of an entry: atomics, whose alignment counts too, are not among them."""


class Line:
    """The place of an entry in the IOTLB, with what a hit needs at hand."""

    __slots__ = ("entry", "grants", "offset", "physical", "recent", "rights")

    def __init__(
        self,
        entry: IotlbEntry | None,
        physical: int,
        rights: int,
        offset: int,
        recent: OrderedDict[Line, Space] | None,
    ) -> None:
        self.entry = entry
        self.physical = physical
        self.rights = rights
        self.grants = GRANTS[rights]
        """The accesses that need nothing but the entry."""
        self.offset = offset
        """Mask of the address bits within the page."""
        self.recent = recent
        """The set to be told of each use, under LRU; None where a use changes nothing."""


NOTHING = Line(None, 0, 0, 0, None)
"""What the IOTLB answers where it has no entry: no rights."""


class Space(dict[int, Line]):
    """The translations of one kind of request: 4 KiB pages by number, larger ones beside them.

    ``space[number]`` is the line that covers a 4 KiB page, or NOTHING. Requests without PASID to
    the interrupt address range are none for memory, so no page covers them (3.15).
    """

    __slots__ = ("kind", "large", "shifts", "tags")

    def __init__(self, kind: RequestKind) -> None:
        super().__init__()
        self.kind = kind
        self.large: dict[tuple[int, int], Line] = {}
        """By log2 of the page size and page number."""
        self.shifts: tuple[int, ...] = ()
        self.tags: IotlbTags | None = None
        """Of the last insertion, which are known to the index."""

    def __missing__(self, number: int) -> Line:
        for shift in self.shifts:
            line = self.large.get((shift, number >> shift - PAGE_SHIFT))
            if line is not None:
                interrupt = self.kind[1] is None and number << PAGE_SHIFT in INTERRUPT_RANGE
                return NOTHING if interrupt else line
        return NOTHING

    def lines(self) -> Iterator[Line]:
        """All of them."""
        yield from self.values()
        yield from self.large.values()


class Iotlb(Stateful):
    """The IOTLB of one unit, of any shape."""

    STATE = "counters", "_random"

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._ways = shape.ways
        self.counters = Counters()
        self._random = random.Random(shape.seed)
        self._touched = shape.ways is not None and shape.replacement is Replacement.LRU
        self._sets: list[OrderedDict[Line, Space]] = [OrderedDict() for _ in range(shape.sets)]
        """Where the shape is bounded: the next line to be replaced first."""
        self._spaces: dict[RequestKind, Space] = {}
        self._domains: dict[int, dict[IotlbTags, set[RequestKind]]] = {}
        """By domain-id: which kinds of request have entries with which tags."""

    def snapshot(self) -> State:
        """The counters, and the entries in the order of their replacement."""
        if self.shape.ways:
            entries = [
                (space.kind, line.entry) for each in self._sets for line, space in each.items()
            ]
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
        line = self.space(kind)[address >> PAGE_SHIFT]
        self.count(line)
        return line.entry

    def count(self, line: Line) -> None:
        """A request asked and met this line."""
        if line is NOTHING:
            self.counters.misses += 1
            return
        self.counters.hits += 1
        if line.recent is not None:
            line.recent.move_to_end(line)

    def insert(self, kind: RequestKind, entry: IotlbEntry) -> None:
        """Keep a translation, if the shape has room for any."""
        ways = self._ways
        if ways == 0:
            return
        space = self._spaces.get(kind)
        if space is None:
            space = self.space(kind)
        tags, address, shift, physical, rights, _, _ = entry
        lines = None if ways is None else self._make_room(space, shift, address >> shift)
        touched = lines if self._touched else None
        line = Line(entry, physical, rights, (1 << shift) - 1, touched)
        if lines is not None:
            lines[line] = space
        if shift == PAGE_SHIFT:
            space[address >> PAGE_SHIFT] = line
        else:
            space.large[shift, address >> shift] = line
            if shift not in space.shifts:
                space.shifts = tuple(sorted((*space.shifts, shift)))
        if tags is not space.tags:
            space.tags = tags
            self._domains.setdefault(tags.domain_id, {}).setdefault(tags, set()).add(space.kind)
        self.counters.insertions += 1

    def _make_room(self, space: Space, shift: int, number: int) -> OrderedDict[Line, Space]:
        """The set of a page with room for a line: in place of its own or of one that has to go."""
        lines = self._sets[self.shape.set_of(number)]
        old = _line(space, shift, number)
        if old is not None:
            del lines[old]
        elif len(lines) == self.shape.ways:
            victim = next(iter(lines))
            if self.shape.replacement is Replacement.RANDOM:
                victim = self._random.choice(list(lines))
            self._drop(lines[victim], victim)
            self.counters.evictions += 1
        return lines

    def _drop(self, space: Space, line: Line) -> None:
        assert line.entry is not None
        _, address, shift, *_ = line.entry
        if shift == PAGE_SHIFT:
            del space[address >> PAGE_SHIFT]
        else:
            del space.large[shift, address >> shift]
        if self.shape.ways is not None:
            del self._sets[self.shape.set_of(address >> shift)][line]

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
                    space = self._spaces[kind]
                    for line in _covering(space, tags, first, last):
                        self._drop(space, line)
                        count += 1
        self.counters.invalidated += count
        return count

    def clear(self) -> int:
        """Invalidate everything."""
        count = self._empty()
        self.counters.invalidated += count
        return count

    def _empty(self) -> int:
        count = 0
        for space in self._spaces.values():
            count += len(space) + len(space.large)
            space.clear()
            space.large.clear()
            space.shifts, space.tags = (), None
        for lines in self._sets:
            lines.clear()
        self._domains.clear()
        return count

    def __len__(self) -> int:
        return sum(len(space) + len(space.large) for space in self._spaces.values())

    def __iter__(self) -> Iterator[tuple[RequestKind, IotlbEntry]]:
        """The entries with the kind of request they are for."""
        for kind, space in self._spaces.items():
            for line in space.lines():
                if line.entry is not None:
                    yield kind, line.entry


def _line(space: Space, shift: int, number: int) -> Line | None:
    return space.get(number) if shift == PAGE_SHIFT else space.large.get((shift, number))


def _covering(space: Space, tags: IotlbTags, start: int, end: int) -> list[Line]:
    """The lines of these tags that cover any of a range: by page number where those are fewer."""
    found: list[Line] = []
    for shift in (PAGE_SHIFT, *space.shifts):
        first, last = start >> shift, end - 1 >> shift
        if last - first < len(space) + len(space.large):
            near = (_line(space, shift, number) for number in range(first, last + 1))
            found += [line for line in near if line is not None and _tags(line) == tags]
            continue
        for line in space.values() if shift == PAGE_SHIFT else space.large.values():
            entry = line.entry
            if (
                entry is not None
                and entry.shift == shift
                and entry.tags == tags
                and first <= entry.address >> shift <= last
            ):
                found.append(line)
    return found


def _tags(line: Line) -> IotlbTags | None:
    return None if line.entry is None else line.entry.tags
