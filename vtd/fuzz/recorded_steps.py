"""What a driver works on whose stores are steps of a case: memory, registers, frames.

The unit behind them does at once what it is told, so that nothing is waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from pagetables.build import BuildError, FramePool
from pagetables.memory import PhysicalMemory
from vtd.fuzz.case import DEVICES, MEMORY, Step, mem_write, reg_write
from vtd.fuzz.places import (
    CONTEXT_TABLES,
    INTERRUPTS,
    QUEUE,
    ROOT_TABLE,
    STATUS,
    TABLES,
    pasid_directory,
)
from vtd.layouts.registers import GlobalCommand, GlobalStatus
from vtd.software.driver import Driver
from vtd.software.guidance import Owed
from vtd.unit.registers.capabilities import Capabilities

_POINTERS = GlobalStatus.of(rtps=True, irtps=True)


class RecordedMemory(PhysicalMemory):
    """Software's view of memory, whose writes are steps."""

    def __init__(self) -> None:
        super().__init__()
        for start, length in MEMORY:
            self.add_region(start, length)
        self.steps: list[Step] = []
        self.wrote_table = False

    def write(self, address: int, data: bytes) -> None:
        if not (len(data) == 4096 and not any(data) and self.read(address, 4096) == data):
            self.steps.append(mem_write(address, data))
        entry = int.from_bytes(data[:8], "little")
        self.wrote_table |= len(data) == 4096 or entry == 0
        super().write(address, data)


class RecordedRegisters:
    """Registers whose writes are steps, of a unit that does at once what it is told."""

    def __init__(self, capabilities: Capabilities, steps: list[Step]) -> None:
        self._values = {0: capabilities.version, 8: capabilities.cap, 0x10: capabilities.ecap}
        self._status = 0
        self._steps = steps

    def read_register(self, offset: int, size: int) -> int:
        """A capability register, or GSTS_REG."""
        return self._status if offset == 0x1C else self._values[offset]

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Add a step; root and interrupt tables stay set."""
        self._steps.append(reg_write(offset, size, value))
        if offset == 0x18:
            self._status = self._status & _POINTERS | value & ~GlobalCommand.wbf.mask


class Frames:
    """Structures where :mod:`vtd.fuzz.places` has them, in the order they are made, then tables.

    A freed frame is given out as late as possible: what is stale shall not look like what is new.
    """

    def __init__(self, structures: Iterable[int]) -> None:
        self._structures = iter(structures)
        self._tables = FramePool(*TABLES)
        self._freed: deque[int] = deque()

    def allocate(self) -> int:
        """A frame nobody else has."""
        address = next(self._structures, None)
        if address is not None:
            return address >> 12
        try:
            return self._tables.allocate()
        except BuildError:
            if not self._freed:
                raise
            return self._freed.popleft()

    def free(self, frame: int) -> None:
        """Take the frame of a table back."""
        self._freed.append(frame)


class WithoutInvalidations(Driver):
    """The driver without its invalidations."""

    def invalidate(self, owed: Iterable[Owed]) -> None:
        super().invalidate(())


def structures(*, scalable: bool, features: frozenset[str]) -> Iterator[int]:
    """Where the driver finds frames for its structures, in the order in which it asks for them."""
    yield ROOT_TABLE
    if "qi" in features:
        yield from (QUEUE, STATUS)
    yield CONTEXT_TABLES
    if scalable:
        yield CONTEXT_TABLES + 4096
        for device in DEVICES:
            yield from (pasid_directory(device) + 4096 * page for page in range(3))
    if "ir" in features:
        yield INTERRUPTS
