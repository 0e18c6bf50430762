"""The whole model in one example: an edu device behind a unit, a DMA translated, one refused.

What a driver, a device and the hardware do, in that order, with every step kept as a value. The
``demo`` command shows it; the code is an example of how the parts are put together.
"""

from __future__ import annotations

from typing import NamedTuple

from devices.dma import READ, WRITE, Request
from devices.models.edu import BUFFER_START, DMA_NANOSECONDS, DmaCommand, Edu, EduRegister
from devices.source_id import Bdf
from devices.topology import Topology
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.dmar.description import build
from vtd.dmar.scopes import Owner
from vtd.inspection.request_explanation import RequestExplanation, cached, explain_request
from vtd.layouts.registers import FaultRecording
from vtd.platform import Platform
from vtd.software.driver import Driver
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.registers.capabilities import PROFILES

REGISTER_BASE = 0xFED9_0000
DMAR = f"""
[header]
address_bits = 48

[[structure]]
type = "DRHD"
flags = 1  # INCLUDE_PCI_ALL: every device of the segment
register_base = {REGISTER_BASE:#x}
"""
TABLES, TABLES_END = 0x10_0000, 0x20_0000
DOMAIN = 7
IOVA, PHYSICAL, LENGTH = 0x40_0000, 0x200_0000, 0x4000
"""What the device may use, and where that really is."""
UNMAPPED = IOVA + LENGTH
MESSAGE = b"DMA through VT-d"


class Transfer(NamedTuple):
    """One DMA of the device, and what could be seen afterwards."""

    title: str
    explained: RequestExplanation
    """The translation as the tables have it."""
    cached: IotlbEntry | None
    """What the IOTLB held for it beforehand, so that no table was read."""
    arrived: bytes
    """The bytes at their destination afterwards: in memory or in the device."""
    record: FaultRecording | None
    """The fault record, if one is pending."""
    hits: int
    misses: int
    entries: tuple[IotlbEntry, ...]
    """What the IOTLB holds."""


class Demo(NamedTuple):
    """The machine and what happened on it."""

    device: Bdf
    owner: Owner
    """The unit of the device, by the DMAR table."""
    transfers: tuple[Transfer, ...]


def run() -> Demo:
    """Build the machine and the tables, and let the device work."""
    memory = PhysicalMemory()
    memory.add_region(0, 64 << 20)
    topology = Topology()
    edu = Edu()
    bdf = topology.add(edu, topology.add_root_bus(), device=2)
    platform = Platform.build(memory, topology, build(DMAR), PROFILES["qemu"])

    # Software: a domain for the device, with a few pages that it may use.
    unit = platform.unit_of(edu)
    driver = Driver(unit, memory, FramePool(TABLES, TABLES_END))
    driver.start()
    domain = driver.domain(domain_id=DOMAIN)
    driver.attach(bdf.source_id, domain)
    domain.map(IOVA, PHYSICAL, LENGTH)

    # The device, and its driver's view of it: it only ever knows the address IOVA.
    edu.command.value = edu.command.value.replace(bme=True)
    memory.write(PHYSICAL, MESSAGE)

    def transfer(title: str, iova: int, *, to_memory: bool) -> Transfer:
        access = WRITE if to_memory else READ
        request = Request(bdf.source_id, iova, access, len(MESSAGE))
        explained = explain_request(unit.remapping, request)
        held = cached(unit.caches.iotlb, request)
        move(edu, iova, len(MESSAGE), to_memory=to_memory)
        arrived = bytes(edu.buffer[: len(MESSAGE)])
        if to_memory:
            outcome = explained.outcome
            arrived = b"" if outcome is None else memory.read(outcome.physical, len(MESSAGE))
        record = unit.registers[FaultRecording]
        iotlb = unit.caches.iotlb
        return Transfer(
            title,
            explained,
            held,
            arrived,
            record if record.f else None,
            iotlb.counters.hits,
            iotlb.counters.misses,
            tuple(entry for _, entry in iotlb),
        )

    owner = platform.scopes.owner(bdf)
    assert owner is not None  # the platform has connected the device to it
    return Demo(
        bdf,
        owner,
        (
            transfer("The device reads a mapped page", IOVA, to_memory=False),
            transfer("It reads the page again", IOVA, to_memory=False),
            transfer("It writes to the next page", IOVA + 0x1000, to_memory=True),
            transfer("It writes beyond what is mapped", UNMAPPED, to_memory=True),
        ),
    )


def move(edu: Edu, iova: int, length: int, *, to_memory: bool) -> None:
    """Program the DMA registers of the device and let the time for the transfer pass."""
    source, destination = (BUFFER_START, iova) if to_memory else (iova, BUFFER_START)
    for register, value in (
        (EduRegister.DMA_SOURCE, source),
        (EduRegister.DMA_DESTINATION, destination),
        (EduRegister.DMA_COUNT, length),
        (EduRegister.DMA_COMMAND, DmaCommand.of(run=1, to_memory=to_memory)),
    ):
        edu.write(register, 8, value)
    edu.clock.advance(DMA_NANOSECONDS)
