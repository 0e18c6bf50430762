"""What :mod:`scripts.bench` times of the 82576: a frame sent or received beside its own requests.

By itself, with packets a second and the IOTLB's hit rate by ring size: ``python -m
scripts.bench_nic``.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from devices.models.nic82576.controller import Nic82576
from devices.models.nic82576.offload import read_context, with_checksums
from devices.network.frames import dissect, pseudo_header
from devices.network.link import Sink
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from scripts.bench_devices import print_rates
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.software.driver import Driver
from vtd.unit.caching.cache import Shape
from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.options import Options
from vtd.unit.unit import RemappingUnit

NIC = """
[[memory]]
start = 0
size = "128 MiB"

[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true

[[function]]
name = "nic"
at = "00:04.0"
model = "nic82576"
bus_master = true
parameters = { mac = "02:00:00:00:00:01" }
"""
TABLES, RINGS, BUFFERS = 0x10_0000, 0x80_0000, 0x100_0000
RECEIVE, TRANSMIT = 0xC000, 0xE000
SIZE = 1514
ADDRESSES = bytes.fromhex("020000000001020000000002")
PLAIN = ADDRESSES + b"\x88\xb5" + bytes(SIZE - 14)
COMMAND = 0x2B30_0000
HEADER_COMMAND = 0x2230_0000
"""Data descriptors: end of packet, insert the check sequence, report; and one before that."""
CHECKSUMS = 2 << 40
"""Insert that of layer 4: Linux has put in that of IPv4 itself, unless there are segments."""
CONTEXT = (14 << 9 | 20, 0x2020_0C00 | 20 << 40)
"""IPv4 and TCP without options."""
HEADERS = 14 + 20 + 20
SLOTS = 3
"""Descriptors of a TCP frame as Linux sends it: context, headers, payload."""
RING_SIZES = (64, 256, 1024, 4096)
IOTLB_SIZES = (64, 256, 1024, 4096)


def tcp_frame() -> bytes:
    """A full frame of TCP over IPv4, its checksums right."""
    frame = bytearray(ADDRESSES + b"\x08\0" + bytes(SIZE - 14))
    frame[14:24] = struct.pack("!BBHHHBB", 0x45, 0, SIZE - 14, 0, 0, 64, 6)
    frame[26:34] = bytes((10, 0, 0, 1, 10, 0, 0, 2))
    frame[46] = 5 << 4
    plain, context = bytes(frame), read_context(CONTEXT[0] | CONTEXT[1] << 64)
    extra = pseudo_header(plain, dissect(plain))
    return with_checksums(plain, context, ip=True, transport=True, extra=extra)


@dataclass
class Port:
    """A controller with rings for ``count`` frames, each with a page of memory as its buffer."""

    nic: Nic82576
    unit: RemappingUnit
    memory: PhysicalMemory
    count: int
    sink: Sink
    frame: bytes
    buffers: bytes
    """The receive ring as software fills it."""
    offloads: bool

    @property
    def transmit_ring(self) -> int:
        return RINGS + 0x10_0000

    @property
    def slots(self) -> int:
        """Transmit descriptors of a frame."""
        return SLOTS if self.offloads else 1

    def send(self) -> None:
        """Send what is in the transmit ring, all but one frame of it."""
        self.nic.bars[0].write(TRANSMIT + 0x10, 4, 0)
        self.nic.bars[0].write(TRANSMIT + 0x18, 4, (self.count - 1) * self.slots)
        self.sink.frames.clear()

    def receive(self) -> None:
        """Receive as many frames as buffers are free, after posting these again."""
        self.memory.write(RINGS, self.buffers)
        self.nic.bars[0].write(RECEIVE + 0x10, 4, 0)
        self.nic.bars[0].write(RECEIVE + 0x18, 4, self.count - 1)
        receive = self.nic.receive
        for _ in range(self.count - 1):
            receive(self.frame)

    def requests_of_sending(self) -> None:
        """The requests of the same frames sent, by hand."""
        dma, at, offloads = self.nic.dma, self.transmit_ring, self.offloads
        start = HEADERS if offloads else 0
        done = self.memory.read(at + 16 * (self.slots - 1) + 12, 4)
        for number in range(self.count - 1):
            buffer = BUFFERS + (number << 12)
            if offloads:
                dma.read(at, 16)
                dma.read(at + 16, 16)
                dma.read(buffer, HEADERS)
                at += 32
            dma.read(at, 16)
            dma.read(buffer + start, SIZE - start)
            dma.write(at + 12, done)
            at += 16

    def requests_of_receiving(self) -> None:
        """The requests of the same frames received, by hand."""
        dma, done = self.nic.dma, bytes(16)
        for number in range(self.count - 1):
            dma.read(self.transmit_ring + 16 * number, 16)
            dma.write(BUFFERS + (number << 12), self.frame)
            dma.write(RINGS + 16 * number, done)


def port(count: int, policy: CachePolicy = KEEPS_STALE, *, offloads: bool = False) -> Port:
    """A machine with the controller, its rings and buffers mapped, page by page.

    With ``offloads`` frames are of TCP, and checksums are put in and looked at, with a hash.
    """
    assembly = assemble(read_machine(NIC), options=Options(caches=policy))
    memory, nic = assembly.platform.memory, assembly.functions["nic"]
    assert isinstance(nic, Nic82576)
    unit = assembly.platform.unit_of(nic)
    driver = Driver(unit, memory, FramePool(TABLES, RINGS))
    driver.start()
    domain = driver.domain(largest=12)
    driver.attach(assembly.platform.topology.requester_id(nic), domain)
    domain.map(RINGS, RINGS, 0x20_0000)
    domain.map(BUFFERS, BUFFERS, count << 12)
    buffers = [BUFFERS + (number << 12) for number in range(count)]
    ring = b"".join(struct.pack("<QQ", buffer, 0) for buffer in buffers)
    frame = tcp_frame() if offloads else PLAIN
    made = Port(nic, unit, memory, count, Sink(), frame, ring, offloads)
    nic.attach(made.sink)
    nic.clock.advance(1_000_000_000)
    for number, buffer in enumerate(buffers):
        memory.write(buffer, frame)
        if offloads:  # software leaves the sum of the pseudo header in the field
            memory.write(buffer + 50, pseudo_header(frame, dissect(frame)).to_bytes(2, "big"))
        descriptors = [buffer, COMMAND | SIZE | SIZE << 46]
        if offloads:
            high = SIZE << 46 | CHECKSUMS
            descriptors = [*CONTEXT, buffer, HEADER_COMMAND | HEADERS | high]
            descriptors += [buffer + HEADERS, COMMAND | SIZE - HEADERS | high]
        at = made.transmit_ring + 8 * len(descriptors) * number
        memory.write(at, struct.pack(f"<{len(descriptors)}Q", *descriptors))
    write = nic.bars[0].write
    for offset, value in (
        (0x0100, 0x0400_8022),
        (0x0400, 0xA),
        (0x5000, 0x2B00),
        (0x5818, 0x3F0002),
    ):
        write(offset, 4, value)
    for queue, base, size in (
        (RECEIVE, RINGS, 16 * count),
        (TRANSMIT, made.transmit_ring, 16 * count * made.slots),
    ):
        for at, value in ((0, base), (8, size), (0xC, 0x0200_0402), (0x28, 1 << 25)):
            write(queue + at, 4, value)
    return made


def runners(count: int = 512) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, what to run, and how many operations that is."""
    for what, offloads in (("1514 bytes", False), ("TCP, offloads", True)):
        made = port(count, offloads=offloads)
        yield f"82576 frame of {what} sent", made.send, count - 1
        yield f"  its requests by hand ({what} sent)", made.requests_of_sending, count - 1
        made = port(count, offloads=offloads)
        yield f"82576 frame of {what} received", made.receive, count - 1
        yield f"  its requests by hand ({what} received)", made.requests_of_receiving, count - 1


def hit_rate(ring: int, ways: int, rounds: int = 4) -> float:
    """Of the lookups of frames received in a ring, how many an LRU IOTLB of ``ways`` answers.

    Each buffer is a page of its own; the ring is gone round ``rounds`` times after a first time.
    """
    made = port(ring, CachePolicy(iotlb=Shape(ways=ways)))
    made.receive()
    counters = made.unit.caches.iotlb.counters
    hits, lookups = counters.hits, counters.lookups
    for _ in range(rounds):
        made.receive()
    return (counters.hits - hits) / (counters.lookups - lookups)


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_rates(runners())
    for ring in RING_SIZES:
        rates = (f"{ways} entries {hit_rate(ring, ways):.1%}" for ways in IOTLB_SIZES)
        print(f"ring of {ring}, IOTLB hit rate: {', '.join(rates)}")


if __name__ == "__main__":
    main()
