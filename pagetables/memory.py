"""Sparse physical memory: regions of 4 KiB frames, read and written as the bus does.

A frame is 512 little-endian quadwords; a page walk indexes frames directly
(``memory.frames[frame][index]``). What no region covers answers with :class:`BusError`. Snapshots
and forks share frames with the memory they come from: a frame is copied when it is next written.
"""

from __future__ import annotations

import bisect
import mmap
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

FRAME_SHIFT = 12
FRAME_SIZE = 1 << FRAME_SHIFT
OFFSET = FRAME_SIZE - 1
"""The bits of an address that say where in its frame it is."""
ADDRESS_WIDTH = 52
CACHE_LINE = 64

Frame: TypeAlias = "array[int] | memoryview"
"""An array where frames are made here, a view where they are mapped."""

Layer: TypeAlias = "Mapping[int, array[int]]"
"""Frames by frame number that nobody writes any more, as more than one memory may have them."""

if sys.byteorder != "little":
    raise ImportError("frames are views of little-endian quadwords: a little-endian host is needed")


Watcher: TypeAlias = "Callable[[int, bytes], None]"
"""Told of the address and the bytes of a store; of an exchange although it may not be made."""


Mover: TypeAlias = "Callable[[int | None], None]"
"""Told of a frame that is elsewhere from now on, or of None where that may be so of every frame."""


class BusError(Exception):
    """An access that memory does not carry out; the engine turns it into the architected fault."""

    def __init__(self, address: int, why: str) -> None:
        super().__init__(f"{address:#x}: {why}")
        self.address = address


class MemoryLayoutError(ValueError):
    """A region that can't be: unaligned, overlapping, too high, or unknown."""


@dataclass(frozen=True, slots=True)
class Region:
    """Ordinary memory at ``start`` up to, not including, ``end``."""

    start: int
    end: int
    read_only: bool
    backing: memoryview | None
    """The mapped bytes, or None where frames are made when first written."""


class FrameSource(Protocol):
    """Frames by frame number; raises BusError where there is no memory."""

    def __getitem__(self, number: int, /) -> FrameReader: ...


class FrameReader(Protocol):
    """The 512 quadwords of a frame."""

    def __getitem__(self, index: int, /) -> int: ...


class TableMemory(Protocol):
    """Memory as a remapping unit sees it: tables are read, flags and status words written."""

    def host(self, address: int) -> int:
        """The host physical address of what was found at ``address``."""
        ...

    @property
    def frames(self) -> FrameSource: ...

    def read_record(self, address: int, size: int) -> int: ...

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool: ...

    def write(self, address: int, data: bytes) -> None: ...


class _Cutters(dict[int, Callable[[Frame, int], tuple[bytes]]]):
    """Functions that cut so many bytes out of a frame: nothing else gets at them as quickly.

    struct.error if the frame does not have as many there.
    """

    def __missing__(self, length: int) -> Callable[[Frame, int], tuple[bytes]]:
        if not 0 <= length <= FRAME_SIZE:
            raise struct.error
        cutter = self[length] = struct.Struct(f"{length}s").unpack_from
        return cutter


CUTTERS = _Cutters()
_ZERO = array("Q", bytes(FRAME_SIZE))
_NOWHERE = Region(0, 0, True, None)


