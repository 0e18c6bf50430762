"""A unit with an interrupt-remapping table, in which one interrupt gets through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from devices.interrupt_messages import RemappableAddress
from pagetables.bits import BitRecord
from pagetables.memory import PhysicalMemory
from tests.support import interrupt_oracle
from tests.support.meddling import Meddling
from tests.support.oracle import Words
from tests.support.world import capabilities
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor, PostedIrte, RemappedIrte
from vtd.layouts.registers import FaultRecording, InterruptRemappingTableAddress
from vtd.unit.caching.policy import UNCACHED
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import Event, InterruptBlocked
from vtd.unit.unit import RemappingUnit

TABLE, DESCRIPTOR = 0x1000, 0x8000
HOLE = 0x8000_0000
INDEX = 5
SOURCE_ID = 0x0108
REMAPPED = RemappedIrte.of(p=True, v=0x41, dst=0x300, svt=1, sid=SOURCE_ID)
POSTED = PostedIrte.of(p=True, im=True, vv=0x51, pdal=DESCRIPTOR, svt=1, sid=SOURCE_ID)
WAITING = PostedInterruptDescriptor.of(nv=0xF2, ndst=0x200)


def message(index: int = INDEX) -> int:
    """The address of a remappable message without subhandle."""
    return RemappableAddress.for_handle(index, shv=False)


@dataclass
class InterruptWorld(Meddling):
    """Memory, the table in it, and how the unit is programmed."""

    unit: Capabilities = field(default_factory=capabilities)
    entry: BitRecord = REMAPPED
    descriptor: BitRecord = WAITING
    table: int = TABLE
    size: int = 7
    eime: bool = False
    compatibility: bool = False
    enabled: bool = True

    def __post_init__(self) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 0x10000)
        Meddling.__init__(self)
        self.source_id = SOURCE_ID
        self.address, self.data = message(), 0
        self.put_entry(self.entry)
        self.put_descriptor(self.descriptor)

    def put_entry(self, entry: int, index: int = INDEX) -> None:
        """Store a table entry."""
        self.memory.load(TABLE + 16 * index, entry.to_bytes(16, "little"))

    def put_descriptor(self, descriptor: int) -> None:
        """Store the posted-interrupt descriptor."""
        self.memory.load(DESCRIPTOR, descriptor.to_bytes(64, "little"))

    def get_descriptor(self) -> PostedInterruptDescriptor:
        """The posted-interrupt descriptor as it is in memory."""
        return PostedInterruptDescriptor.unpack(self.memory.read(DESCRIPTOR, 64))

    def start(self, options: Options | None = None) -> StartedInterrupts:
        """The unit with interrupt remapping enabled, uncached unless the options say otherwise."""
        options = Options(caches=UNCACHED) if options is None else options
        started = StartedInterrupts(self, self.join(RemappingUnit(self.unit, self.memory, options)))
        started.set_table()
        started.command(ire=self.enabled, cfi=self.compatibility)
        return started

    def words(self) -> Words:
        """Memory for the oracle."""
        words = {
            frame << 12 | index << 3: word
            for frame, data in self.memory.snapshot().items()
            for index, word in enumerate(memoryview(data).cast("Q"))
            if word
        }
        return Words(frozenset(range(16)), words, self.read_only)

    def expected(
        self, words: Words
    ) -> interrupt_oracle.Sent | interrupt_oracle.Recorded | interrupt_oracle.Blocked:
        """What the oracle says of the interrupt."""
        ecap, cap = self.unit.ecap, self.unit.cap
        setup = interrupt_oracle.Setup(
            self.unit.host_address_width,
            bool(cap >> 59 & 1),
            bool(ecap >> 62 & 1),
            bool(ecap >> 61 & 1),
            self.table,
            self.size,
            self.eime,
            self.enabled,
            self.compatibility,
        )
        return interrupt_oracle.remap(words, setup, self.source_id, self.address, self.data)


class StartedInterrupts:
    """A unit that remaps interrupts."""

    def __init__(self, world: InterruptWorld, unit: RemappingUnit) -> None:
        self.world = world
        self.unit = unit
        self.events: list[Event] = []
        unit.subscribe(self.events.append)
        self._functions: dict[str, bool] = {}

    def set_table(self) -> None:
        """IRTA_REG and SIRTP."""
        world = self.world
        table = InterruptRemappingTableAddress.of(irta=world.table, eime=world.eime, s=world.size)
        self.unit.write_register(0xB8, 8, table)
        self.command(sirtp=True)

    def command(self, **functions: bool) -> None:
        """One command, with enabled functions kept."""
        bits = {"te": 31, "qie": 26, "ire": 25, "sirtp": 24, "cfi": 23}
        self._functions.update(
            {name: value for name, value in functions.items() if name != "sirtp"}
        )
        wanted = {**self._functions, **functions}
        self.unit.write_register(
            0x18, 4, sum(value << bits[name] for name, value in wanted.items())
        )

    def send(self) -> Interrupt | Posted | None:
        """Send the interrupt of the world."""
        world = self.world
        outcome = self.port().write(world.address, world.data.to_bytes(4, "little")).interrupt
        assert outcome is None or isinstance(outcome, Interrupt | Posted)
        return outcome

    def port(self) -> UnitPort:
        """The requester's port."""
        return UnitPort(self.unit, self.world.memory, self.world.source_id)

    @property
    def blocked(self) -> Iterable[InterruptBlocked]:
        """What was blocked so far."""
        return [event for event in self.events if isinstance(event, InterruptBlocked)]

    def record(self) -> FaultRecording:
        """The first fault record."""
        base = self.unit.capabilities.fault_recording_offset
        low, high = (self.unit.read_register(base + half, 8) for half in (0, 8))
        return FaultRecording(high << 64 | low)
