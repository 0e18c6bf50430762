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
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES
from vtd.guest.x86.controls import (
    EntryControls,
    ExitControls,
    PinControls,
    PrimaryControls,
    SecondaryControls,
)
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.outcomes import VmResult
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import pack
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor
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
WRITE_BACK = 6 << 3
NOTIFICATION, VECTOR = 0xF2, 0x41


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
        self.audit = Audit(unit)
        self.device.command.value = self.device.command.value.replace(bme=True)
        self.source_id = bdf.source_id

        # Software: one set of tables. The unit walks it as its second stage, the processor as EPT.
        self.driver = Driver(unit, memory, FramePool(TABLES, TABLES_END))
        self.driver.start(interrupts=True)
        self.domain = self.driver.domain(largest=12)
        self.driver.attach(self.source_id, self.domain)
        self.domain.map(0, MEMORY, SIZE, attributes=WRITE_BACK)
        self.eptp = self.domain.root | 0x1E
        self.leaf = self._leaf()

        # The processor, with posted interrupts, and its guest: unpaged, interrupts enabled.
        self.processor = LogicalProcessor(VMX_PROFILES["broadwell-posted"], memory)
        self.guest_audit = GuestAudit(self.processor)
        memory.write(DESCRIPTOR, PostedInterruptDescriptor.of(nv=NOTIFICATION).pack())
        memory.write(VMXON, REVISION.to_bytes(4, "little"))
        self.processor.vmxon(VMXON)
        self.enter(posted=True)

    def _leaf(self) -> int:
        """Where the entry of the page is."""
        table = self.domain.root
        for shift in (39, 30, 21):
            entry = int.from_bytes(self.memory.read(table + (PAGE >> shift & 511) * 8, 8), "little")
            table = entry & 0xF_FFFF_FFFF_F000
        return table + (PAGE >> 12 & 511) * 8

    def enter(self, *, posted: bool) -> None:
        """A guest from the beginning, with posted interrupts or without."""
        state = base_state(self.processor.capabilities)
        pin = PinControls(state.pin_controls).replace(
            posted_interrupts=posted, external_interrupt_exiting=True
        )
        values = {
            "pin_controls": pin,
            "primary_controls": PrimaryControls(state.primary_controls).replace(
                secondary_controls=True, tpr_shadow=True
            ),
            "secondary_controls": SecondaryControls.of(
                ept=True, vpid=True, unrestricted_guest=True, virtual_interrupt_delivery=True
            ),
            "exit_controls": ExitControls(state.exit_controls).replace(acknowledge_interrupt=True),
            "entry_controls": EntryControls(state.entry_controls).replace(ia32e_mode_guest=False),
            "guest_cr0": 0x31,
            "guest_efer": 0,
            "guest_cs_access_rights": 0xC09B,
            "guest_rflags": 0x202,
            "eptp": self.eptp,
            "virtual_apic_address": APIC_PAGE,
            "posted_interrupt_vector": NOTIFICATION,
            "posted_interrupt_descriptor_address": DESCRIPTOR,
        }
        region = pack(state.replace({name: int(value) for name, value in values.items()}))
        self.memory.write(VMCS, region)
        self.processor.vmclear(VMCS)
        self.processor.vmptrld(VMCS)
        self.processor.vmlaunch()

    @property
    def guest(self) -> Guest:
        """The guest that runs, entered again if it exited."""
        if self.processor.guest is None:
            self.processor.vmresume()
        assert self.processor.guest is not None  # its state is one that enters
        return self.processor.guest

    def invept(self) -> bool:
        """The hypervisor takes control and executes INVEPT; whether it succeeds."""
        self.guest.cpuid()
        result = self.processor.invept(1, self.eptp)
        return isinstance(result, VmResult) and result.ok

    def invalidate_iotlb(self) -> None:
        """The driver has the unit drop the page."""
        owed = self.driver.guidance.second_stage(
            self.domain.users, [(PAGE, PAGE + 0x1000)], leaves_only=True
        )
        self.driver.invalidate(owed)

    def set_leaf(self, entry: int) -> None:
        """Software writes the entry of the page, and tells nobody."""
        self.memory.write(self.leaf, entry.to_bytes(8, "little"))
        self.audit.wrote(self.leaf, 8, "hypervisor")
