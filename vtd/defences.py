"""What stops a rogue device: each of its behaviours on a small machine, with chosen defences.

A function of any model is behind a switch, with a neighbour in its slot and another device beside
it; what it should not touch belongs to a device behind another port.
"""

from __future__ import annotations

from collections.abc import Collection

from devices.config_space import Command
from devices.dma import READ, WRITE
from devices.function import BME, PciFunction
from devices.rogue import PAGE, Behaviour, Defence, Rogue, Sights, When
from devices.source_id import SourceId
from devices.topology import Bridge
from pagetables.build import FramePool
from vtd.layouts.registers import (
    ProtectedLowMemoryBase,
    ProtectedLowMemoryLimit,
    ProtectedMemoryEnable,
)
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.software.driver import Driver
from vtd.unit.reporting.events import Event, InterruptDelivered

MACHINE = """
[[memory]]
start = 0
size = "64 MiB"

[[unit]]
profile = "xeon"
base = 0xfed90000
include_all = true

[[bridge]]
name = "left"
at = "00:1c.0"
kind = "root_port"

[[bridge]]
name = "right"
at = "00:1c.1"
kind = "root_port"

[[switch]]
name = "switch"
at = "left/00.0"
ports = 2
acs = ["sv", "tb", "rr", "cr", "uf"]
acs_enabled = []

[[function]]
name = "rogue"
at = "switch.0/00.0"
model = "{model}"

[[function]]
name = "neighbour"
at = "switch.0/00.1"

[[function]]
name = "peer"
at = "switch.1/00.0"
parameters = {{ msix_vectors = 1 }}

[[function]]
name = "victim"
at = "right/00.0"
"""
TABLES, TABLES_END = 0x10_0000, 0x20_0000
OWN, FOREIGN = 0x40_0000, 0x80_0000
"""Host physical addresses: the page with the buffer of the device, and that of the other one."""
OWN_IOVA, FOREIGN_IOVA = 0x5000_0000, 0x6000_0000
LENGTH = 0x800
"""Bytes of the buffer; a descriptor at its start says how many of them are used."""
FILLED = 64
PEER_BAR = 0xC000_0000
MESSAGE = 0xFEE0_0000, bytes([0x99, 0, 0, 0])
"""A fixed interrupt with vector 99h, in compatibility format."""
ACS_BITS = {
    Defence.SOURCE_VALIDATION: "sv",
    Defence.TRANSLATION_BLOCKING: "tb",
    Defence.REDIRECT: "rr",
}


def harm_of(
    behaviour: Behaviour, defences: Collection[Defence], model: str = "inert"
) -> tuple[str, ...]:
    """What a behaviour of a function of ``model`` does harm to while these defences are up."""
    scene = _Scene(behaviour, frozenset(defences), model)
    scene.firmware()
    if behaviour.when is When.BOOT:
        behaviour.act(scene.rogue)
    scene.software()
    checked = scene.descriptor()
    if behaviour.when is not When.BOOT:
        behaviour.act(scene.rogue)
    return scene.harm(checked)


