"""Software that maintains tables and invalidates what it has to (VT-d 6.5.3.3, Tables 28 and 29).

It drives several units that share memory and differ in their caches, so that their answers can be
compared. Domains have one set of tables each; devices are attached to domains and detached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices import dma
from devices.dma import AtomicOp, Request
from pagetables.bits import BitRecord
from pagetables.build import BuildError, FramePool, TableBuilder
from pagetables.geometry import first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from tests.vtd.world import KINDS, LEGACY_MODES, Mode, capabilities
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    ContextGranularity,
    IotlbGranularity,
    IotlbInvalidateDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import (
    AddressWidth,
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import InvalidationQueueAddress, RootTableAddress, TranslationTableMode
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.reporting.events import Event, RequestBlocked
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

ROOT, CONTEXT, DIRECTORIES, PASID_TABLES, QUEUES = 0x1000, 0x2000, 0x10000, 0x20000, 0x30000
POOL = 0x10_0000
MEMORY = 0x80_0000
DEVICES = (0x0108, 0x0110)
PASID = 0x45


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


@dataclass
class Domain:
    """A domain-id and its tables."""

    number: int
    tables: TableBuilder
    """First-stage tables if there are any."""
    second: TableBuilder | None = None
    """Second-stage tables under first-stage ones."""


class Unit:
    """One unit under test and its invalidation queue."""

    def __init__(self, unit: RemappingUnit, memory: PhysicalMemory, queue: int) -> None:
        self.unit = unit
        self._memory = memory
        self._queue = queue
        self._tail = 0
        self.events: list[Event] = []
        unit.subscribe(self.events.append)
        self.ports = {device: UnitPort(unit, DATA, device) for device in DEVICES}

    def start(self, root: RootTableAddress) -> None:
        """Queue on, root table set, translation on."""
        self.wide = root.ttm is TranslationTableMode.SCALABLE
        address = InvalidationQueueAddress.of(iqa=self._queue, dw=self.wide)
        self.unit.write_register(0x90, 8, address)
        self.unit.write_register(0x20, 8, root)
        self.unit.write_register(0x18, 4, 1 << 30)
        self.unit.write_register(0x18, 4, 1 << 26)
        self.unit.write_register(0x18, 4, 1 << 31 | 1 << 26)

    def submit(self, descriptor: BitRecord) -> None:
        """Have one descriptor carried out."""
        size = 32 if self.wide else 16
        data = int(descriptor).to_bytes(size, "little")
        self._memory.write(self._queue + self._tail, data)
        self._tail = (self._tail + size) % 0x1000
        self.unit.write_register(0x88, 8, self._tail)
        assert self.unit.read_register(0x80, 8) == self._tail

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
        """Where the bytes of 4-byte request are, None if it is refused."""
        port, pasid = self.ports[request.source_id], request.pasid
        match request.access:
            case dma.READ:
                completion = port.read(request.address, 4, pasid=pasid)
            case dma.ATOMIC:
                nothing = bytes(4)
                completion = port.atomic(AtomicOp.FETCH_ADD, request.address, nothing, pasid=pasid)
            case _:
                written = port.write(request.address, MARK, pasid=pasid)
                return self._written(request) if written.ok else None
        return int.from_bytes(completion.data, "little") if completion.ok else None

    def _written(self, request: Request) -> int:
        """Where a write went: where the next one of its kind would go."""
        physical = self.unit.admit(request)
        assert isinstance(physical, int)
        assert DATA.read(physical, 4) == MARK
        DATA.write(physical, physical.to_bytes(4, "little"))
        return physical


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
        self.caching_mode = caching_mode
        self.flags = flags
        self.pasid = pasid
        self.memory = PhysicalMemory()
        self.memory.add_region(0, MEMORY)
        self.capabilities = capabilities(cm=caching_mode, mamv=20)
        self._pool = FramePool(POOL, MEMORY)
        self.domains = [self._domain(5), self._domain(6)]
        self.attached: dict[int, Domain | None] = dict.fromkeys(DEVICES)
        legacy = mode in LEGACY_MODES
        self.legacy = legacy
        ttm = TranslationTableMode.LEGACY if legacy else TranslationTableMode.SCALABLE
        self._build_structures()
        self.units = []
        for number, policy in enumerate(policies):
            options = Options(caches=policy)
            unit = RemappingUnit(self.capabilities, self.memory, options)
            self.units.append(Unit(unit, self.memory, QUEUES + number * 0x1000))
            self.units[-1].start(RootTableAddress.of(rta=ROOT, ttm=ttm))

    def _domain(self, number: int) -> Domain:
        implementation = self.capabilities.implementation
        second = TableBuilder(self.memory, second_stage_geometry(4, implementation), self._pool)
        if self.mode not in (Mode.FIRST, Mode.NESTED):
            return Domain(number, second)
        tables = TableBuilder(self.memory, first_stage_geometry(4, implementation), self._pool)
        if self.mode is Mode.FIRST:
            return Domain(number, tables)
        second.map(0, 0, 0x100_0000)
        return Domain(number, tables, second)

    def _build_structures(self) -> None:
        if self.legacy:
            self._store(ROOT + 16, RootEntry.of(p=True, ctp=CONTEXT))
            return
        self._store(ROOT + 16, ScalableRootEntry.of(lp=True, lctp=CONTEXT))
        for number, device in enumerate(DEVICES):
            directory, table = DIRECTORIES + number * 0x1000, PASID_TABLES + number * 0x1000
            context = ScalableContextEntry.of(p=True, paside=True, pasiddirptr=directory)
            self._store(CONTEXT + (device & 0x7F) * 32, context)
            for index in (0, PASID >> 6):
                entry = PasidDirectoryEntry.of(p=True, smptblptr=table)
                self._store(directory + index * 8, entry)

    def _store(self, address: int, record: BitRecord) -> None:
        self.memory.write(address, record.pack())

    def attach(self, device: int, domain: Domain | None) -> None:
        """Have a device use the tables of a domain, or none; with all invalidations for it."""
        old = self.attached[device]
        self.attached[device] = domain
        if self.legacy:
            self._store(CONTEXT + (device & 0xFF) * 16, self._context_entry(domain))
        else:
            pasid = 0 if self.pasid is None else self.pasid
            table = PASID_TABLES + DEVICES.index(device) * 0x1000
            self._store(table + (pasid & 63) * 64, self._pasid_entry(domain))
        if old is not None:
            self._invalidate_device(device, old.number)
        if self.caching_mode:
            self._invalidate_device(device, 0)

    def _context_entry(self, domain: Domain | None) -> ContextEntry:
        if domain is None:
            return ContextEntry(0)
        return ContextEntry.of(
            p=True, aw=AddressWidth.AGAW_48, did=domain.number, ssptptr=domain.tables.root << 12
        )

    def _pasid_entry(self, domain: Domain | None) -> PasidEntry:
        if domain is None:
            return PasidEntry(0)
        entry = PasidEntry.of(p=True, pgtt=KINDS[self.mode], did=domain.number, pwsnp=True)
        second = domain.second
        if self.mode is Mode.SECOND:
            second = domain.tables
        if second is not None:
            entry = entry.replace(
                aw=AddressWidth.AGAW_48, ssptptr=second.root << 12, ssade=self.flags
            )
        if self.mode in (Mode.FIRST, Mode.NESTED):
            entry = entry.replace(fsptptr=domain.tables.root << 12)
        return entry

    def _invalidate_device(self, device: int, domain_id: int) -> None:
        if self.legacy:
            self.submit(
                ContextCacheInvalidateDescriptor.of(
                    g=ContextGranularity.DEVICE,
                    sid=device,
                    did=domain_id,
                )
            )
        else:
            self.submit(
                PasidCacheInvalidateDescriptor.of(
                    g=PasidCacheGranularity.PASID_IN_DOMAIN,
                    pasid=self.pasid or 0,
                    did=domain_id,
                )
            )
        if self.mode is Mode.FIRST:
            self.submit(self._pasid_iotlb(domain_id))
        else:
            self.submit(IotlbInvalidateDescriptor.of(g=IotlbGranularity.DOMAIN, did=domain_id))

    def _pasid_iotlb(self, domain_id: int, **fields: int) -> PasidIotlbInvalidateDescriptor:
        return PasidIotlbInvalidateDescriptor.of(
            **{
                "g": PasidIotlbGranularity.PASID,
                "did": domain_id,
                "pasid": self.pasid or 0,
                **fields,
            }
        )

    def submit(self, descriptor: BitRecord) -> None:
        """Have every unit carry out a descriptor."""
        for unit in self.units:
            unit.submit(descriptor)

    def map(self, domain: Domain, start: int, physical: int, length: int, rights: str) -> None:
        """Map a range, unless part of it is mapped."""
        if self.mode in (Mode.FIRST, Mode.NESTED):
            rights = "rw" if rights == "-w" else rights
        try:
            domain.tables.map(start, physical, length, rights)
        except BuildError:
            return
        if self.caching_mode and self.mode in (Mode.LEGACY, Mode.SECOND):
            self.invalidate_range(domain, start, length)

    def unmap(self, domain: Domain, start: int, length: int) -> None:
        """Unmap a range."""
        domain.tables.unmap(start, length)
        self.invalidate_range(domain, start, length)

    def protect(self, domain: Domain, start: int, length: int, rights: str) -> None:
        """Change the rights of a range."""
        if self.mode in (Mode.FIRST, Mode.NESTED):
            rights = "rw" if rights == "-w" else rights
        domain.tables.protect(start, length, rights)
        self.invalidate_range(domain, start, length)

    def protect_guest(self, domain: Domain, start: int, length: int, rights: str) -> None:
        """Change second-stage rights under a first stage."""
        assert domain.second is not None
        domain.second.protect(start, length, rights)
        self._invalidate_second(domain.number, start, length)

    def invalidate_range(self, domain: Domain, start: int, length: int) -> None:
        """Invalidate what may be cached of a range of input addresses."""
        if self.mode in (Mode.FIRST, Mode.NESTED):
            for address, mask in aligned_ranges(start, length):
                page = PasidIotlbGranularity.PAGE_IN_PASID
                self.submit(self._pasid_iotlb(domain.number, g=page, addr=address, am=mask))
        else:
            self._invalidate_second(domain.number, start, length)

    def _invalidate_second(self, domain_id: int, start: int, length: int) -> None:
        for address, mask in aligned_ranges(start, length):
            self.submit(
                IotlbInvalidateDescriptor.of(
                    g=IotlbGranularity.PAGE_IN_DOMAIN,
                    did=domain_id,
                    addr=address,
                    am=mask,
                )
            )

    def outcomes(
        self, device: int, address: int, access: int, length: int
    ) -> list[int | FaultReason]:
        """What each unit makes of the same request."""
        request = Request(device, address, access, length, self.pasid)
        return [unit.try_request(request) for unit in self.units]


def aligned_ranges(start: int, length: int) -> list[tuple[int, int]]:
    """Naturally aligned ranges that cover ``start`` to ``start + length``: address and AM."""
    ranges = []
    end = start + length
    while start < end:
        mask = 0
        while not start & (0x2000 << mask) - 1 and start + (0x2000 << mask) <= end:
            mask += 1
        ranges.append((start, mask))
        start += 0x1000 << mask
    return ranges