class _Backing:
    """The regions, and the frames in them that are shared with others or blank."""

    regions: list[Region]
    _latest: Region
    """Where memory was last found: neighbours are mostly asked for together."""

    def __init__(self, regions: list[Region], layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        """The last layer that has a frame counts."""
        self.replace(regions)

    def region(self, number: int) -> Region:
        """The region that a frame is in; BusError if there is none."""
        address, latest = number << FRAME_SHIFT, self._latest
        if latest.start <= address < latest.end:
            return latest
        at = bisect.bisect_right(self.regions, address, key=lambda region: region.start) - 1
        if at < 0 or address >= self.regions[at].end:
            raise BusError(address, "no memory here")
        self._latest = self.regions[at]
        return self._latest

    def replace(self, regions: list[Region]) -> None:
        """Have other regions from now on."""
        self.regions = regions
        self.shared_with_others = any(region.backing is not None for region in regions)
        self._latest = _NOWHERE

    def anonymous(self) -> tuple[Region, ...]:
        """The regions whose frames are made here."""
        return tuple(region for region in self.regions if region.backing is None)

    def shared(self, number: int) -> array[int]:
        """A frame of an anonymous region, not to be written."""
        for layer in reversed(self.layers):
            frame = layer.get(number)
            if frame is not None:
                return frame
        return _ZERO


class _Frames(dict[int, Frame]):
    """Frames as they are now, by frame number; found, or refused, when first asked for."""

    def __init__(self, backing: _Backing) -> None:
        super().__init__()
        self._backing = backing

    def __missing__(self, number: int) -> Frame:
        region = self._backing.region(number)
        if region.backing is None:
            frame: Frame = self._backing.shared(number)
        else:
            frame = _mapped(region, number).cast("Q")
        self[number] = frame
        return frame


class _SharedBytes:
    """The bytes of a mapped frame, which others poll and change at the same time.

    A copy may store bytes twice, the second time over what a reader has answered by then. So what
    is no longer than a cache line is stored by single accesses. A reader finds a whole record where
    it waits for the last bytes of up to 16 (a completion queue entry, a descriptor) or for the
    first bytes of more (the completion record of a work queue).
    """

    def __init__(self, view: memoryview) -> None:
        self._bytes = view
        self._by_size = {1: view, 2: view.cast("H"), 4: view.cast("I"), 8: view.cast("Q")}

    def __getitem__(self, span: slice) -> memoryview:
        return self._bytes[span]

    def __setitem__(self, span: slice, data: bytes) -> None:
        start, length = span.start, len(data)
        if length > CACHE_LINE:
            self._bytes[span] = data
            return
        parts, at = [], 0
        while at < length:
            size = min(_alignment(start + at), 1 << (length - at).bit_length() - 1)
            parts.append((at, size))
            at += size
        if length > 16:
            parts.append(parts.pop(0))
        for at, size in parts:
            value = int.from_bytes(data[at : at + size], "little")
            self._by_size[size][(start + at) // size] = value


Store: TypeAlias = "memoryview | _SharedBytes"
"""The bytes of a frame that may be written in place."""


class _Stores(dict[int, Store]):
    """Bytes of the frames that may be written in place; others are first made so, or refused."""

    def __init__(self, backing: _Backing, frames: _Frames) -> None:
        super().__init__()
        self._backing = backing
        self._frames = frames
        self.changed: dict[int, array[int]] = {}
        """Frames that only this memory has, written or loaded since they were last shared."""
        self.movers: list[Mover] = []

    def __missing__(self, number: int) -> Store:
        region = self._backing.region(number)
        if region.read_only:
            raise BusError(number << FRAME_SHIFT, "read-only memory")
        store = self[number] = (
            self.own(number) if region.backing is None else _SharedBytes(_mapped(region, number))
        )
        return store

    def loadable(self, number: int) -> Store:
        """The bytes of a frame for a loader, who may write to anonymous read-only regions."""
        region = self._backing.region(number)
        if region.read_only and region.backing is None:
            return self.own(number)
        return self[number]

    def own(self, number: int) -> memoryview:
        """The bytes of a frame that only this memory has: if need be, of a copy from now on."""
        frame = self.changed.get(number)
        if frame is None:
            frame = (self._backing.shared(number) if self._backing.layers else _ZERO)[:]
            self.changed[number] = self._frames[number] = frame
            for mover in self.movers:
                mover(number)
        return memoryview(frame).cast("B")

    def release(self) -> None:
        """Write to no frame in place any more."""
        self.changed = {}
        self.clear()
        self.moved()

    def moved(self) -> None:
        """Any frame may be elsewhere."""
        for mover in self.movers:
            mover(None)


class MemoryState(Mapping[int, bytes]):
    """What the anonymous regions of a memory hold: bytes by frame number, without blank frames.

    A value: it follows no later change, compares by contents and regions, and can be pickled.
    """

    def __init__(self, regions: tuple[Region, ...], layers: tuple[Layer, ...]) -> None:
        self.regions = regions
        """The anonymous regions in ascending order."""
        self.layers = layers
        """Frames, of which the last layer that has one counts."""

    def __getitem__(self, number: int) -> bytes:
        return self._frames()[number].tobytes()

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames())

    def __len__(self) -> int:
        return len(self._frames())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryState):
            return super().__eq__(other)
        return self.regions == other.regions and self._frames() == other._frames()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"MemoryState({self.regions}, {dict(self)})"

    def _frames(self) -> Layer:
        frames: dict[int, array[int]] = {}
        for layer in self.layers:
            frames.update(layer)
        return frames


