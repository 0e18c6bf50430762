"""A device touches memory that nobody mapped, asks for the pages, and finishes its transfer.

The device shares an address space by PASID and has a device-TLB. Its write finds no translation;
its page requests reach the queue of the remapping unit; software maps the pages and responds; the
device translates again and writes to the addresses it is given.
"""

from devices.capabilities import ExtendedCapabilityId
from devices.models.dma_engine import DmaEngine, Via, Write
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import first_stage_geometry
from pagetables.memory import PhysicalMemory
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.layouts.entries import (
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import GlobalCommand, RootTableAddress, TranslationTableMode
from vtd.software.page_request_handler import PageRequestHandler
from vtd.software.queue_driver import QueueDriver
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting import events
from vtd.unit.reporting.event_interrupt import Message
from vtd.unit.unit import RemappingUnit

SOURCE_ID, PASID, DOMAIN = 0x0108, 5, 1
ROOT, CONTEXT, DIRECTORY, PASID_TABLE, QUEUE, REQUESTS, STATUS = range(0x1000, 0x8000, 0x1000)
TABLES, PAGES = 0x10_0000, 0x20_0000
ADDRESS, TEXT = 0x7F12_3456_7FF8, b"across two pages"


def show(event: events.Event) -> None:
    """One line for what happened between the device, the unit and software."""
    match event:
        case events.TranslationGiven(address=address, entry=entry) if entry.r or entry.w:
            print(f"unit      {address:#x} is at {entry.address:#x}, {entry.size} bytes")
        case events.TranslationGiven(address=address):
            print(f"unit      {address:#x} has no translation")
        case events.PageRequestReceived(request=request):
            last = ", last of its group" if request.last else ""
            print(f"device    asks for {request.address:#x}{last}")
        case events.MessageSent(message=message):
            print(f"unit      page request event: {message.data:#x} to {message.address:#x}")
        case events.PageGroupResponseSent(response=response):
            print(f"software  responds to group {response.group_index}: code {response.code}")
        case events.TranslatedRequestPassed(request=passed):
            print(f"device    writes {passed.length} bytes at translated {passed.address:#x}")


def main() -> None:
    """Set up one unit, one device and its driver; do one write."""
    memory = PhysicalMemory()
    memory.add_region(0, 0x40_0000)
    unit = RemappingUnit(PROFILES["xeon"], memory)
    unit.subscribe(show)
    geometry = first_stage_geometry(4, unit.capabilities.implementation)
    tables = TableBuilder(memory, geometry, FramePool(TABLES, PAGES))

    root = ScalableRootEntry.of(lp=True, lctp=CONTEXT)
    context = ScalableContextEntry.of(
        p=True, dte=True, paside=True, pre=True, pasiddirptr=DIRECTORY
    )
    entry = PasidEntry.of(
        p=True,
        pgtt=PasidTranslationType.FIRST_STAGE,
        did=DOMAIN,
        pwsnp=True,
        fsptptr=tables.root << 12,
    )
    memory.write(ROOT + (SOURCE_ID >> 8) * 16, root.pack())
    memory.write(CONTEXT + (SOURCE_ID & 0x7F) * 32, context.pack())
    memory.write(DIRECTORY, PasidDirectoryEntry.of(p=True, smptblptr=PASID_TABLE).pack())
    memory.write(PASID_TABLE + PASID * 64, entry.pack())

    unit.write_register(0x20, 8, RootTableAddress.of(rta=ROOT, ttm=TranslationTableMode.SCALABLE))
    unit.write_register(0x18, 4, GlobalCommand.of(srtp=True))
    queue = QueueDriver(unit, memory, QUEUE, STATUS)
    queue.enable()
    unit.write_register(0x18, 4, GlobalCommand.of(te=True, qie=True))

    free = iter(range(PAGES, 0x40_0000, 0x1000))

    def map_page(request: PageRequestDescriptor) -> bool:
        page = next(free)
        tables.map(request.addr, page, 0x1000, "rw", user=True)
        print(f"software  maps {request.addr:#x} to {page:#x}")
        return True

    handler = PageRequestHandler(
        unit, memory, REQUESTS, queue, map_page, Message(0xFEE0_0000, 0x41)
    )
    handler.enable()

    engine = DmaEngine()
    engine.connect(UnitPort(unit, memory, SOURCE_ID))
    unit.attach(SOURCE_ID, engine.ats)
    for capability, offset, value in (
        (ExtendedCapabilityId.PASID, 6, 1),
        (ExtendedCapabilityId.PRI, 0xC, 8),  # pages it may ask for at a time
        (ExtendedCapabilityId.PRI, 4, 1),
        (ExtendedCapabilityId.ATS, 6, 0x8000),
    ):
        at = engine.config.find_extended_capability(capability)
        assert at is not None
        engine.config.write(at + offset, value, 4 if offset == 0xC else 2)
    engine.config.write(4, 6, 2)  # memory space and bus mastering

    print(f"device    wants to write {len(TEXT)} bytes at {ADDRESS:#x}, PASID {PASID}")
    engine.submit(Write(ADDRESS, TEXT, PASID, via=Via.DEVICE_TLB))
    (outcome,) = engine.run()
    print(f"device    done: {outcome.completion.status.name}")
    print(f"memory    {memory.read(PAGES + 0xFF8, 8)!r} and {memory.read(PAGES + 0x1000, 8)!r}")


if __name__ == "__main__":
    main()
