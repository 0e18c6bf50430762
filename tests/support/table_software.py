"""The driver on several units at once, which share memory and differ in their caches.

What they answer can then be compared. Domains have one set of tables each; devices are attached to
domains and detached.
"""

from __future__ import annotations

from collections.abc import Sequence

from devices import dma
from devices.dma import READ, WRITE, AtomicOp, Request
from pagetables.bits import BitRecord
from pagetables.build import BuildError, FramePool
from pagetables.memory import PhysicalMemory
from tests.support.world import KINDS, LEGACY_MODES, Mode, capabilities
from vtd.layouts.entries import PasidTranslationType
from vtd.software.domain import Domain
from vtd.software.driver import Driver
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.reporting.events import Event, RequestBlocked
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

TABLES, GUEST_TABLES, MEMORY = 0x1000, 0x40_0000, 0x80_0000
DEVICES = (0x0108, 0x0110)
PASID = 0x45
ACCESS = {"rw": READ | WRITE, "r-": READ, "-w": WRITE}
OFFSET = 0x800
"""Of the bytes in a page that are reached through ports."""
MARK = b"mark"


def _pages_that_name_themselves() -> PhysicalMemory:
    memory = PhysicalMemory()
    memory.add_region(MEMORY, 0x40_0000)
    for address in range(MEMORY + OFFSET, MEMORY + 0x40_0000, 0x1000):
        memory.write(address, address.to_bytes(4, "little"))
    return memory


DATA = _pages_that_name_themselves()
"""What devices reach: at :data:`OFFSET` of each page is its own address."""


class Unit:
    """One unit under test."""

    def __init__(self, unit: RemappingUnit) -> None:
        self.unit = unit
        self.events: list[Event] = []
        unit.subscribe(self.events.append)
        self.ports = {device: UnitPort(unit, DATA, device) for device in DEVICES}

    def try_request(self, request: Request) -> int | FaultReason:
        """Where the request leads, or why it is refused; every other try goes through a port."""
        self.events.clear()
        if request.length and request.address & 0xFFF == OFFSET:
            got = self._through_port(request)
        else:
            admitted = self.unit.admit(request)
            got = admitted if isinstance(admitted, int) else None
        if got is not None:
            return got
        (event,) = self.events
        assert isinstance(event, RequestBlocked)
        return event.reason

    def _through_port(self, request: Request) -> int | None:
        """Where the bytes of a 4-byte request are, None if it is refused."""
        port, pasid = self.ports[request.source_id], request.pasid
        match request.access:
            case dma.READ:
                completion = port.read(request.address, 4, pasid=pasid)
            case dma.ATOMIC:
                nothing = bytes(4)
                completion = port.atomic(AtomicOp.FETCH_ADD, request.address, nothing, pasid=pasid)
            case _:
                completion = port.write(request.address, MARK, pasid=pasid)
                return self._written(request) if completion.ok else None
        return int.from_bytes(completion.data, "little") if completion.ok else None

    def _written(self, request: Request) -> int:
        """Where a write went: where the next one of its kind would go."""
        physical = self.unit.admit(request)
        assert isinstance(physical, int)
        assert DATA.read(physical, 4) == MARK
        DATA.write(physical, physical.to_bytes(4, "little"))
        return physical


class Together:
    """The registers of units that are programmed alike, and so read alike."""

    def __init__(self, units: Sequence[RemappingUnit]) -> None:
        self._units = units

    def read_register(self, offset: int, size: int) -> int:
        """What every unit reads as."""
        (value,) = {unit.read_register(offset, size) for unit in self._units}
        return value

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Write to every unit."""
        for unit in self._units:
            unit.write_register(offset, size, value)


class Software:
    """Two domains, two devices, and units with each of the cache policies."""

    def __init__(
        self,
        mode: Mode,
        policies: Sequence[CachePolicy],
        *,
        caching_mode: bool = False,
        flags: bool = False,
        pasid: int | None = None,
    ) -> None:
        self.mode = mode
        self.pasid = pasid
        self.memory = PhysicalMemory()
        self.memory.add_region(0, MEMORY)
        has = capabilities(cm=caching_mode, mamv=20)
        units = [RemappingUnit(has, self.memory, Options(caches=policy)) for policy in policies]
        self.units = [Unit(unit) for unit in units]
        self.driver = Driver(
            Together(units),
            self.memory,
            FramePool(TABLES, GUEST_TABLES),
            scalable=mode not in LEGACY_MODES,
            host_address_width=has.host_address_width,
        )
        self.driver.start()
        self._guest_frames = FramePool(GUEST_TABLES, MEMORY)
        self.domains = [self._domain(flags=flags), self._domain(flags=flags)]
        self.attached: dict[int, Domain | None] = dict.fromkeys(DEVICES)

    def _domain(self, *, flags: bool) -> Domain:
        if self.mode is Mode.FIRST:
            return self.driver.domain(PasidTranslationType.FIRST_STAGE)
        second = self.driver.domain(PasidTranslationType.SECOND_STAGE)
        if flags and self.mode not in LEGACY_MODES:
            second.set_dirty_tracking(enabled=True)
        if self.mode is not Mode.NESTED:
            return second
        second.map(0, 0, 0x100_0000)
        return self.driver.domain(KINDS[self.mode], second=second, guest_frames=self._guest_frames)

    def attach(self, device: int, domain: Domain | None) -> None:
        """Have a device use the tables of a domain, or none."""
        if self.attached[device] is not None:
            self.driver.detach(device, self.pasid)
        self.attached[device] = domain
        if domain is not None:
            self.driver.attach(device, domain, self.pasid)

    def submit(self, descriptor: BitRecord) -> None:
        """Have every unit carry out a descriptor."""
        assert self.driver.queue is not None
        self.driver.queue.submit(descriptor)
        assert self.driver.queue.wait()

    def map(self, domain: Domain, start: int, physical: int, length: int, rights: str) -> None:
        """Map a range, unless part of it is mapped."""
        try:
            domain.map(start, physical, length, self._access(rights))
        except BuildError:
            return

    def unmap(self, domain: Domain, start: int, length: int) -> None:
        """Unmap a range."""
        domain.unmap(start, length)

    def protect(self, domain: Domain, start: int, length: int, rights: str) -> None:
        """Change the rights of a range."""
        domain.protect(start, length, self._access(rights))

    def protect_guest(self, domain: Domain, start: int, length: int, rights: str) -> None:
        """Change second-stage rights under a first stage."""
        assert domain.second is not None
        domain.second.protect(start, length, ACCESS[rights])

    def _access(self, rights: str) -> int:
        first = self.mode in (Mode.FIRST, Mode.NESTED)
        return READ | WRITE if first and rights == "-w" else ACCESS[rights]

    def invalidate_range(self, domain: Domain, start: int, length: int) -> None:
        """Invalidate what may be cached of a range of second-stage addresses."""
        ranges = [(start, start + length)]
        guidance = self.driver.guidance
        self.driver.invalidate(guidance.second_stage(domain.users, ranges, leaves_only=False))

    def outcomes(
        self, device: int, address: int, access: int, length: int
    ) -> list[int | FaultReason]:
        """What each unit makes of the same request."""
        request = Request(device, address, access, length, self.pasid)
        return [unit.try_request(request) for unit in self.units]
