"""Bytes as a program: what software and devices do to a unit, for fuzzers that know only bytes.

Every byte string is a program. The first byte of an operation says what it is, the following ones
are its arguments; a program ends where its bytes do.
"""

from __future__ import annotations

from pagetables.memory import PhysicalMemory
from vtd.unit.port import UnitPort
from vtd.unit.unit import RemappingUnit

SOURCES = (0x0010, 0x0080, 0x0107, 0xFFFF)
INTERESTING = (0, 0x1000, 0x2001, 0x3003, 0x80, 1 << 31, 1 << 63, (1 << 64) - 1, 0xFEE0_0000)


class ProgramBytes:
    """Arguments taken from a byte string, 0 after its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def take(self, size: int) -> int:
        """A number of ``size`` bytes."""
        part = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(part, "little")

    def value(self) -> int:
        """An interesting number, or any of 64 bits."""
        kind = self.take(1)
        if kind < 128:
            return self.take(8)
        return INTERESTING[kind % len(INTERESTING)] | self.take(1) << kind % 57


def run_program(unit: RemappingUnit, memory: PhysicalMemory, data: bytes) -> None:
    """Carry out the operations that ``data`` spells, on a unit with memory from 0 to 1 MiB."""
    program = ProgramBytes(data)
    program.take(1)
    ports = [UnitPort(unit, memory, source_id) for source_id in SOURCES]
    while program.more:
        operation = program.take(1)
        port = ports[operation >> 3 & 3]
        pasid = program.take(2) if operation & 0x80 else None
        match operation & 7:
            case 0 | 1:
                size = 8 if operation & 0x20 else 4
                offset = program.take(1) * 4
                unit.write_register(offset, size, program.value() & (1 << 8 * size) - 1)
            case 2:
                offset = program.take(1) * 4 if operation & 0x40 else program.take(2)
                unit.read_register(offset, 8 if operation & 0x20 else 4)
            case 3 | 4:
                address = program.take(2) << 3 & 0xFFFF8
                memory.write(address, program.value().to_bytes(8, "little"))
            case 5:
                port.read(program.value(), program.take(1), pasid=pasid)
            case 6:
                port.write(program.value(), bytes(program.take(1)), pasid=pasid)
            case _:
                port.write(0xFEE0_0000 | program.take(3) & 0xFFFFC, program.take(4).to_bytes(4))
