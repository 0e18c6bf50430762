"""A guest that maps and unmaps pages for its device while the device works.

What it does by the remapping unit that it sees, the host does to the tables that the hardware uses:
to those of its own where it shadows the guest's, to the guest's first stage where that is nested.
Strictly, caches lose a page before the guest goes on; deferred, as many pages later as the flush
queue of Linux is long, until when nothing else is mapped there.
"""

from __future__ import annotations

from vtd.host.guests import Passed
from vtd.host.plan import PAGE, Invalidation
from vtd.software.domain import Domain

QUEUE = 256
"""Pages that are unmapped before deferred invalidations are made (Linux: IOVA_FQ_SIZE)."""


class GuestRemapping:
    """Unmaps page after page of the first range that a device may reach, the last one first."""

    def __init__(self, passed: Passed, domain: Domain) -> None:
        self.unmaps = self.late = 0
        self._deferred = passed.policy.invalidation is Invalidation.DEFERRED
        self._domain = domain
        self._dma = passed.function.dma
        device, size, _ = next(passed.guest.reached())
        self._pages = range(device + size - PAGE, device - 1, -PAGE)
        self._unmapped: dict[int, int] = {}
        """Where the pages led that are unmapped now."""

    def unmap_until(self, count: int) -> None:
        """Unmap pages until it were that many, and map again those that may be."""
        while self.unmaps < count:
            address = self._pages[self.unmaps % len(self._pages)]
            if len(self._unmapped) == QUEUE or address in self._unmapped:
                self.map_again()
            leads = self._domain.physical(address)
            if leads is None:  # nothing is there until the device asks for it
                break
            self._dma.read(address, 1)  # so that caches have it
            self._domain.unmap(address, PAGE, deferred=self._deferred)
            self._unmapped[address] = leads
            reached = self._dma.read(address, 1).ok
            self.late += reached and self._domain.physical(address) is None
            self.unmaps += 1
            if not self._deferred:
                self.map_again()

    def need(self, address: int) -> None:
        """Have a page mapped that the device is told to use."""
        if address & -PAGE in self._unmapped:
            self.map_again()

    def map_again(self) -> None:
        """Map all that is unmapped to where it led."""
        self._domain.flush()
        for address, leads in self._unmapped.items():
            if self._domain.physical(address) is None:
                self._domain.map(address, leads, PAGE)
        self._unmapped.clear()
