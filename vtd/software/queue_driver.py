"""Software's end of the invalidation queue: writes descriptors, moves the tail, waits.

VT-d 6.5.2. The memory of the queue and the word that wait descriptors write belong to the driver.
"""

from __future__ import annotations

from pagetables.bits import BitRecord
from pagetables.memory import PhysicalMemory
from vtd.layouts.descriptors import InvalidationWaitDescriptor
from vtd.layouts.registers import (
    GlobalCommand,
    GlobalStatus,
    InvalidationQueueAddress,
    InvalidationQueueHead,
    InvalidationQueueTail,
)
from vtd.software.driver import read, write
from vtd.unit.unit import RemappingUnit

PAGE_SIZE = 0x1000
ONE_SHOT = GlobalCommand.of(srtp=True, wbf=True, sirtp=True)


class QueueFullError(ValueError):
    """The unit has not made room: it is waiting for a device, or stopped by an error."""


class QueueDriver:
    """A queue of ``pages`` (1, 2, 4 ... 128) 4 KiB pages at ``base``.

    ``status`` is the address of a doubleword of memory for wait descriptors. ``wide``: 256-bit
    descriptors, as scalable mode needs them.
    """

    def __init__(
        self,
        unit: RemappingUnit,
        memory: PhysicalMemory,
        base: int,
        status: int,
        *,
        pages: int = 1,
        wide: bool = True,
    ) -> None:
        if pages not in {1 << order for order in range(8)} or base % PAGE_SIZE or status % 4:
            raise ValueError(f"invalidation queue: {pages} pages at {base:#x}, status {status:#x}")
        self._unit = unit
        self._memory = memory
        self._base = base
        self._status = status
        self._pages = pages
        self._wide = wide
        self._waits = 0

    def enable(self) -> None:
        """Give the queue to the unit and switch it on, with everything else as it is."""
        address = InvalidationQueueAddress.of(
            iqa=self._base, dw=self._wide, qs=self._pages.bit_length() - 1
        )
        write(self._unit, InvalidationQueueTail(0))
        write(self._unit, address)
        running = read(self._unit, GlobalStatus) & ~ONE_SHOT
        write(self._unit, GlobalCommand(running).replace(qie=True))

    def submit(self, *descriptors: BitRecord) -> None:
        """Write descriptors and let the unit have them; QueueFullError if they do not fit."""
        size = 32 if self._wide else 16
        length = PAGE_SIZE * self._pages
        tail = read(self._unit, InvalidationQueueTail).qt
        head = read(self._unit, InvalidationQueueHead).qh
        free = (head - tail - size) % length // size
        if len(descriptors) > free:
            raise QueueFullError(f"{len(descriptors)} descriptors, room for {free}")
        for descriptor in descriptors:
            self._memory.load(self._base + tail, int(descriptor).to_bytes(size, "little"))
            tail = (tail + size) % length
        write(self._unit, InvalidationQueueTail.of(qt=tail))

    def wait(self, *, drain_page_requests: bool = False) -> bool:
        """Submit a wait descriptor; whether everything submitted so far is complete by now."""
        self._waits += 1
        self.submit(
            InvalidationWaitDescriptor.of(
                sw=True,
                pd=drain_page_requests,
                status_data=self._waits,
                status_address=self._status,
            )
        )
        return self.complete

    @property
    def complete(self) -> bool:
        """Whether the last wait descriptor has been completed."""
        return self._memory.read(self._status, 4) == self._waits.to_bytes(4, "little")
