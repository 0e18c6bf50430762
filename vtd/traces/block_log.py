"""Block requests of Linux (blkparse, or block events of ftrace and perf script), as rows.

A block request has sectors and a length, but no DMA address. So each gets one as Linux would give
it: from its issue (D, ``block_rq_issue``) to its completion (C, ``block_rq_complete``) a range of
IOVAs, of a power of two of pages, the last one of this size that was given back or else the next
below 4 GiB. The rows are a map, a doorbell, one request for the data and an unmap. What queues and
lists a controller reads beside the data is not in such a log, and not in the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from devices.dma import READ, WRITE
from vtd.batch.columns import RowKind
from vtd.traces.rows import TraceError, TraceRow

_BLKPARSE = re.compile(
    r"^\s*(\d+),(\d+)\s+\d+\s+\d+\s+(\d+)\.(\d{9})\s+\d+\s+([A-Z])\s+(\w+)\s+(\d+) \+ (\d+)"
)
_EVENT = re.compile(
    r"(\d+)\.(\d{6,9}): (?:block:)?block_rq_(issue|complete): (\d+),(\d+) (\w+) .*?(\d+) \+ (\d+) "
)
SECTOR = 512
TOP = 1 << 32
"""Where addresses are given from, downwards: devices of 32 bits reach all of them."""
HOST = 1 << 33
"""Where the memory is said to be."""


def recognizes(line: str) -> bool:
    """Whether a line is one of these."""
    return bool(_BLKPARSE.match(line) or _EVENT.search(line))


def read(lines: Iterable[tuple[int, str]], source: int | None = None) -> Iterator[TraceRow]:
    """The rows of numbered lines. ``source``: of the disk; without, disk n is 0000:00:n.0."""
    start: int | None = None
    disks: dict[str, Disk] = {}
    for number, line in lines:
        event = _parsed(line)
        if event is None:
            continue
        now, issued, device, operation, sector, sectors = event
        start = now if start is None else start
        if now < start:
            raise TraceError(f"line {number}, column time: before the first line; see --sort")
        if device not in disks:
            if len(disks) == 31 and source is None:
                raise TraceError(f"line {number}, column source_id: more than 31 disks")
            disks[device] = Disk((len(disks) + 1 << 3) if source is None else source)
        access = READ if "W" in operation else WRITE
        yield from disks[device].take(now - start, issued, access, sector, sectors * SECTOR)


def _parsed(line: str) -> tuple[int, bool, str, str, int, int] | None:
    """Time, whether issued rather than completed, disk, operation, sector, sectors."""
    if found := _BLKPARSE.match(line):
        major, minor, seconds, fraction, action, operation, sector, sectors = found.groups()
        if action not in "DC":
            return None
        issued = action == "D"
    elif found := _EVENT.search(line):
        seconds, fraction, action, major, minor, operation, sector, sectors = found.groups()
        issued = action == "issue"
    else:
        return None
    now = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
    if "D" in operation or not int(sectors):  # a discard, or a flush, moves no data
        return None
    return now, issued, f"{major},{minor}", operation, int(sector), int(sectors)


class Disk:
    """The addresses that the requests of one disk have."""

    def __init__(self, source_id: int) -> None:
        self._source_id = source_id
        self._next = TOP
        self._free: dict[int, list[int]] = {}
        self._given: dict[int, tuple[int, int]] = {}
        """By sector: address and length."""

    def take(
        self, time: int, issued: bool, access: int, sector: int, length: int
    ) -> Iterator[TraceRow]:
        """The rows of an issue or a completion; one without the other is passed over."""
        if not issued:
            given = self._given.pop(sector, None)
            if given is not None:
                address, size = given
                self._free.setdefault(size, []).append(address)
                yield self._row(time, RowKind.UNMAP, address, size, 0)
            return
        if sector in self._given or length >= TOP:
            return
        size = 1 << max(12, (length - 1).bit_length())
        free = self._free.get(size)
        if free:
            address = free.pop()
        else:
            address = self._next = (self._next - size) & ~(size - 1)
            if address < 0:
                raise TraceError("more requests on their way than 4 GiB have place for")
        self._given[sector] = address, size
        yield self._row(time, RowKind.MAP, address, size, READ | WRITE)
        yield self._row(time, RowKind.MARKER, sector, 0, 0)
        yield self._row(time, RowKind.DMA, address, length, access)

    def _row(self, time: int, kind: RowKind, address: int, length: int, access: int) -> TraceRow:
        target = HOST + address if kind is RowKind.MAP else 0
        return TraceRow(
            time, address, target, length, source_id=self._source_id, kind=kind, access=access
        )
