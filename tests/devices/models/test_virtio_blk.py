"""A virtio block device against a driver written for reading, and against guests that lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.virtio_blk import LONGEST, QUEUE_SIZE, SERIAL, VirtioBlk
from devices.models.virtio_structures import ACCESS_PLATFORM, VERSION_1
from tests.support.ports import RAM_SIZE, RecordingPort

DESCRIPTORS, AVAILABLE, USED, TABLE = 0x1000, 0x3000, 0x4000, 0x6000
HEADER, STATUS, DATA = 0x8000, 0x8100, 0x1_0000
NEXT, WRITE, INDIRECT = 1, 2, 4
READS, WRITES, FLUSHES, SERIALS = 0, 1, 4, 8
OK, IO_ERROR, UNSUPPORTED = 0, 1, 2
COMMON, ISR, DEVICE, NOTIFY = 0, 0x1000, 0x2000, 0x3000
SELECT, FEATURE, DRIVER_SELECT, DRIVER_FEATURE, DEVICE_STATUS = 0, 4, 8, 12, 20
QUEUE_SELECT, SIZE, VECTOR, ENABLE = 22, 24, 26, 28
BLOCKS = 16
NEEDS_RESET = 64


class Host:
    """A device with its driver."""

    def __init__(self, size: int = 8, access_platform: bool = True) -> None:
        self.port = RecordingPort()
        self.device = VirtioBlk(blocks=BLOCKS, access_platform=access_platform)
        self.device.connect(self.port)
        self.device.config.write(4, 2, 6)
        self.bar, self.ram, self.size, self.posted = self.device.bars[0], self.port.ram, size, 0

    def start(self, features: int = VERSION_1 | ACCESS_PLATFORM) -> bool:
        """Set everything up; whether the device takes the features."""
        self.set(DEVICE_STATUS, 1, 0)
        self.set(DEVICE_STATUS, 1, 3)
        for select in range(2):
            self.set(DRIVER_SELECT, 4, select)
            self.set(DRIVER_FEATURE, 4, features >> 32 * select & 0xFFFF_FFFF)
        self.set(DEVICE_STATUS, 1, 11)
        if not self.get(DEVICE_STATUS, 1) & 8:
            return False
        self.set(QUEUE_SELECT, 2, 0)
        self.set(SIZE, 2, self.size)
        for at, address in ((32, DESCRIPTORS), (40, AVAILABLE), (48, USED)):
            self.set(at, 4, address)
            self.set(at + 4, 4, 0)
        self.set(ENABLE, 2, 1)
        self.set(DEVICE_STATUS, 1, 15)
        return True

    def set(self, at: int, size: int, value: int) -> None:
        self.bar.write(COMMON + at, size, value)

    def get(self, at: int, size: int) -> int:
        return self.bar.read(COMMON + at, size)

    def describe(self, table: int, buffers: Sequence[tuple[int, int, int]]) -> None:
        """A chain from the beginning of a table on: address, length, WRITE or 0."""
        for number, (address, length, flags) in enumerate(buffers):
            more = NEXT if number + 1 < len(buffers) else 0
            self.put(table + 16 * number, address, 8)
            self.put(table + 16 * number + 8, length, 4)
            self.put(table + 16 * number + 12, flags | more, 2)
            self.put(table + 16 * number + 14, number + 1, 2)

    def put(self, address: int, value: int, size: int) -> None:
        self.ram.write(address, value.to_bytes(size, "little"))

    def submit(self, buffers: Sequence[tuple[int, int, int]], indirect: bool = False) -> None:
        """Put a chain into the ring, directly or by a table of its own, and notify."""
        self.describe(TABLE if indirect else DESCRIPTORS, buffers)
        if indirect:
            self.describe(DESCRIPTORS, [(TABLE, 16 * len(buffers), INDIRECT)])
        self.put(AVAILABLE + 4 + 2 * (self.posted % self.size), 0, 2)
        self.posted += 1
        self.put(AVAILABLE + 2, self.posted & 0xFFFF, 2)
        self.bar.write(NOTIFY, 2, 0)

    def command(
        self, kind: int, sector: int, pieces: Sequence[tuple[int, int]], indirect: bool = False
    ) -> int:
        """Carry out one command with data in these pieces; its status."""
        self.ram.write(HEADER, kind.to_bytes(8, "little") + sector.to_bytes(8, "little"))
        self.put(STATUS, 0xEE, 1)
        flags = 0 if kind == WRITES else WRITE
        data = [(address, length, flags) for address, length in pieces]
        self.submit([(HEADER, 16, 0), *data, (STATUS, 1, WRITE)], indirect)
        return self.ram.read(STATUS, 1)[0]

    @property
    def used(self) -> list[tuple[int, int]]:
        """What the device gave back: the head of the chain and the bytes written."""
        count = int.from_bytes(self.ram.read(USED + 2, 2), "little")
        entries = (self.ram.read(USED + 4 + 8 * (each % self.size), 8) for each in range(count))
        return [
            (int.from_bytes(each[:4], "little"), int.from_bytes(each[4:], "little"))
            for each in entries
        ]


@st.composite
def transfers(draw: st.DrawFn) -> tuple[int, int, list[int], bool]:
    """Write or read, first block, sizes of the pieces, indirect or not."""
    start = draw(st.integers(0, BLOCKS - 1))
    count = draw(st.integers(1, BLOCKS - start))
    cuts = draw(st.sets(st.integers(1, 512 * count - 1), max_size=4))
    edges = [0, *sorted(cuts), 512 * count]
    sizes = [high - low for low, high in pairwise(edges)]
    return draw(st.sampled_from([READS, WRITES])), start, sizes, draw(st.booleans())


@given(st.lists(transfers(), max_size=12), st.integers(0, 1 << 32))
def test_what_was_written_is_read_however_it_is_cut(
    steps: list[tuple[int, int, list[int], bool]], seed: int
) -> None:
    host, disk, random = Host(), bytearray(512 * BLOCKS), Random(seed)
    assert host.start()
    for number, (kind, start, sizes, indirect) in enumerate(steps, 1):
        pieces, at = [], DATA
        for size in sizes:
            pieces.append((at, size))
            at += size + 24  # apart from each other
        data = random.randbytes(sum(sizes))
        if kind == WRITES:
            place = 0
            for address, size in pieces:
                host.ram.write(address, data[place : place + size])
                place += size
            disk[512 * start : 512 * start + len(data)] = data
        assert host.command(kind, start, pieces, indirect) == OK
        if kind == READS:
            read = b"".join(host.ram.read(*piece) for piece in pieces)
            assert read == disk[512 * start : 512 * start + len(data)]
        assert len(host.used) == number
        assert host.used[-1] == (0, 1 if kind == WRITES else 1 + len(data))
    assert host.device.disk.read(0, 512 * BLOCKS) == disk


@pytest.mark.parametrize(
    ("features", "offers", "taken"),
    [
        (VERSION_1 | ACCESS_PLATFORM, True, True),
        (VERSION_1, True, False),
        (ACCESS_PLATFORM, True, False),
        (VERSION_1, False, True),
        (VERSION_1 | ACCESS_PLATFORM, False, False),
        (VERSION_1 | ACCESS_PLATFORM | 1 << 34, True, False),
    ],
)
def test_features_are_refused_that_leave_out_what_is_needed(
    features: int, offers: bool, taken: bool
) -> None:
    host = Host(access_platform=offers)
    offered = []
    for select in range(3):
        host.set(SELECT, 4, select)
        offered.append(host.get(FEATURE, 4))
    assert offered[1:] == [3 if offers else 1, 0]
    assert host.start(features) == taken


def test_commands_that_are_wrong_or_unknown_end_with_their_status() -> None:
    host = Host()
    host.start()
    assert host.command(READS, BLOCKS, [(DATA, 512)]) == IO_ERROR
    assert host.command(READS, BLOCKS - 1, [(DATA, 1024)]) == IO_ERROR
    assert host.command(WRITES, 0, [(DATA, 500)]) == IO_ERROR
    assert host.command(READS, 1 << 60, [(DATA, 512)]) == IO_ERROR
    assert host.command(READS, 0, [(RAM_SIZE, 512)]) == IO_ERROR
    assert host.command(WRITES, 0, [((1 << 64) - 256, 512)]) == IO_ERROR
    assert host.command(99, 0, []) == UNSUPPORTED
    assert host.command(FLUSHES, 0, []) == OK
    assert host.command(SERIALS, 0, [(DATA, 20)]) == OK
    assert host.ram.read(DATA, 20) == SERIAL
    assert host.bar.read(DEVICE, 8) == BLOCKS


FAULTY = {
    "a table that leads to itself": [(HEADER, 16, NEXT)],
    "no room for a status": [(HEADER, 16, 0)],
    "no header": [(STATUS, 1, WRITE)],
    "a command too long": [(HEADER, 16, 0), (DATA, LONGEST, WRITE), (STATUS, 1, WRITE)],
    "read after written": [(STATUS, 1, WRITE), (HEADER, 16, 0)],
    "tables in tables": [(TABLE, 16, INDIRECT), (HEADER, 16, 0)],
    "half a descriptor": [(TABLE, 24, INDIRECT)],
    "a table nowhere": [(RAM_SIZE, 16, INDIRECT)],
    "a status nowhere": [(HEADER, 16, 0), (RAM_SIZE, 1, WRITE)],
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_broken_ring_stops_the_device_until_it_is_reset(name: str) -> None:
    host = Host()
    host.start()
    host.submit(FAULTY[name])
    assert host.get(DEVICE_STATUS, 1) & NEEDS_RESET
    host.set(DEVICE_STATUS, 1, 15)
    assert host.get(DEVICE_STATUS, 1) & NEEDS_RESET
    host.posted = 0
    host.put(AVAILABLE + 2, 0, 2)
    host.put(USED + 2, 0, 2)
    host.start()
    assert host.command(FLUSHES, 0, []) == OK


@given(st.binary(max_size=200), st.binary(max_size=64), st.integers(0, 0xFFFF))
def test_no_ring_makes_it_raise(table: bytes, ring: bytes, index: int) -> None:
    host = Host()
    host.start()
    host.ram.write(DESCRIPTORS, table)
    host.ram.write(AVAILABLE, ring)
    host.put(AVAILABLE + 2, index, 2)
    host.bar.write(NOTIFY, 2, 0)
    assert len(host.used) <= host.size or host.get(DEVICE_STATUS, 1) & NEEDS_RESET


def test_the_pin_is_asserted_until_its_status_is_read() -> None:
    host = Host()
    host.start()
    host.put(AVAILABLE, 1, 2)
    host.command(FLUSHES, 0, [])
    assert not host.device.intx  # the driver wants none
    host.put(AVAILABLE, 0, 2)
    host.command(FLUSHES, 0, [])
    assert host.device.intx
    assert host.bar.read(ISR, 1) == 1
    assert (host.device.intx, host.bar.read(ISR, 1)) == (False, 0)


def test_with_msi_x_its_vectors_are_sent() -> None:
    host = Host()
    assert host.device.msix is not None
    for vector in range(2):
        for at, value in ((0, 0xFEE0_0000), (4, 0), (8, 0x40 + vector), (12, 0)):
            host.device.bars[1].write(16 * vector + at, 4, value)
    host.device.config.write(host.device.msix.control.offset, 2, 0x8000)
    host.start()
    host.command(FLUSHES, 0, [])
    assert host.port.messages == []  # no vector is set
    host.set(VECTOR, 2, 1)
    host.set(16, 2, 0)
    host.command(FLUSHES, 0, [])
    host.submit(FAULTY["no header"])
    assert host.port.messages == [(0xFEE0_0000, 0x41), (0xFEE0_0000, 0x40)]


def test_only_the_first_queue_is_there_and_it_has_sensible_sizes() -> None:
    host = Host()
    assert (host.get(18, 2), host.get(SIZE, 2)) == (1, QUEUE_SIZE)
    for wrong in (0, 3, 2 * QUEUE_SIZE):
        host.set(SIZE, 2, wrong)
        assert host.get(SIZE, 2) == QUEUE_SIZE
    host.set(VECTOR, 2, 5)
    assert host.get(VECTOR, 2) == 0xFFFF
    host.set(QUEUE_SELECT, 2, 1)
    host.set(SIZE, 2, 8)
    host.set(ENABLE, 2, 1)
    assert (host.get(SIZE, 2), host.get(ENABLE, 2)) == (0, 0)
    host.set(QUEUE_SELECT, 2, 0)
    assert (host.get(SIZE, 2), host.get(ENABLE, 2)) == (QUEUE_SIZE, 0)
