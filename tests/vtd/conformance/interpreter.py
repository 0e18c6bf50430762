"""The payload's work done by the engine: a machine of one unit and edu devices, without a guest.

``python -m tests.vtd.conformance.interpreter IMAGE [PROFILE [DEFECT]]`` is one for ``command:``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from construct import Container

from devices.dma import split_pages
from pagetables.memory import PhysicalMemory
from vtd.conformance.format import (
    DESCRIPTORS,
    MAGIC,
    MOST_VECTORS,
    REAL_MACHINE,
    Begin,
    Case,
    Driver,
    Frame,
    Header,
    Instruction,
    Interrupts,
    Kind,
    Mode,
    Op,
    Reset,
    ResetProof,
    Status,
)
from vtd.conformance.probe import EDU, IOAT, MSI, MSI_X, NICS, MapEntry
from vtd.conformance.retargeting import PLAIN
from vtd.dmar.records import Drhd, DrhdFlags
from vtd.dmar.records import Header as TableHeader
from vtd.dmar.table import Table
from vtd.live.defects import DEFECTS
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.interrupts.outcome import Interrupt, compatibility_interrupt
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.reporting.events import Event, InterruptDelivered, MessageSent
from vtd.unit.unit import RemappingUnit

MEMORY = ((0, 0x9F000), (0x10_0000, 0x1FF0_0000))
BASE = 0xFED9_0000
PLACES = (0x20, 0x21, 0x28, 0x90)
MESSAGE = 0x40
LOWEST_VECTOR = 16
HANG = "hang"
IDENTITIES = {
    Driver.EDU: (EDU, MSI),
    Driver.NVME: (0x0010_1B36, MSI_X),
    Driver.NIC: (NICS[0], MSI),
    Driver.IOAT: (IOAT, MSI_X),
}
NVME_CLASS, MEMORY_BUFFER = 0x01_08_02, 1 << 57


class Machine:
    """A machine with a unit of some capabilities, perhaps a broken one."""

    def __init__(
        self,
        capabilities: Capabilities,
        defect: str = "",
        *,
        driver: Driver = Driver.EDU,
        virtual: bool = True,
    ) -> None:
        self.capabilities = capabilities
        self.defect = defect
        self.driver = driver
        self.virtual = virtual
        self.memory = PhysicalMemory()
        for start, length in MEMORY:
            self.memory.add_region(start, length)
        self.interrupts: list[int] = []
        self.buffers: dict[int, bytearray] = {}
        self.descriptors: tuple[int, int] | None = None
        """Where those of the next transfer are: as the device reaches them, and in memory."""

    def run(self, image: bytes) -> Iterator[bytes]:
        """The frames that the payload would send."""
        header = Header.parse(image)
        self._power_on()
        yield self._begin(header)
        if header.mode == Mode.PROBE:
            yield from self._probe()
        elif header.mode == Mode.SERVE:
            yield from self._serve(header)
        else:
            position = header.program
            for _ in range(header.cases):
                case = Case.parse(image[position:])
                position += Case.sizeof()
                if not self.virtual and case.reset != Reset.NONE:
                    yield frame(Kind.PROBLEM, REAL_MACHINE)
                    return
                if case.number >= header.first:
                    output = self._case(header, image[position : position + case.size])
                    yield frame(Kind.CASE, case.number, output, Status.DONE)
                position += case.size
        yield frame(Kind.END)

    def _serve(self, header: Container) -> Iterator[bytes]:
        """Cases from standard input; with the defect ``hang`` silence from the first message on."""
        while head := sys.stdin.buffer.read(Case.sizeof()):
            case = Case.parse(head)
            code = sys.stdin.buffer.read(case.size)
            hangs = self.defect == HANG and any(op is Op.MESSAGE for op in operations(code))
            yield b"" if hangs else frame(Kind.CASE, case.number, self._case(header, code))

    def _power_on(self) -> None:
        options = Options(caches=AGGRESSIVE)
        self.unit = RemappingUnit(self.capabilities, self.memory, options)
        if self.defect not in ("", HANG):
            DEFECTS[self.defect].plant(self.unit)
        self.unit.subscribe(self._event)
        self.interrupts.clear()

    def _event(self, event: Event) -> None:
        if isinstance(event, InterruptDelivered) and isinstance(event.outcome, Interrupt):
            self._accept(event.outcome)
        elif isinstance(event, MessageSent):
            self._accept(compatibility_interrupt(*event.message))

    def _accept(self, interrupt: Interrupt) -> None:
        """As the local APIC with the id 0 does: vectors up to 15 are errors (SDM 12.5.2)."""
        plain = interrupt.delivery_mode in PLAIN and interrupt.destination == 0
        if plain and interrupt.vector >= LOWEST_VECTOR:
            self.interrupts.append(interrupt.vector)

    def _begin(self, header: Container) -> bytes:
        values = self.capabilities.version, self.capabilities.cap, self.capabilities.ecap
        version, cap, ecap = values if header.unit else (0, 0, 0)
        data = {"version": version, "capability": cap, "extended_capability": ecap}
        data["hypervisor"] = int(self.virtual)
        return frame(Kind.BEGIN, 0, Begin.build({"digest": header.digest, **data}))

    def _probe(self) -> Iterator[bytes]:
        for start, length in MEMORY:
            yield frame(
                Kind.MEMORY, 0, MapEntry.build({"start": start, "length": length, "type": 1})
            )
        drhd = Drhd(flags=DrhdFlags.of(include_pci_all=True), segment=0, register_base=BASE).pack()
        head = TableHeader(host_address_width=self.capabilities.host_address_width - 1)
        table = Table.parse(head.pack_fields()[:4] + (48 + len(drhd)).to_bytes(4, "little")
                            + head.pack_fields()[8:] + drhd).sealed()  # fmt: skip
        yield frame(Kind.TABLE, 0, table.pack())
        registers = (self.unit.read_register(4 * index, 4) for index in range(64))
        yield frame(Kind.UNIT, 48, b"".join(each.to_bytes(4, "little") for each in registers))
        for number, place in enumerate(PLACES):
            yield frame(Kind.FUNCTION, place, configuration(number, self.driver))
            if self.driver is Driver.NVME:
                yield frame(Kind.CONTROLLER, place, MEMORY_BUFFER.to_bytes(8, "little"))

    def _case(self, header: Container, code: bytes) -> bytes:
        self._power_on()
        unit = self.unit
        self.buffers = {number: bytearray(1 << 16) for number in range(len(header.devices))}
        values = [(0x1C, 4), (0x34, 4), (0x38, 4), (0xA0, 4), (0x80, 8), (0x88, 8)]
        names = [field.name for field in ResetProof.subcons]
        proof = zip(names, (unit.read_register(*each) for each in values), strict=True)
        output = bytes(ResetProof.build(dict(proof)))
        position = 0
        while position < len(code):
            what = Instruction.parse(code[position:])
            position += Instruction.sizeof()
            data = b""
            if what.op in (Op.STORE, Op.FILL):
                data = code[position : position + what.length]
                position += (what.length + 7) & ~7
            output += self._step(header, what, data)
        return output

    def _step(  # noqa: PLR0912 - one branch for each instruction
        self, header: Container, what: Container, data: bytes
    ) -> bytes:
        device = header.devices[what.device]
        port = UnitPort(self.unit, self.memory, device.bus << 8 | device.devfn)
        buffer = self.buffers[what.device]
        match what.op:
            case Op.STORE:
                self.memory.load(what.address, data)
            case Op.LOAD:
                return self.memory.read(what.address, what.length)
            case Op.CLEAR:
                self.memory.load(what.address, bytes(what.length))
            case Op.WRITE:
                self.unit.write_register(what.address, what.size, what.value)
            case Op.READ:
                return int(self.unit.read_register(what.address, what.size)).to_bytes(8, "little")
            case Op.FILL:
                buffer[what.address : what.address + len(data)] = data
            case Op.DUMP:
                return bytes(buffer[what.address : what.address + what.length])
            case Op.DESCRIPTORS:
                self.descriptors = what.address, what.value
            case Op.DEVICE_READ | Op.DEVICE_WRITE if self.descriptors is not None:
                (reached, memory), self.descriptors = self.descriptors, None
                kept = self.memory.read(memory, DESCRIPTORS)
                port.read(reached, 16)
                self._step(header, what, data)
                port.write(reached + 16, b"\xff" * 16)
                self.memory.load(memory, kept)
            case Op.DEVICE_READ:
                for start, size in split_pages(what.address, what.length):
                    done = port.read(start, size)
                    at = what.value + start - what.address
                    buffer[at : at + size] = done.data if done.ok else b"\xff" * size
            case Op.DEVICE_WRITE:
                for start, size in split_pages(what.address, what.length):
                    at = what.value + start - what.address
                    port.write(start, bytes(buffer[at : at + size]))
            case Op.MESSAGE:
                port.write(what.address, what.value.to_bytes(4, "little"))
            case Op.INTERRUPTS:
                came = self.interrupts[:MOST_VECTORS]
                self.interrupts.clear()
                vectors = came + [0] * (MOST_VECTORS - len(came))
                return bytes(Interrupts.build({"count": len(came), "vectors": vectors}))
        return b""


def operations(code: bytes) -> Iterator[Op]:
    """The instructions of a program."""
    position = 0
    while position < len(code):
        what = Instruction.parse(code[position:])
        position += Instruction.sizeof()
        if what.op in (Op.STORE, Op.FILL):
            position += (what.length + 7) & ~7
        yield Op(what.op)


def configuration(number: int, driver: Driver = Driver.EDU) -> bytes:
    """Configuration space of a device."""
    space = bytearray(256)
    identity, message = IDENTITIES[driver]
    space[0:4] = identity.to_bytes(4, "little")
    space[6] = 0x10
    if driver is Driver.NVME:
        space[9:12] = NVME_CLASS.to_bytes(3, "little")
    space[0x10:0x14] = (0xFE00_0000 + (number << 20)).to_bytes(4, "little")
    space[0x34] = MESSAGE
    space[MESSAGE] = message
    return bytes(space)


def frame(kind: Kind, number: int = 0, data: bytes = b"", status: int = 0) -> bytes:
    """A frame as it is sent."""
    head = {"kind": kind, "number": number, "status": status, "length": len(data)}
    return bytes(Frame.build({**head, "check": sum(data) & 0xFFFF_FFFF})) + data


def unwrapped(image: bytes) -> bytes:
    """The image in a UEFI application or an ELF kernel, or itself."""
    return image[image.index(MAGIC.to_bytes(4, "little")) :]


def main() -> None:
    image, profile, defect = (*sys.argv[1:], *("qemu", "")[len(sys.argv) - 2 :])
    machine = Machine(PROFILES[profile], defect)
    for each in machine.run(unwrapped(Path(image).read_bytes())):
        sys.stdout.buffer.write(each)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
