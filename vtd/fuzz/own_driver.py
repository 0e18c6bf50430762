"""The driver of :mod:`vtd.software` as one that is tried."""

from __future__ import annotations

from pagetables.build import FramePool
from vtd.fuzz.driver_protocol import DriverError
from vtd.layouts.interrupt_entries import RemappedIrte, SourceValidationType
from vtd.software.domain import Domain
from vtd.software.driver import Driver
from vtd.software.memory import Memory
from vtd.software.registers import Registers


class OwnDriver:
    """See :class:`vtd.fuzz.driver_protocol.TriedDriver`; domains have a second stage."""

    def __init__(self, registers: Registers, memory: Memory, start: int, end: int) -> None:
        self._registers = registers
        self._memory = memory
        self._frames = range(start, end)
        self._domains: dict[int, Domain] = {}

    def make(self) -> Driver:
        """The driver itself."""
        pool = FramePool(self._frames.start, self._frames.stop)
        flush = getattr(self._memory, "flush", None)
        return Driver(self._registers, self._memory, pool, flush=flush)

    def reset(self) -> None:
        """Everything on."""
        self._driver = self.make()
        self._driver.start(interrupts="ir" in self._driver.capabilities.features)
        self._domains.clear()

    def attach(self, source_id: int, domain: int) -> None:
        """With a domain that is made when it is first named."""
        self._driver.attach(source_id, self._made(domain))

    def detach(self, source_id: int) -> None:
        """The context or PASID entry goes."""
        self._driver.detach(source_id)

    def map(self, domain: int, address: int, physical: int, length: int, access: int) -> None:
        """Pages, large ones too."""
        self._of(domain).map(address, physical, length, access)

    def unmap(self, domain: int, address: int, length: int) -> None:
        """Pages and what is cached of them."""
        self._of(domain).unmap(address, length)

    def protect(self, domain: int, address: int, length: int, access: int) -> None:
        """Rights and what is cached of them."""
        self._of(domain).protect(address, length, access)

    def interrupt_allocate(self, source_id: int, vector: int) -> int:
        """An entry for one requester."""
        verified = SourceValidationType.SOURCE_ID
        entry = RemappedIrte.of(p=True, v=vector, sid=source_id, svt=verified)
        return self._driver.interrupts.allocate(entry)

    def interrupt_free(self, index: int) -> None:
        """An entry is nobody's any more."""
        self._driver.interrupts.free(index)

    def attach_pasid(self, source_id: int, pasid: int, domain: int) -> None:
        """A PASID entry."""
        self._driver.attach(source_id, self._made(domain), pasid)

    def detach_pasid(self, source_id: int, pasid: int) -> None:
        """The PASID entry goes."""
        self._driver.detach(source_id, pasid)

    def set_dirty_tracking(self, domain: int, enabled: int) -> None:
        """SSADE."""
        self._of(domain).set_dirty_tracking(enabled=bool(enabled))

    def read_dirty(self, domain: int, address: int, length: int) -> list[int]:
        """D of each leaf; a large page counts as all of its pages."""
        found = self._of(domain).read_and_clear_dirty(address, length)
        return [page for start, size in found for page in range(start, start + size, 0x1000)]

    def _made(self, domain: int) -> Domain:
        if domain not in self._domains:
            self._domains[domain] = self._driver.domain(largest=21)
        return self._domains[domain]

    def _of(self, domain: int) -> Domain:
        if domain not in self._domains:
            raise DriverError(f"domain {domain}: never attached")
        return self._domains[domain]
