"""Software's end of the invalidation queue: writes descriptors, moves the tail, waits.

VT-d 6.5.2. The memory of the queue and the word that wait descriptors write belong to the driver.
"""

from __future__ import annotations

from pagetables.bits import BitRecord
from vtd.layouts.descriptors import InvalidationWaitDescriptor
from vtd.layouts.registers import (
    FaultStatus,
    InvalidationQueueAddress,
    InvalidationQueueHead,
    InvalidationQueueTail,
)
from vtd.software.memory import Memory
from vtd.software.registers import PATIENCE, NoAnswerError, Registers, command, read, write

PAGE_SIZE = 0x1000


class QueueFullError(ValueError):
    """The unit has not made room: it is waiting for a device, or stopped by an error."""


class QueueDriver:
    """A queue of ``pages`` (1, 2, 4 ... 128) 4 KiB pages at ``base``.

    ``status`` is the address of a doubleword of memory for wait descriptors. ``wide``: 256-bit
    descriptors, as scalable mode needs them.
    """

    def __init__(
        self,
        unit: Registers,
        memory: Memory,
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
        command(self._unit, qie=True)

    def disable(self) -> None:
        """Switch the queue off once all in it is done (6.5.2); NoAnswerError if that never is."""
        self.wait()
        for _ in range(PATIENCE):
            if self.complete and not self._used:
                command(self._unit, qie=False)
                return
        raise NoAnswerError(f"invalidation queue: not empty, FSTS_REG is {self.errors}")

    def submit(self, *descriptors: BitRecord) -> None:
        """Write descriptors and let the unit have them; QueueFullError if they do not fit."""
        size = 32 if self._wide else 16
        length = PAGE_SIZE * self._pages
        free = length // size - 1 - self._used
        if len(descriptors) > free:
            raise QueueFullError(f"{len(descriptors)} descriptors, room for {free}")
        tail = read(self._unit, InvalidationQueueTail).qt
        for descriptor in descriptors:
            self._memory.write(self._base + tail, int(descriptor).to_bytes(size, "little"))
            tail = (tail + size) % length
        write(self._unit, InvalidationQueueTail.of(qt=tail))

    def wait(self, *, drain_page_requests: bool = False, fence: bool = False) -> bool:
        """Submit a wait descriptor; whether everything submitted so far is complete by now.

        ``fence``: what is submitted later is not begun before (FN, 6.5.2.9).
        """
        self._waits = self._waits + 1 & 0xFFFF_FFFF
        self.submit(
            InvalidationWaitDescriptor.of(
                sw=True,
                fn=fence,
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

    @property
    def errors(self) -> FaultStatus:
        """FSTS_REG, in which IQE and ITE stop the queue until they are cleared (6.5.2.11)."""
        return read(self._unit, FaultStatus)

    @property
    def _used(self) -> int:
        """Descriptors that the unit has not fetched."""
        size = 32 if self._wide else 16
        tail = read(self._unit, InvalidationQueueTail).qt
        head = read(self._unit, InvalidationQueueHead).qh
        return (tail - head) % (PAGE_SIZE * self._pages) // size
