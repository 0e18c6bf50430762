"""Generated traffic: what devices of some kinds send, packet by packet or command by command.

A :class:`Stream` has tenants, functions or PASIDs, which take turns. Each turn is a doorbell and
the requests of one packet or command, computed in arrays for any range of turns. Addresses are of
the tenant's own domain, the same for each tenant, as for guests that run the same system. What
software does around a turn depends on ``invalidation``: ``none`` maps all buffers once; ``strict``
maps a buffer before its turn, unmaps it after, and invalidates it; ``deferred`` invalidates
everything of the domain after each 256 unmaps, as Linux does (or after 10 ms, which is left out).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from devices.dma import READ, WRITE
from vtd.batch.columns import REQUESTS, Requests, RowKind, new_rows
from vtd.traces.rows import parse_source

Numbers = NDArray[np.int64]
PAGE = 4096
FLUSH_EVERY = 256
"""Unmaps after which Linux's flush queue is emptied, if it is not by time before."""
HOST = 1 << 32
"""Physical address from which generated mappings lead on."""
FRAMING = 42
"""Bytes on the wire beside the MTU: Ethernet header, check, preamble, gap, and a VLAN tag."""


class Invalidation(StrEnum):
    """What software does when a buffer has been used."""

    NONE = "none"
    STRICT = "strict"
    DEFERRED = "deferred"


