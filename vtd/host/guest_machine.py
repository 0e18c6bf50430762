"""A guest and its device on one machine: a processor, a unit, and tables that both of them walk.

The code is an example of how processor, unit, driver and device are put together.
"""

from __future__ import annotations

from devices.models.edu import Edu
from devices.topology import Topology
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.auditing.audit import Audit
from vtd.auditing.guest_audit import GuestAudit
from vtd.dmar.description import build
from vtd.guest.x86.guest import Guest
from vtd.host.virtual_processor import WRITE_BACK, VirtualPages, VirtualProcessor
from vtd.platform import Platform
from vtd.software.driver import Driver
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import Event

DMAR = """
[header]
flags = ["intr_remap"]
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
"""
VMXON, VMCS, APIC_PAGE, DESCRIPTOR = 0x1000, 0x2000, 0x3000, 0x4000
TABLES, TABLES_END = 0x10_0000, 0x20_0000
MEMORY, SIZE = 0x100_0000, 0x10_0000
"""Where the guest's memory is; guest and device see it from address 0 on."""
PAGE = 0x5000
"""The page that both use."""
VECTOR = 0x41


class GuestMachine:
    """The machine with everything set up, the guest running and its device assigned."""

    def __init__(self) -> None:
        self.memory = memory = PhysicalMemory()
        memory.add_region(0, 64 << 20)
        topology, self.device = Topology(), Edu()
        bdf = topology.add(self.device, topology.add_root_bus(), device=2)
        platform = Platform.build(memory, topology, build(DMAR), PROFILES["xeon"])
        unit = platform.unit_of(self.device)
        self.events: list[Event] = []
        unit.subscribe(self.events.append)
        self.audit = Audit(unit, lambda: "hypervisor")
        self.device.command.value = self.device.command.value.replace(bme=True)
        self.source_id = bdf.source_id

        # Software: one set of tables. The unit walks it as its second stage, the processor as EPT.
        self.driver = Driver(unit, memory, FramePool(TABLES, TABLES_END))
        self.driver.start(interrupts=True)
        self.domain = self.driver.domain(largest=12)
        self.driver.attach(self.source_id, self.domain)
        self.domain.map(0, MEMORY, SIZE, attributes=WRITE_BACK)
        self.leaf = self._leaf()

        # The processor, with posted interrupts, and its guest: unpaged, interrupts enabled.
        pages = VirtualPages(VMXON, VMCS, APIC_PAGE, DESCRIPTOR)
        self.virtual = VirtualProcessor(memory, pages, self.domain.root)
        self.processor = self.virtual.processor
        self.guest_audit = GuestAudit(self.processor)
        self.virtual.enter(posted=True)

    def _leaf(self) -> int:
        """Where the entry of the page is."""
        table = self.domain.root
        for shift in (39, 30, 21):
            entry = int.from_bytes(self.memory.read(table + (PAGE >> shift & 511) * 8, 8), "little")
            table = entry & 0xF_FFFF_FFFF_F000
        return table + (PAGE >> 12 & 511) * 8

    @property
    def guest(self) -> Guest:
        """The guest that runs."""
        return self.virtual.guest

    def invalidate_iotlb(self) -> None:
        """The driver has the unit drop the page."""
        owed = self.driver.guidance.second_stage(
            self.domain.users, [(PAGE, PAGE + 0x1000)], leaves_only=True
        )
        self.driver.invalidate(owed)

    def set_leaf(self, entry: int) -> None:
        """Software writes the entry of the page, and tells nobody."""
        self.memory.write(self.leaf, entry.to_bytes(8, "little"))
