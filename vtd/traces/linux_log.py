"""What Linux's trace events tell of DMA: ftrace, trace-cmd report or perf script, as rows.

* ``dma:dma_map_*``, ``dma_unmap_*``, ``dma_alloc`` and ``dma_free`` (Linux 6.12 and newer) name the
  device: a map, with one request over the buffer behind it, as when the device uses it; an unmap.
  Buffers mapped both ways and coherent memory have no request. Names that are no PCI device are
  passed over.
* ``iommu:map`` and ``iommu:unmap`` do not name the device, so ``source`` has to; each map is
  followed by a write over the range. One that a dma event tells better is left out; since 6.17
  what an NVMe disk transfers in pieces (``dma_iova_link``) has no dma event.

Nothing tells of invalidations: a sweep makes them from the unmaps (``--invalidation``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from devices.dma import READ, WRITE
from vtd.batch.columns import RowKind
from vtd.traces.linux_buffers import Buffers, Range
from vtd.traces.rows import TraceError, TraceRow, parse_source

_EVENT = re.compile(r"(\d+)\.(\d{6,9}): (?:(?:dma|iommu):)?(\w+): (.*)$")
_IOVA = re.compile(
    r"IOMMU: iova=0x([0-9a-f]+)(?: - 0x[0-9a-f]+)?(?: paddr=0x([0-9a-f]+))? size=(\d+)"
)
_DEVICE = re.compile(r"(\S+) ")
_DIRECTION = re.compile(r"dir=(?:DMA_)?(\w+)")
_ONE = re.compile(
    r"dma_addr=(?:0x)?([0-9a-f]+) size=(\d+)(?: (?:phys_addr|addr)=(?:0x)?([0-9a-f]+))?"
)
_SEVERAL = re.compile(r"dma_addrs=\{([^}]*)\} sizes=\{([^}]*)\}")
_UNMAP_SG = re.compile(r"phys_addrs=\{([^}]*)\}")
ACCESS = {"TO_DEVICE": READ, "FROM_DEVICE": WRITE}
LARGEST = 0xFFFF_F000
"""Bytes of a row."""
LARGEST_MAPPING = 1 << 48
NEARBY = 1024
"""Events among which that of an ``iommu`` event's buffer is found."""


def recognizes(line: str) -> bool:
    """Whether a line is an event of these."""
    found = _EVENT.search(line)
    if not found:
        return False
    return bool(_IOVA.match(found[4])) or found[3].startswith("dma_")


class _Event(NamedTuple):
    """What a line says."""

    number: int
    rows: list[TraceRow]
    unnamed: Range | None = None
    """What an event maps or unmaps that does not name its device."""


def read(lines: Iterable[tuple[int, str]], source: int | None = None) -> Iterator[TraceRow]:
    """The rows of numbered lines; TraceError names the line that says less than it has to."""
    buffers, waiting = Buffers(), deque[_Event]()
    for event in _events(lines, source or 0, buffers):
        waiting.append(event)
        if len(waiting) > NEARBY:
            yield from _settled(waiting.popleft(), source, buffers)
    for event in waiting:
        yield from _settled(event, source, buffers)


def _settled(event: _Event, source: int | None, buffers: Buffers) -> list[TraceRow]:
    if event.unnamed is None:
        return event.rows
    buffers.give_up(event.unnamed)
    if event.unnamed.told_better:
        return []
    if source is None:
        name = "map" if event.unnamed.maps else "unmap"
        why = f"column source_id: iommu:{name} names no device: give --source"
        raise TraceError(f"line {event.number}, {why}")
    return event.rows