class Order(StrEnum):
    """How tenants take turns."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"


class Buffers(StrEnum):
    """Where the buffer of a turn is."""

    RING = "ring"
    """Each slot of the ring has one, for good."""
    FRESH = "fresh"
    """The next of an area of ``spread`` buffers."""
    SCATTERED = "scattered"
    """Any of an area of ``spread`` buffers."""


class Direction(StrEnum):
    """Of packets, or commands: what the device does with the buffer."""

    RX = "rx"
    TX = "tx"


MAY_BE_ZERO = ("pasids", "base", "start", "interval", "stride")
"""Fields of streams."""


@dataclass(frozen=True, kw_only=True)
class Stream(ABC):
    """What all kinds have in common; ``rate`` turns of ``interval`` ns, or from ``gigabits``."""

    name: ClassVar[str]

    at: str = "0000:01:00.0"
    """The first function."""
    functions: int = 1
    """How many functions, from the first on."""
    pasids: int = 0
    """How many PASIDs each has; 0: requests have none."""
    order: Order = Order.ROUND_ROBIN
    invalidation: Invalidation = Invalidation.NONE
    page_size: int = PAGE
    """Alignment of all areas, so that pages of this size map them."""
    base: int = 1 << 28
    """Address of the first area of each tenant."""
    start: int = 0
    """Time of the first turn, in ns."""
    interval: float = 0.0
    """Between two turns, in ns; 0: as ``gigabits`` gives."""
    gigabits: float = 100.0
    """Per second, on the wire."""
    turns: int = 1 << 62
    """How many turns there are; the workload may end before."""

    def __post_init__(self) -> None:
        parse_source(self.at)
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name in MAY_BE_ZERO else 1 if isinstance(value, int) else 1e-6
            if isinstance(value, int | float) and value < least:
                raise ValueError(f"{each.name}: {value} is too small")
        if self.page_size & self.page_size - 1 or self.page_size < PAGE:
            raise ValueError(f"page_size: {self.page_size} is no page size")
        if parse_source(self.at) + self.functions > 1 << 32 or self.pasids > 1 << 20:
            raise ValueError("functions, pasids: more than there are numbers")

    @property
    def tenants(self) -> int:
        """Functions times PASIDs."""
        return self.functions * max(1, self.pasids)

    @property
    @abstractmethod
    def bytes_on_wire(self) -> int:
        """Of one turn."""

    @abstractmethod
    def areas(self) -> dict[str, int]:
        """Sizes of what each tenant has mapped for good, in the order of their addresses."""

    @abstractmethod
    def requests(self, sequence: Numbers) -> list[tuple[Numbers, int, int]]:
        """Address, length and access of each request of the turns with these numbers."""

    def buffer(self, sequence: Numbers) -> tuple[Numbers, int]:
        """Address and length of what is mapped for a turn; length 0 for nothing."""
        return sequence, 0

    @property
    def period(self) -> float:
        """Nanoseconds between two turns."""
        return self.interval or self.bytes_on_wire * 8 / self.gigabits

    def place(self, area: str) -> int:
        """Where an area begins."""
        at = self.base
        for name, size in self.areas().items():
            if name == area:
                return at
            at += -(-size // self.page_size) * self.page_size
        raise KeyError(area)

    def mappings(self) -> Requests:
        """What software maps before all turns."""
        rows = [
            new_rows(
                self.tenants,
                time=self.start,
                address=self.place(name),
                target=HOST + self.place(name),
                length=-(-size // self.page_size) * self.page_size,
                kind=RowKind.MAP,
                access=READ | WRITE,
            )
            for name, size in self.areas().items()
            if name != "buffers" or self.invalidation is Invalidation.NONE
        ]
        for each in rows:
            self._tag(each, np.arange(self.tenants))
        return np.concatenate(rows)

    def turn_rows(self, first: int, tenant: Numbers, sequence: Numbers) -> Requests:
        """The rows of the turns from number ``first`` on, of these tenants."""
        count = len(tenant)
        requests = self.requests(sequence)
        around = 3 if self.buffer(sequence)[1] and self.invalidation is not Invalidation.NONE else 0
        rows = np.zeros((count, 1 + len(requests) + around), REQUESTS)
        there = np.ones(rows.shape, bool)
        numbers = np.arange(first, first + count)
        rows["time"] = (self.start + numbers * self.period).astype(np.uint64)[:, None]
        at = 0
        if around:
            self._mapped(rows, at, sequence)
            at += 1
        rows["kind"][:, at] = RowKind.MARKER
        for address, length, access in requests:
            at += 1
            rows["address"][:, at] = address
            rows["length"][:, at] = length
            rows["access"][:, at] = access
        if around:
            there[:, at + 2] = self._unmapped(rows, at + 1, sequence)
        self._tag(rows, tenant[:, None])
        return rows[there]

    def _mapped(self, rows: Requests, at: int, sequence: Numbers) -> None:
        address, length = self.buffer(sequence)
        rows["kind"][:, at] = RowKind.MAP
        rows["address"][:, at] = address
        rows["target"][:, at] = HOST + address
        rows["length"][:, at] = length
        rows["access"][:, at] = READ | WRITE

    def _unmapped(self, rows: Requests, at: int, sequence: Numbers) -> NDArray[np.bool_]:
        """The unmap and the invalidation behind it; where there is the second."""
        address, length = self.buffer(sequence)
        rows["kind"][:, at] = RowKind.UNMAP
        rows["kind"][:, at + 1] = RowKind.INVALIDATE
        rows["address"][:, at] = address
        rows["length"][:, at] = length
        if self.invalidation is Invalidation.DEFERRED:
            full: NDArray[np.bool_] = sequence % FLUSH_EVERY == FLUSH_EVERY - 1
            return full
        rows["address"][:, at + 1] = address
        rows["length"][:, at + 1] = length
        return np.ones(len(sequence), bool)

    def _tag(self, rows: Requests, tenant: Numbers) -> None:
        rows["source_id"] = parse_source(self.at) + tenant % self.functions
        rows["pasid"] = tenant // self.functions if self.pasids else np.uint32(0xFFFF_FFFF)


@dataclass(frozen=True, kw_only=True)
class Sequential(Stream):
    """Requests of ``length`` bytes, ``stride`` apart, through ``size`` bytes, over and over."""

    name = "sequential"
    size: int = 1 << 20
    length: int = 4096
    stride: int = 4096
    access: Direction = Direction.TX

    @property
    def bytes_on_wire(self) -> int:
        return self.length

    def areas(self) -> dict[str, int]:
        return {"window": self.size + self.length}

    def requests(self, sequence: Numbers) -> list[tuple[Numbers, int, int]]:
        places = max(1, self.size // max(1, self.stride))
        address = self.place("window") + sequence % places * self.stride
        return [(address, self.length, _access(self.access))]


@dataclass(frozen=True, kw_only=True)
class Random(Stream):
    """Requests of ``length`` bytes anywhere in ``size`` bytes, at multiples of their length."""

    name = "random"
    size: int = 1 << 20
    length: int = 64
    access: Direction = Direction.TX

    @property
    def bytes_on_wire(self) -> int:
        return self.length

    def areas(self) -> dict[str, int]:
        return {"window": self.size}

    def requests(self, sequence: Numbers) -> list[tuple[Numbers, int, int]]:
        places = max(1, self.size // max(1, self.length))
        address = self.place("window") + _scattered(sequence, places) * self.length
        return [(address, self.length, _access(self.access))]


@dataclass(frozen=True, kw_only=True)
class Nic(Stream):
    """Packets through a descriptor ring: descriptor read, data, completion written back."""

    name = "nic"
    direction: Direction = Direction.RX
    ring: int = 512
    """Descriptors."""
    mtu: int = 1500
    descriptor: int = 16
    """Bytes of a descriptor, and of a completion."""
    buffers: Buffers = Buffers.RING
    spread: int = 4096
    """Buffers of the area, where they are not those of the ring."""

    @property
    def bytes_on_wire(self) -> int:
        return self.mtu + FRAMING

    @property
    def _buffer_size(self) -> int:
        return -(-(self.mtu + 18) // PAGE) * PAGE

    def areas(self) -> dict[str, int]:
        count = self.ring if self.buffers is Buffers.RING else self.spread
        rings = self.ring * self.descriptor
        return {"descriptors": rings, "completions": rings, "buffers": count * self._buffer_size}

    def buffer(self, sequence: Numbers) -> tuple[Numbers, int]:
        number = _buffer_number(self.buffers, sequence, self.ring, self.spread)
        return self.place("buffers") + number * self._buffer_size, self._buffer_size

    def requests(self, sequence: Numbers) -> list[tuple[Numbers, int, int]]:
        slot = sequence % self.ring * self.descriptor
        data, _ = self.buffer(sequence)
        return [
            (self.place("descriptors") + slot, self.descriptor, READ),
            (data, self.mtu, _access(self.direction)),
            (self.place("completions") + slot, self.descriptor, WRITE),
        ]


@dataclass(frozen=True, kw_only=True)
class Nvme(Stream):
    """Commands through a queue pair: entry, PRP list, a request for each page, completion."""

    name = "nvme"
    direction: Direction = Direction.RX
    """``rx``: the device writes memory, a read of the disk."""
    depth: int = 32
    """Entries of a queue, and commands on their way."""
    queues: int = 1
    block: int = 1 << 17
    """Bytes of a command."""
    buffers: Buffers = Buffers.RING
    spread: int = 1024

    @property
    def bytes_on_wire(self) -> int:
        return self.block

    @property
    def _pages(self) -> int:
        return max(1, -(-self.block // PAGE))

    def areas(self) -> dict[str, int]:
        slots = self.depth * self.queues
        count = slots if self.buffers is Buffers.RING else self.spread
        return {
            "submissions": self.queues * self._queue_size(64),
            "completions": self.queues * self._queue_size(16),
            "lists": slots * PAGE,
            "buffers": count * self._pages * PAGE,
        }

    def _queue_size(self, entry: int) -> int:
        return -(-self.depth * entry // PAGE) * PAGE

    def buffer(self, sequence: Numbers) -> tuple[Numbers, int]:
        slots = self.depth * self.queues
        number = _buffer_number(self.buffers, sequence, slots, self.spread)
        return self.place("buffers") + number * self._pages * PAGE, self._pages * PAGE

    def requests(self, sequence: Numbers) -> list[tuple[Numbers, int, int]]:
        queue, index = sequence % self.queues, sequence // self.queues % self.depth
        data, _ = self.buffer(sequence)
        submission = self.place("submissions") + queue * self._queue_size(64) + index * 64
        completion = self.place("completions") + queue * self._queue_size(16) + index * 16
        found = [(submission, 64, READ)]
        if self._pages > 2:
            lists = self.place("lists") + (queue * self.depth + index) * PAGE
            found.append((lists, min(PAGE, (self._pages - 1) * 8), READ))
        for page in range(self._pages):
            length = min(PAGE, self.block - page * PAGE)
            found.append((data + page * PAGE, length, _access(self.direction)))
        return [*found, (completion, 16, WRITE)]


KINDS: dict[str, type[Stream]] = {each.name: each for each in (Sequential, Random, Nic, Nvme)}
"""The streams that a workload may name."""


def _access(direction: Direction) -> int:
    return WRITE if direction is Direction.RX else READ


def _buffer_number(buffers: Buffers, sequence: Numbers, ring: int, spread: int) -> Numbers:
    if buffers is Buffers.RING:
        return sequence % ring
    return sequence % spread if buffers is Buffers.FRESH else _scattered(sequence, spread)


def _scattered(sequence: Numbers, places: int) -> Numbers:
    """A place for each number, as if by chance (splitmix64)."""
    mixed = sequence.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ mixed >> np.uint64(31)) % np.uint64(places)).astype(np.int64)
