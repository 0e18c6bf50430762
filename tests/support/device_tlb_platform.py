"""A platform for the device side: scalable mode, first stage, an engine with a device-TLB.

Pages are taken away by software that keeps to the rules, or does not: see :meth:`Platform.unmap`.
"""

from __future__ import annotations

from devices.ats import Misbehaviour
from devices.capabilities import ExtendedCapabilityId
from devices.device_tlb import DeviceTlb
from devices.models.dma_engine import CommandOutcome, DmaEngine, Read, Via, Write
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.auditing.device_tlb_audit import DeviceTlbAudit
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.software.domain import FIRST_STAGE
from vtd.software.driver import Driver
from vtd.software.page_request_handler import PageRequestHandler
from vtd.unit.interrupts.outcome import Message
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import Event, MessageSent
from vtd.unit.unit import RemappingUnit

SOURCE_ID, PASID = 0x0108, 0x45
REQUESTS, TABLES, PAGES, END = 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000
EVENT = Message(0xFEE0_1000, 0x51)
POISON, UNUSED = b"\xee" * 64, bytes(64)


class Platform:
    """One unit, memory, an engine at SOURCE_ID that uses PASID, and its driver."""

    def __init__(
        self,
        unit: Capabilities | None = None,
        misbehaviour: Misbehaviour = Misbehaviour.NONE,
        options: Options | None = None,
        request_pages: int = 1,
        tlb: DeviceTlb | None = None,
    ) -> None:
        unit = unit or capabilities()
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        self.unit = RemappingUnit(unit, self.memory, options)
        self.events: list[Event] = []
        self.unit.subscribe(self.events.append)
        self.audit = DeviceTlbAudit(self.unit)
        self.driver = Driver(self.unit, self.memory, FramePool(TABLES, PAGES))
        self.structures = self.driver.structures
        self.domain = self.driver.domain(FIRST_STAGE)
        self.tables = self.domain.tables
        self.free = list(range(END - 0x1000, PAGES, -0x1000))
        """Pages that nobody uses, the next to be given out last."""
        self.mapped: dict[int, int] = {}
        self.limit = 1 << 40
        """Page requests for addresses from here on are refused."""
        self.port = UnitPort(self.unit, self.memory, SOURCE_ID)
        self.engine = DmaEngine(tlb=tlb, misbehaviour=misbehaviour)
        assert self.driver.queue is not None
        self.queue = self.driver.queue
        self.handler = PageRequestHandler(
            self.unit, self.memory, REQUESTS, self.queue, self.resolve, EVENT, pages=request_pages
        )
        self._start()

    def _start(self) -> None:
        self.driver.start()
        self.driver.attach(SOURCE_ID, self.domain, PASID, ats=True, page_requests=True)
        self.handler.enable()
        self.unit.subscribe(self._deliver)
        self.engine.connect(self.port)
        self.unit.attach(SOURCE_ID, self.engine.ats)
        self.control(ExtendedCapabilityId.PASID, 6, 1)
        self.control(ExtendedCapabilityId.PRI, 0xC, 16)
        self.control(ExtendedCapabilityId.PRI, 4, 1)
        self.control(ExtendedCapabilityId.ATS, 6, 0x8000)
        self.engine.config.write(4, 2, 6)

    def _deliver(self, event: Event) -> None:
        """The processor takes the interrupts of the unit."""
        if isinstance(event, MessageSent):
            self.handler.interrupt(event.message)

    def control(self, capability: ExtendedCapabilityId, offset: int, value: int) -> None:
        """Software writes a register of a capability of the engine."""
        at = self.engine.config.find_extended_capability(capability)
        assert at is not None
        self.engine.config.write(at + offset, 4 if offset == 0xC else 2, value)

    def map(self, address: int, rights: str = "rw") -> None:
        """Give a page to the PASID; nothing has to be invalidated (6.5.3.5)."""
        page = self.mapped[address] = self.free.pop()
        self.tables.map(address, page, 0x1000, rights, user=True)

    def resolve(self, request: PageRequestDescriptor) -> bool:
        """What the page request handler does: map the page, unless it is out of bounds."""
        if request.addr >= self.limit:
            return False
        if request.addr not in self.mapped:
            self.map(request.addr)
        return True

    def unmap(self, address: int, *, invalidates: bool = True) -> bool:
        """Take a page away; whether it is free afterwards, and poisoned."""
        self.tables.unmap(address, 0x1000)
        if invalidates:
            self.invalidate(address)
            if not self.queue.wait(drain_page_requests=True):
                return False
        self.release(address)
        return True

    def invalidate(self, address: int) -> None:
        """IOTLB first, then the device-TLB (6.5.3.3)."""
        owed = self.driver.guidance.first_stage(
            self.domain.users, [(address, address + 0x1000)], leaves_only=False
        )
        self.queue.submit(*(each.descriptor for each in owed))

    def release(self, address: int) -> None:
        """The page of an address belongs to somebody else from now on."""
        page = self.mapped.pop(address)
        self.memory.write(page, POISON)
        self.free.insert(0, page)

    def intact(self) -> bool:
        """Whether nobody wrote to the pages that were taken away."""
        return all(self.memory.read(page, len(POISON)) in (POISON, UNUSED) for page in self.free)

    def write(self, address: int, data: bytes) -> bool:
        """The engine writes through its device-TLB, asking for pages it lacks."""
        return self._run(Write(address, data, PASID, via=Via.DEVICE_TLB)).completion.ok

    def read(self, address: int, length: int) -> bytes | None:
        """The engine reads through its device-TLB; None if it can't."""
        completion = self._run(Read(address, length, PASID, via=Via.DEVICE_TLB)).completion
        return getattr(completion, "data", None) if completion.ok else None

    def _run(self, command: Read | Write) -> CommandOutcome:
        self.engine.submit(command)
        (outcome,) = self.engine.run()
        return outcome