class _Registers:
    """Registers of a device that notes what is written."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.written.append(value)


class _Scene:
    """The machine while a behaviour is played."""

    def __init__(self, behaviour: Behaviour, defences: frozenset[Defence], model: str) -> None:
        self.behaviour = behaviour
        self.defences = defences
        assembly = assemble(read_machine(MACHINE.format(model=model)))
        self.functions = assembly.functions
        self.platform = assembly.platform
        self.topology = assembly.platform.topology
        self.memory = assembly.platform.memory
        self.unit = assembly.platform.unit_of(self.functions["rogue"])
        self.unit.subscribe(self._happened)
        self.interrupts: list[Event] = []
        self.registers = _Registers()
        self.memory.write(OWN, FILLED.to_bytes(4, "little"))
        translated = Defence.TRANSLATION in defences
        sights = Sights(
            own=OWN_IOVA if translated else OWN,
            length=LENGTH,
            foreign=FOREIGN_IOVA if translated else FOREIGN,
            physical=FOREIGN,
            own_physical=OWN,
            elsewhere=self._id("victim"),
            neighbour=self._id("neighbour"),
            message=MESSAGE,
            peer=PEER_BAR + PAGE,
        )
        function = self.functions["rogue"]
        self.rogue = Rogue(function, self.topology, self.platform.port_as, sights)

    def firmware(self) -> None:
        """Place the registers of the peer, set the ports up, and protect memory."""
        peer = self.functions["peer"]
        peer.config.write(0x10, 4, PEER_BAR)
        peer.config.write(4, 2, Command.of(mse=True))
        peer.bars[0].place(PAGE, PAGE, self.registers)
        port = self.functions["switch.0"]
        assert isinstance(port, Bridge) and port.acs is not None
        control = port.acs.control
        control.value = control.value.replace(
            **{bit: 1 for defence, bit in ACS_BITS.items() if defence in self.defences}
        )
        if Defence.PORT_OFF in self.defences:
            port.config.write(4, 2, port.command.value & ~BME)
        if Defence.PROTECTED_MEMORY in self.defences:
            write = self.unit.write_register
            write(ProtectedLowMemoryBase.OFFSET or 0, 4, FOREIGN)
            write(ProtectedLowMemoryLimit.OFFSET or 0, 4, FOREIGN)
            write(ProtectedMemoryEnable.OFFSET or 0, 4, ProtectedMemoryEnable.of(epm=True))

    def software(self) -> None:
        """Domains for the devices, and what the driver of this one does."""
        when = self.behaviour.when
        rogue = self.functions["rogue"]
        if when in (When.IN_USE, When.RELEASED):
            rogue.config.write(4, 2, Command.of(bme=True))
        if Defence.TRANSLATION in self.defences:
            self._translate()
        if when is When.RELEASED:
            rogue.config.write(4, 2, 0)

    def _translate(self) -> None:
        driver = Driver(self.unit, self.memory, FramePool(TABLES, TABLES_END))
        driver.start(interrupts=Defence.INTERRUPTS in self.defences)
        # Protected regions would block what domains allow there: operating systems end them here.
        self.unit.write_register(ProtectedMemoryEnable.OFFSET or 0, 4, 0)
        others = driver.domain()
        others.map(FOREIGN_IOVA, FOREIGN, PAGE)
        for name in ("victim", "neighbour", "peer"):
            driver.attach(self._id(name), others)
        if self.behaviour.when in (When.BOOT, When.UNUSED):
            return
        own = driver.domain()
        access = READ if Defence.READ_ONLY in self.defences else READ | WRITE
        own.map(OWN_IOVA, OWN, PAGE, access)
        ats = self.behaviour.ats and Defence.NO_ATS not in self.defences
        driver.attach(self._id("rogue"), own, ats=ats)
        if self.behaviour.when is When.RELEASED and Defence.REMOVED in self.defences:
            own.unmap(OWN_IOVA, PAGE)

    def descriptor(self) -> int:
        """The length in the descriptor."""
        return int.from_bytes(self.memory.read(OWN, 4), "little")

    def harm(self, checked: int) -> tuple[str, ...]:
        """What was done; ``checked`` is the length in the descriptor when it was looked at."""
        used = checked if Defence.COPY in self.defences else self.descriptor()
        released = self.behaviour.when is When.RELEASED
        shared = Defence.OWN_PAGES not in self.defences
        found = {
            "memory of another device": self._changed(FOREIGN, PAGE),
            "memory beside the buffer": shared and self._changed(OWN + LENGTH, PAGE - LENGTH),
            "memory behind the buffer": self._changed(OWN + PAGE, PAGE),
            "a buffer that others use now": released and self.memory.read(OWN + 4, 4) != bytes(4),
            "a length that was checked": not released and used != FILLED,
            "a processor": bool(self.interrupts),
            "registers of another device": bool(self.registers.written),
        }
        return tuple(name for name, harmed in found.items() if harmed)

    def _changed(self, start: int, length: int) -> bool:
        return self.memory.read(start, length) != bytes(length)

    def _id(self, name: str) -> SourceId:
        function: PciFunction = self.functions[name]
        return self.topology.requester_id(function)

    def _happened(self, event: Event) -> None:
        if isinstance(event, InterruptDelivered):
            self.interrupts.append(event)