class PhysicalMemory:
    """Physical memory up to 2^52 bytes, made of regions that may come and go at run time."""

    def __init__(self) -> None:
        self._begin([], ())

    def _begin(self, regions: list[Region], layers: tuple[Layer, ...]) -> None:
        self._backing = _Backing(regions, layers)
        self.frames = _Frames(self._backing)
        self._stores = _Stores(self._backing, self.frames)
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher`` told of each later store, by whomever, before it is made.

        Stores of a memory that nobody watches cost nothing more.
        """
        if not self._watchers:
            write, load, exchange = self.write, self.load, self.compare_exchange

            def watched_write(address: int, data: bytes) -> None:
                self._announce(address, data)
                write(address, data)

            def watched_load(address: int, data: bytes) -> None:
                self._announce(address, data)
                load(address, data)

            def watched_exchange(address: int, size: int, expected: int, new: int) -> bool:
                self._announce(address, new.to_bytes(size, "little"))
                return exchange(address, size, expected, new)

            vars(self).update(
                write=watched_write, load=watched_load, compare_exchange=watched_exchange
            )
        self._watchers.append(watcher)

    def ignore(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of no later store; ValueError if it is told of none now."""
        self._watchers.remove(watcher)
        if not self._watchers:
            for name in ("write", "load", "compare_exchange"):
                del vars(self)[name]

    @property
    def watched(self) -> bool:
        """Whether somebody is told of stores."""
        return bool(self._watchers)

    def follow(self, mover: Mover) -> None:
        """Tell ``mover`` when a frame that was in ``frames`` is replaced, goes away or is shared.

        Whoever keeps a pointer to a frame, or writes to one that :meth:`own` made writable in
        place, has to know.
        """
        self._stores.movers.append(mover)

    def own(self, number: int) -> None:
        """Make a frame writable in place, of a copy if need be; BusError where that can't be."""
        self._stores[number]

    def is_own(self, number: int) -> bool:
        """Whether a frame may be written in place."""
        return number in self._stores

    def _announce(self, address: int, data: bytes) -> None:
        for watcher in self._watchers:
            watcher(address, data)

    @property
    def shared_with_others(self) -> bool:
        """Whether a region is mapped, which others change without telling a watcher."""
        return self._backing.shared_with_others

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions in ascending order."""
        return tuple(self._backing.regions)

    def add_region(self, start: int, length: int, *, read_only: bool = False) -> None:
        """Add anonymous memory, all zero. ``read_only``: only :meth:`load` can change it."""
        self._insert(Region(start, start + length, read_only, None))

    def map_region(
        self, start: int, fd: int, offset: int, length: int, *, read_only: bool = False
    ) -> None:
        """Add ``length`` bytes of an open file at ``offset`` (a multiple of the page size).

        Another process's memory, shared through the file, thereby becomes a region.
        """
        _check_span(start, start + length)
        try:
            mapped = mmap.mmap(
                fd,
                length,
                mmap.MAP_SHARED,
                mmap.PROT_READ if read_only else mmap.PROT_READ | mmap.PROT_WRITE,
                offset=offset,
            )
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryLayoutError(
                f"region {start:#x}: can't map {length:#x} bytes at offset {offset:#x}: {error}"
            ) from error
        self._insert(Region(start, start + length, read_only, memoryview(mapped)))

    def remove_region(self, start: int) -> None:
        """Take the region that begins at ``start`` away, with all it holds."""
        backing = self._backing
        region = next((region for region in backing.regions if region.start == start), None)
        if region is None:
            raise MemoryLayoutError(f"no region begins at {start:#x}")
        self.remove_range(region.start, region.end)

    def remove_range(self, start: int, end: int) -> None:
        """Take all memory from ``start`` up to ``end`` away; what regions have beyond it stays.

        MemoryLayoutError for a range that is empty or not made of whole frames.
        """
        _check_span(start, end)
        backing = self._backing
        backing.replace(
            [part for region in backing.regions for part in _outside(region, start, end)]
        )
        gone = range(start >> FRAME_SHIFT, end >> FRAME_SHIFT)
        for table in (self.frames, self._stores, self._stores.changed):
            for number in [number for number in table if number in gone]:
                del table[number]
        backing.layers = tuple(
            {number: frame for number, frame in layer.items() if number not in gone}
            for layer in backing.layers
        )
        self._stores.moved()

    def host(self, address: int) -> int:
        """The address itself: these are host physical addresses."""
        return address

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes at ``address``; BusError if any of them is not there."""
        try:
            return CUTTERS[length](self.frames[address >> FRAME_SHIFT], address & OFFSET)[0]
        except struct.error:  # in more than one frame
            parts = []
        end = address + length
        while address < end:
            size = min(end - address, FRAME_SIZE - (address & OFFSET))
            parts.append(self.read(address, size))
            address += size
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``; BusError, and nothing stored, if any of it can't be written."""
        offset = address & OFFSET
        end = offset + len(data)
        if offset < end <= FRAME_SIZE:
            self._stores[address >> FRAME_SHIFT][offset:end] = data
            return
        _store(address, data, self._stores.__getitem__)

    def load(self, address: int, data: bytes) -> None:
        """Store ``data`` as software or a loader does: anonymous read-only regions take it too.

        BusError, and nothing stored, where there is no memory.
        """
        _store(address, data, self._stores.loadable)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``, read in one access."""
        frame = self.frames[address >> FRAME_SHIFT]
        if size == 8:
            return frame[address >> 3 & 511]
        return int.from_bytes(CUTTERS[size](frame, address & OFFSET)[0], "little")

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a naturally aligned record; False if it is not ``expected``."""
        store = self._stores[address >> FRAME_SHIFT]
        if size == 8:
            frame, index = self.frames[address >> FRAME_SHIFT], address >> 3 & 511
            if frame[index] != expected:
                return False
            frame[index] = new
            return True
        offset = address & OFFSET
        if int.from_bytes(store[offset : offset + size], "little") != expected:
            return False
        store[offset : offset + size] = new.to_bytes(size, "little")
        return True

    def snapshot(self) -> MemoryState:
        """The anonymous regions and their contents, at the cost of what changed since the last."""
        return MemoryState(self._backing.anonymous(), self._share())

    def restore(self, state: MemoryState) -> None:
        """Put the anonymous regions back to what :meth:`snapshot` returned.

        MemoryLayoutError, and nothing changed, if a mapped region has taken the place of one.
        """
        backing = self._backing
        if state.regions != backing.anonymous():
            mapped = [region for region in backing.regions if region.backing is not None]
            regions = sorted((*state.regions, *mapped), key=lambda region: region.start)
            for one, other in pairwise(regions):
                _check_apart(one, other)
            backing.replace(regions)
            self.frames.clear()
        alike = 0
        for ours, theirs in zip(backing.layers, state.layers, strict=False):
            if ours is not theirs:
                break
            alike += 1
        for layer in (self._stores.changed, *backing.layers[alike:], *state.layers[alike:]):
            for number in layer:
                self.frames.pop(number, None)
        self._stores.release()
        backing.layers = state.layers

    def fork(self) -> PhysicalMemory:
        """A memory with the same contents that goes its own way, at the cost of a snapshot.

        Mapped regions are memory of others: both have the same.
        """
        fork = PhysicalMemory()
        fork._begin(list(self._backing.regions), self._share())
        return fork

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy take; TypeError if there are mapped regions, which are others'."""
        for region in self._backing.regions:
            if region.backing is not None:
                raise TypeError(
                    f"memory with the mapped region {region.start:#x}-{region.end:#x} can't be "
                    "pickled: remove the region first"
                )
        return {"regions": self._backing.regions, "layers": self._share()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(list(state["regions"]), state["layers"])

    def _share(self) -> tuple[Layer, ...]:
        """All frames in layers: from now on nobody writes to them.

        A layer that is not more than twice as large goes together with the new one: there are few
        layers, and a frame is seldom carried from one to the next.
        """
        newest = self._stores.changed
        if newest:
            layers = list(self._backing.layers)
            while layers and len(layers[-1]) <= 2 * len(newest):
                newest = {**layers.pop(), **newest}
            self._backing.layers = (*layers, newest)
            self._stores.release()
        return self._backing.layers

    def _insert(self, region: Region) -> None:
        _check_span(region.start, region.end)
        regions = self._backing.regions
        at = bisect.bisect_left(regions, region.start, key=lambda known: known.start)
        for known in regions[max(at - 1, 0) : at + 1]:
            _check_apart(region, known)
        self._backing.replace([*regions[:at], region, *regions[at:]])
        self._stores.moved()


def _outside(region: Region, start: int, end: int) -> Iterator[Region]:
    """The parts of a region that lie below ``start`` or from ``end`` on."""
    for first, last in (
        (region.start, min(region.end, start)),
        (max(region.start, end), region.end),
    ):
        if first < last:
            backing = region.backing
            if backing is not None:
                backing = backing[first - region.start : last - region.start]
            yield replace(region, start=first, end=last, backing=backing)


def _alignment(offset: int) -> int:
    """The largest power of two up to 8 that ``offset`` is a multiple of."""
    return offset & -offset & 7 or 8


def _mapped(region: Region, number: int) -> memoryview:
    assert region.backing is not None
    offset = (number << FRAME_SHIFT) - region.start
    return region.backing[offset : offset + FRAME_SIZE]


def _store(address: int, data: bytes, find: Callable[[int], Store]) -> None:
    """Store ``data`` frame by frame, after all frames were found."""
    parts = []
    done = 0
    while done < len(data):
        offset = address + done & OFFSET
        size = min(FRAME_SIZE - offset, len(data) - done)
        parts.append((find(address + done >> FRAME_SHIFT), offset, done, size))
        done += size
    for store, offset, done, size in parts:
        store[offset : offset + size] = data[done : done + size]


def _check_apart(region: Region, known: Region) -> None:
    if known.start < region.end and region.start < known.end:
        raise MemoryLayoutError(
            f"region {region.start:#x}-{region.end:#x} overlaps {known.start:#x}-{known.end:#x}"
        )


def _check_span(start: int, end: int) -> None:
    if not 0 <= start < end <= 1 << ADDRESS_WIDTH:
        raise MemoryLayoutError(
            f"region {start:#x}-{end:#x} is empty or outside the {ADDRESS_WIDTH}-bit address space"
        )
    if start % FRAME_SIZE or end % FRAME_SIZE:
        raise MemoryLayoutError(f"region {start:#x}-{end:#x} is not made of whole 4 KiB frames")
