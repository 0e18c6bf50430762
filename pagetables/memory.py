"""Sparse physical memory: regions of 4 KiB frames, read and written as the bus does.

A frame is 512 little-endian quadwords; a page walk indexes frames directly
(``memory.frames[frame][index]``). What no region covers answers with :class:`BusError`.
"""

from __future__ import annotations

import bisect
import mmap
import sys
from array import array
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

FRAME_SHIFT = 12
FRAME_SIZE = 1 << FRAME_SHIFT
ADDRESS_WIDTH = 52

Frame: TypeAlias = "array[int] | memoryview"
"""An array where frames are made here, a view where they are mapped or can't be written."""

if sys.byteorder != "little":
    raise ImportError("frames are views of little-endian quadwords: a little-endian host is needed")


class BusError(Exception):
    """An access that memory does not carry out; the engine turns it into the architected fault."""

    def __init__(self, address: int, why: str) -> None:
        super().__init__(f"{address:#x}: {why}")
        self.address = address


class MemoryLayoutError(ValueError):
    """A region that can't be: unaligned, overlapping, too high, or unknown."""


class Region(NamedTuple):
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


class _Frames(dict[int, Frame]):
    """Frames in use by frame number; others are found, or refused, when first asked for."""

    def __init__(self, find: Callable[[int], Frame]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, number: int) -> Frame:
        frame = self[number] = self._find(number)
        return frame


_ZERO: Frame = memoryview(bytes(FRAME_SIZE)).cast("Q")


class PhysicalMemory:
    """Physical memory up to 2^52 bytes, made of regions that may come and go at run time."""

    def __init__(self) -> None:
        self.frames = _Frames(self._find)
        self._regions: list[Region] = []
        self._read_only_frames: dict[int, Frame] = {}

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions in ascending order."""
        return tuple(self._regions)

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
        for region in self._regions:
            if region.start == start:
                break
        else:
            raise MemoryLayoutError(f"no region begins at {start:#x}")
        self._regions.remove(region)
        first, last = region.start >> FRAME_SHIFT, region.end >> FRAME_SHIFT
        for table in (self.frames, self._read_only_frames):
            for number in [number for number in table if first <= number < last]:
                del table[number]

    def host(self, address: int) -> int:
        """The address itself: these are host physical addresses."""
        return address

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes at ``address``; BusError if any of them is not there."""
        offset = address & FRAME_SIZE - 1
        if offset + length <= FRAME_SIZE:
            return (
                memoryview(self.frames[address >> FRAME_SHIFT])
                .cast("B")[offset : offset + length]
                .tobytes()
            )
        parts = []
        while length > 0:
            parts.append(self.read(address, min(length, FRAME_SIZE - offset)))
            address, length, offset = address + len(parts[-1]), length - len(parts[-1]), 0
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data``; BusError, and nothing stored, if any of it can't be written."""
        self._store(address, data, self._writable)

    def load(self, address: int, data: bytes) -> None:
        """Store ``data`` as software or a loader does: anonymous read-only regions take it too."""
        self._store(address, data, self._loadable)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``, read in one access."""
        frame = self.frames[address >> FRAME_SHIFT]
        if size == 8:
            return frame[address >> 3 & 511]
        offset = address & FRAME_SIZE - 1
        return int.from_bytes(memoryview(frame).cast("B")[offset : offset + size], "little")

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Atomically replace a naturally aligned record; False if it is not ``expected``."""
        frame = memoryview(self._writable(address >> FRAME_SHIFT)).cast("B")
        offset = address & FRAME_SIZE - 1
        if int.from_bytes(frame[offset : offset + size], "little") != expected:
            return False
        frame[offset : offset + size] = new.to_bytes(size, "little")
        return True

    def snapshot(self) -> dict[int, bytes]:
        """Contents of the anonymous regions: frame number to bytes, untouched frames left out."""
        contents = {**self.frames, **self._read_only_frames}
        return {
            number: frame.tobytes()
            for number, frame in contents.items()
            if frame is not _ZERO and self._region(number).backing is None
        }

    def restore(self, contents: dict[int, bytes]) -> None:
        """Put the anonymous regions back to what :meth:`snapshot` returned."""
        self._read_only_frames.clear()
        for number in list(self.frames):
            if self._region(number).backing is None:
                del self.frames[number]
        for number, data in contents.items():
            self.load(number << FRAME_SHIFT, data)

    def _store(self, address: int, data: bytes, find: Callable[[int], Frame]) -> None:
        parts = []
        done = 0
        while done < len(data):
            offset = (address + done) & FRAME_SIZE - 1
            size = min(FRAME_SIZE - offset, len(data) - done)
            parts.append((find(address + done >> FRAME_SHIFT), offset, done, size))
            done += size
        for frame, offset, done, size in parts:
            memoryview(frame).cast("B")[offset : offset + size] = data[done : done + size]

    def _insert(self, region: Region) -> None:
        _check_span(region.start, region.end)
        at = bisect.bisect_left(self._regions, region.start, key=lambda known: known.start)
        for known in self._regions[max(at - 1, 0) : at + 1]:
            if known.start < region.end and region.start < known.end:
                raise MemoryLayoutError(
                    f"region {region.start:#x}-{region.end:#x} overlaps "
                    f"{known.start:#x}-{known.end:#x}"
                )
        self._regions.insert(at, region)

    def _region(self, number: int) -> Region:
        address = number << FRAME_SHIFT
        at = bisect.bisect_right(self._regions, address, key=lambda region: region.start) - 1
        if at < 0 or address >= self._regions[at].end:
            raise BusError(address, "no memory here")
        return self._regions[at]

    def _find(self, number: int) -> Frame:
        region = self._region(number)
        if region.backing is None:
            return _ZERO
        offset = (number << FRAME_SHIFT) - region.start
        return region.backing[offset : offset + FRAME_SIZE].cast("Q")

    def _writable(self, number: int) -> Frame:
        frame = self.frames[number]
        if isinstance(frame, array) or not frame.readonly:
            return frame
        if self._region(number).read_only:
            raise BusError(number << FRAME_SHIFT, "read-only memory")
        frame = self.frames[number] = array("Q", _ZERO)
        return frame

    def _loadable(self, number: int) -> Frame:
        region = self._region(number)
        if not region.read_only or region.backing is not None:
            return self._writable(number)
        if number not in self._read_only_frames:
            frame = self._read_only_frames[number] = array("Q", _ZERO)
            self.frames[number] = memoryview(frame).toreadonly()
        return self._read_only_frames[number]


def _check_span(start: int, end: int) -> None:
    if not 0 <= start < end <= 1 << ADDRESS_WIDTH:
        raise MemoryLayoutError(
            f"region {start:#x}-{end:#x} is empty or outside the {ADDRESS_WIDTH}-bit address space"
        )
    if start % FRAME_SIZE or end % FRAME_SIZE:
        raise MemoryLayoutError(f"region {start:#x}-{end:#x} is not made of whole 4 KiB frames")
