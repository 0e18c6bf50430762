"""A device touches memory that nobody mapped, asks for the pages, and finishes its transfer.

The device shares an address space by PASID and has a device-TLB. Its write finds no translation;
its page requests reach the queue of the remapping unit; software maps the pages and responds; the
device translates again and writes to the addresses it is given.
"""

from devices.capabilities import ExtendedCapabilityId
from devices.models.dma_engine import DmaEngine, Via, Write
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.software.domain import FIRST_STAGE
from vtd.software.driver import Driver
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting import events
from vtd.unit.reporting.event_interrupt import Message
from vtd.unit.unit import RemappingUnit

SOURCE_ID, PASID = 0x0108, 5
TABLES, PAGES, END = 0x10_0000, 0x20_0000, 0x40_0000
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
    memory.add_region(0, END)
    unit = RemappingUnit(PROFILES["xeon"], memory)
    unit.subscribe(show)
    driver = Driver(unit, memory, FramePool(TABLES, PAGES))
    driver.start()
    process = driver.domain(FIRST_STAGE)
    driver.attach(SOURCE_ID, process, PASID, ats=True, page_requests=True)
    free = iter(range(PAGES, END, 0x1000))

    def map_page(request: PageRequestDescriptor) -> bool:
        page = next(free)
        process.map(request.addr, page, 0x1000)
        print(f"software  maps {request.addr:#x} to {page:#x}")
        return True

    handler = driver.serve_page_requests(map_page, Message(0xFEE0_0000, 0x41))

    def deliver(event: events.Event) -> None:
        if isinstance(event, events.MessageSent):
            handler.interrupt(event.message)

    unit.subscribe(deliver)
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
        engine.config.write(at + offset, 4 if offset == 0xC else 2, value)
    engine.config.write(4, 2, 6)  # memory space and bus mastering

    print(f"device    wants to write {len(TEXT)} bytes at {ADDRESS:#x}, PASID {PASID}")
    engine.submit(Write(ADDRESS, TEXT, PASID, via=Via.DEVICE_TLB))
    (outcome,) = engine.run()
    print(f"device    done: {outcome.completion.status.name}")
    print(f"memory    {memory.read(PAGES + 0xFF8, 8)!r} and {memory.read(PAGES + 0x1000, 8)!r}")


if __name__ == "__main__":
    main()
