"""VT-c behind a unit: what a virtual function, a VMDq queue and an I/OAT engine can reach.

Two guests and their host share a network controller and copy engines. Guest A has a virtual
function, a queue of the physical function and a copy engine with a domain of its own; the host has
another engine without. Each is told to read the memory of everybody, the same way each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from devices.function import Bar, PciFunction
from devices.models.ioat import IoatEngine
from devices.models.ioat_structures import (
    CHANNEL_SIZE,
    ChannelCommand,
    ChannelControl,
    Descriptor,
)
from devices.models.nic82576.controller import Nic82576
from devices.models.nic82576.registers import (
    MRQC,
    MRQC_VMDQ,
    QUEUE_ENABLE,
    TCTL,
    TCTL_ENABLE,
    TDBAL,
    TXDCTL,
    offset_of,
)
from devices.network.link import Sink
from devices.source_id import Bdf
from pagetables.build import FramePool
from vtd.machine.assembly import Assembly, assemble
from vtd.machine.description import read_machine
from vtd.software.domain import PASS_THROUGH, Domain
from vtd.software.driver import Driver
from vtd.unit.reporting.events import Event, RequestBlocked

MACHINE = """
[[memory]]
start = 0
size = "64 MiB"

[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true

[[bridge]]
name = "port"
at = "00:01.0"
kind = "root_port"
acs = true

[[function]]
name = "nic"
at = "port/00.0"
model = "nic82576"
vfs = 2
bus_master = true

[[function]]
name = "engine-a"
at = "00:04.0"
model = "ioat"
bus_master = true

[[function]]
name = "engine-host"
at = "00:04.1"
model = "ioat"
bus_master = true
"""
TABLES, TABLES_END = 0x10_0000, 0x20_0000
PLACES = {"A": 0x100_0000, "B": 0x200_0000, "host": 0x300_0000}
"""Whose memory, and where: the same address in every address space that has it."""
SIZE = 0x1_0000
SECRET, TAKEN = 0x2000, 0x3000
"""Offsets in everybody's memory: what nobody else may read, and where copies of it go."""
FRAME = 64
VF_RING = 0x3800
QUEUES = {"A": 2, "B": 3}
"""Queues of the physical function; 0 and 1 belong to the virtual functions."""
DATA_FLAGS = 0x2B30_0000
"""An advanced data descriptor: end of packet, insert FCS, report status."""


class Attempt(NamedTuple):
    """One try to read somebody's memory."""

    target: str
    reached: bool
    taken: bytes
    """What came out."""
    fault: RequestBlocked | None


class Actor(NamedTuple):
    """Something that does DMA for somebody, and how that went."""

    name: str
    owner: str
    requester_id: Bdf
    domain: str
    attempts: tuple[Attempt, ...]

    @property
    def reach(self) -> tuple[str, ...]:
        """Whose memory it reaches."""
        return tuple(each.target for each in self.attempts if each.reached)


def run() -> tuple[Actor, ...]:
    """Build the machine, give everybody their share, and have them try."""
    return tuple(Connectivity().actors())


class Connectivity:
    """The machine, its domains, and how each kind of device is told to read."""

    def __init__(self) -> None:
        self.assembly: Assembly = assemble(read_machine(MACHINE))
        self.memory = self.assembly.platform.memory
        nic = self.assembly.functions["nic"]
        assert isinstance(nic, Nic82576)
        self.nic = nic
        self.wire = Sink()
        nic.attach(self.wire)
        self.assembly.clock.advance(1_000_000_000)  # until the link is up
        for register, value in ((MRQC, 2 | MRQC_VMDQ), (TCTL, TCTL_ENABLE)):
            nic.bars[0].write(offset_of(register), 4, value)
        for who, place in PLACES.items():
            self.memory.write(place + SECRET, secret_of(who))
        unit = self.assembly.platform.unit_of(nic)
        unit.subscribe(self._happened)
        self.faults: list[RequestBlocked] = []
        self.driver = Driver(unit, self.memory, FramePool(TABLES, TABLES_END))
        self.driver.start()
        self.domains: dict[PciFunction, str] = {}
        first, second = nic.sriov.functions
        self.engine, self.host_engine = map(self._engine, ("engine-a", "engine-host"))
        shares = ((first, "A"), (second, "B"), (nic, tuple(PLACES)), (self.engine, "A"))
        for function, names in shares:
            self._share(function, self.driver.domain(), tuple(names))
        self._attach(self.host_engine, self.driver.domain(PASS_THROUGH), "none: pass-through")

    def _engine(self, name: str) -> IoatEngine:
        engine = self.assembly.functions[name]
        assert isinstance(engine, IoatEngine)
        return engine

    def actors(self) -> list[Actor]:
        """Everybody that does DMA, and what it reaches."""
        nic, engine, host_engine = self.nic, self.engine, self.host_engine
        first, second = nic.sriov.functions
        bars = {"A": first.bars[0], "B": second.bars[0]}
        queue = nic.bars[0]
        return [
            self._try("virtual function 0", "A", first, self._sender(bars["A"], VF_RING)),
            self._try("virtual function 1", "B", second, self._sender(bars["B"], VF_RING)),
            *(
                self._try(
                    f"VMDq queue {number}",
                    owner,
                    nic,
                    self._sender(queue, offset_of(TDBAL, number)),
                )
                for owner, number in QUEUES.items()
            ),
            self._try("I/OAT engine", "A", engine, self._copier(engine)),
            self._try("I/OAT engine", "host", host_engine, self._copier(host_engine)),
        ]

    def _share(self, function: PciFunction, domain: Domain, names: tuple[str, ...]) -> None:
        for name in names:
            domain.map(PLACES[name], PLACES[name], SIZE)
        self._attach(function, domain, f"{domain.domain_id}: {', '.join(names)}")

    def _attach(self, function: PciFunction, domain: Domain, text: str) -> None:
        self.driver.attach(self.assembly.platform.topology.requester_id(function), domain)
        self.domains[function] = text

    def _try(
        self, name: str, owner: str, function: PciFunction, read: Callable[[int, int], bytes]
    ) -> Actor:
        attempts = []
        for target, place in PLACES.items():
            self.faults.clear()
            taken = read(PLACES[owner], place + SECRET)
            reached = taken == secret_of(target)
            attempts.append(Attempt(target, reached, taken, next(iter(self.faults), None)))
        bdf = self.assembly.platform.topology.bdf(function)
        return Actor(name, owner, bdf, self.domains[function], tuple(attempts))

    def _sender(self, bar: Bar, base: int) -> Callable[[int, int], bytes]:
        """Reads by sending: what comes out at the other end of the cable."""
        first = offset_of(TDBAL)

        def at(offset: int) -> int:
            return base + offset - first

        def read(own: int, address: int) -> bytes:
            self.wire.frames.clear()
            data = (FRAME << 14 << 32 | DATA_FLAGS | FRAME).to_bytes(8, "little")
            self.memory.write(own, address.to_bytes(8, "little") + data)
            for offset, value in (
                (offset_of(TXDCTL), 0),
                (first, own & 0xFFFF_FFFF),
                (first + 4, own >> 32),
                (first + 8, 128),
                (first + 0x10, 0),
                (first + 0x18, 0),
                (offset_of(TXDCTL), QUEUE_ENABLE),
                (first + 0x18, 1),
            ):
                bar.write(at(offset), 4, value)
            return b"".join(self.wire.frames)

        return read

    def _copier(self, engine: IoatEngine) -> Callable[[int, int], bytes]:
        """Reads by copying to the memory of whoever asks."""
        bar = engine.bars[0]

        def read(own: int, address: int) -> bytes:
            self.memory.write(own + TAKEN, bytes(FRAME))
            descriptor = Descriptor.of(
                size=FRAME, source=address, destination=own + TAKEN, next=own
            )
            self.memory.write(own, descriptor.pack())
            for offset, value, size in (
                (0x04, ChannelCommand.of(reset=1), 1),
                (0x00, ChannelControl.of(rearm=1, abort_on_error=1), 2),
                (0x10, own, 8),
                (0x06, 1, 2),
            ):
                bar.write(CHANNEL_SIZE + offset, size, value)
            engine.clock.advance(engine.descriptor_nanoseconds)
            return self.memory.read(own + TAKEN, FRAME).rstrip(b"\0")

        return read

    def _happened(self, event: Event) -> None:
        if isinstance(event, RequestBlocked):
            self.faults.append(event)


def secret_of(who: str) -> bytes:
    """What is in the memory of somebody: a frame, so that it can be sent."""
    return (
        bytes.fromhex("020000000009 02000000000a 88b5")
        + f"secret of {who:38}".encode()
        + b"\x01\x01"
    )