def _events(lines: Iterable[tuple[int, str]], source: int, buffers: Buffers) -> Iterator[_Event]:
    start: int | None = None
    lists: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, line in lines:
        found = _EVENT.search(line)
        if not found:
            continue
        seconds, fraction, event, told = found.groups()
        now = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
        start = now if start is None else start
        if now < start:
            raise TraceError(f"line {number}, column time: before the first line; see --sort")
        time = now - start
        try:
            if event.startswith("dma_"):
                rows = list(_dma_event(time, event, told, lists))
                for row in rows:
                    if row.kind != RowKind.DMA:
                        buffers.add_buffer(row.address, row.length, maps=row.kind == RowKind.MAP)
                yield _Event(number, rows)
            elif event in ("map", "unmap") and (iova := _IOVA.match(told)):
                address, target, size = int(iova[1], 16), int(iova[2] or "0", 16), int(iova[3])
                unnamed = Range(event == "map", address, size)
                rows = list(_iommu_event(time, address, target, size, source, maps=unnamed.maps))
                buffers.add_range(unnamed)
                yield _Event(number, rows, unnamed)
        except ValueError as error:
            raise TraceError(f"line {number}, {error}") from error


def _iommu_event(
    time: int, address: int, target: int, size: int, source: int, *, maps: bool
) -> Iterator[TraceRow]:
    for at, length in _parts(address, size):
        yield _row(time, at, length, source, maps, target + at - address)
        if maps:
            yield TraceRow(time, at, 0, length, source_id=source, access=WRITE)


def _dma_event(
    time: int, event: str, told: str, lists: dict[tuple[int, int], list[tuple[int, int]]]
) -> Iterator[TraceRow]:
    device = _DEVICE.match(told)
    if device is None or event.endswith("_err"):
        return
    try:
        source = parse_source(device[1])
    except ValueError:
        return
    direction = _DIRECTION.search(told)
    maps = event.startswith(("dma_map_", "dma_alloc"))
    if not maps and not event.startswith(("dma_unmap_", "dma_free")):
        return
    for address, size, target in _buffers(source, event, told, lists):
        for at, length in _parts(address, size):
            yield _row(time, at, length, source, maps, target + at - address if target else 0)
            access = ACCESS.get(direction[1]) if direction and event.startswith("dma_map") else None
            if access is not None:
                yield TraceRow(time, at, 0, length, source_id=source, access=access)


def _buffers(
    source: int, event: str, told: str, lists: dict[tuple[int, int], list[tuple[int, int]]]
) -> Iterator[tuple[int, int, int]]:
    """Address, size, physical address of each buffer of an event."""
    if one := _ONE.search(told):
        yield int(one[1], 16), int(one[2]), int(one[3] or "0", 16)
    elif several := _SEVERAL.search(told):
        addresses = [int(each, 0) for each in several[1].split(",") if each.strip()]
        sizes = [int(each, 0) for each in several[2].split(",") if each.strip()]
        physical = _physical(told)
        if physical:
            lists[source, physical[0]] = list(zip(addresses, sizes, strict=False))
        for number, (address, size) in enumerate(zip(addresses, sizes, strict=False)):
            yield address, size, physical[number] if number < len(physical) else 0
    elif physical := _physical(told):  # dma_unmap_sg tells only where the memory is
        for address, size in lists.pop((source, physical[0]), ()):
            yield address, size, 0


def _physical(told: str) -> list[int]:
    found = _UNMAP_SG.search(told)
    return [int(each, 0) for each in found[1].split(",") if each.strip()] if found else []


def _row(time: int, address: int, length: int, source: int, maps: bool, target: int) -> TraceRow:
    kind = RowKind.MAP if maps else RowKind.UNMAP
    access = READ | WRITE if maps else 0
    return TraceRow(
        time, address, target if maps else 0, length, source_id=source, kind=kind, access=access
    )


def _parts(address: int, size: int) -> Iterator[tuple[int, int]]:
    """A range in rows that a length of 32 bits can tell; TraceError for what no kernel maps."""
    if size > LARGEST_MAPPING:
        raise TraceError(f"column length: {size} bytes are more than any kernel maps")
    for start in range(0, size, LARGEST):
        yield address + start, min(LARGEST, size - start)
