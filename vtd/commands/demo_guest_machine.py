"""A guest and its device on one machine: a processor, a unit, and tables that both of them walk.

What hypervisor, guest, device and hardware do, in that order, with what came of it as values. The
``demo guest`` command shows it; the code is an example of how the parts are put together.
"""

from __future__ import annotations

from devices.dma import READ
from devices.interrupt_programming import remappable_message
from devices.models.edu import Edu
from devices.topology import Topology
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.auditing.audit import Audit
from vtd.auditing.guest_audit import GuestAudit
from vtd.commands.demo_scene import DemoStep, Scene
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
from vtd.guest.x86.exits import VmExit
from vtd.guest.x86.fields import BY_NAME
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.outcomes import Delivered, VmResult
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import pack
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor, PostedIrte, RemappedIrte
from vtd.platform import Platform
from vtd.rows import Hex
from vtd.software.driver import Driver
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import Event, InterruptDelivered, RequestBlocked

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

    # Who does what

    def guest_stores(self, text: bytes) -> DemoStep:
        """The guest writes to the page."""
        before = len(self.guest_audit.findings)
        outcome = self.guest.store(PAGE, text)
        done = str(outcome) if isinstance(outcome, VmExit) else "done"
        findings = self.guest_audit.findings[before:]
        return DemoStep(
            "guest", f"stores {text.decode()!r} at {PAGE:#x}", done,
            str(findings[0]) if findings else None,
        )  # fmt: skip

    def guest_loads(self, length: int) -> DemoStep:
        """The guest reads from the page."""
        found = self.guest.load(PAGE, length)
        return DemoStep("guest", f"loads {length} bytes at {PAGE:#x}", _text(found))

    def device_writes(self, text: bytes) -> DemoStep:
        """The device writes to the page."""
        before, blocked = len(self.audit.findings), len(self.events)
        self.device.dma.write(PAGE, text)
        findings = self.audit.findings[before:]
        return DemoStep(
            "device", f"writes {text.decode()!r} to {PAGE:#x}", self._blocked(blocked) or "done",
            str(findings[0]) if findings else None,
        )  # fmt: skip

    def device_reads(self, length: int) -> DemoStep:
        """The device reads from the page."""
        completion = self.device.dma.read(PAGE, length)
        return DemoStep("device", f"reads {length} bytes at {PAGE:#x}", _text(completion.data))

    def _blocked(self, since: int) -> str | None:
        for event in self.events[since:]:
            if isinstance(event, RequestBlocked):
                return f"fault {int(event.reason):02X}h, {event.reason.text}"
        return None

    def take_writing_away(self, *, with_iotlb: bool) -> DemoStep:
        """Software makes the page read-only in the tables, and tells the unit, or forgets to."""
        if with_iotlb:
            self.domain.protect(PAGE, 0x1000, READ)
            told = "IOTLB invalidated"
        else:
            entry = int.from_bytes(self.memory.read(self.leaf, 8), "little") & ~2
            self.memory.write(self.leaf, entry.to_bytes(8, "little"))
            self.audit.wrote(self.leaf, 8, "demo")
            told = "the IOTLB is forgotten"
        return DemoStep("software", f"clears W of the entry at {self.leaf:#x}", told)

    def give_writing_back(self) -> None:
        """Software makes the page writable again, everything invalidated."""
        entry = int.from_bytes(self.memory.read(self.leaf, 8), "little") | 2
        self.memory.write(self.leaf, entry.to_bytes(8, "little"))
        self.invalidate_iotlb()
        self.invept()

    def invept(self) -> DemoStep:
        """The hypervisor takes control and executes INVEPT."""
        self.guest.cpuid()
        result = self.processor.invept(1, self.eptp)
        done = isinstance(result, VmResult) and result.ok
        return DemoStep("software", f"INVEPT, EPTP {self.eptp:#x}", "done" if done else "failed")

    def invalidate_iotlb(self) -> DemoStep:
        """The driver has the unit drop the page."""
        owed = self.driver.guidance.second_stage(
            self.domain.users, [(PAGE, PAGE + 0x1000)], leaves_only=True
        )
        self.driver.invalidate(owed)
        return DemoStep("software", "invalidates the IOTLB", "done")


def _text(found: object) -> str:
    return repr(found.decode("ascii", "replace")) if isinstance(found, bytes) else str(found)


def shared_page(machine: GuestMachine) -> Scene:
    """The same bytes by the same entry."""
    return Scene(
        "One page, one entry: the processor walks it as EPT, the unit as its second stage",
        (
            machine.guest_stores(b"from the guest"),
            machine.device_reads(14),
            machine.device_writes(b"from a device!"),
            machine.guest_loads(14),
        ),
        {"entry": Hex(int.from_bytes(machine.memory.read(machine.leaf, 8), "little"))},
    )


def without_invept(machine: GuestMachine) -> Scene:
    """The processor goes on with what it cached."""
    return Scene(
        "INVEPT left out: the device is stopped, the guest is not",
        (
            machine.take_writing_away(with_iotlb=True),
            machine.device_writes(b"device is late"),
            machine.guest_stores(b"guest is in!! "),
            machine.invept(),
            machine.guest_stores(b"guest is late "),
        ),
    )


def without_iotlb_invalidation(machine: GuestMachine) -> Scene:
    """The unit goes on with what it cached."""
    machine.give_writing_back()
    machine.device_writes(b"cached by IOTLB")
    return Scene(
        "The IOTLB invalidation left out: the guest is stopped, the device is not",
        (
            machine.take_writing_away(with_iotlb=False),
            machine.invept(),
            machine.guest_stores(b"guest is late "),
            machine.device_writes(b"device is in! "),
            machine.invalidate_iotlb(),
            machine.device_writes(b"device is late"),
        ),
    )


def posted_interrupt(machine: GuestMachine) -> Scene:
    """A posted MSI needs no exit; one that is only remapped does."""
    interrupts = machine.driver.interrupts
    machine.guest_loads(1)
    entry = PostedIrte.of(p=True, im=True, vv=VECTOR, pdal=DESCRIPTOR, sid=machine.source_id, svt=1)
    index = interrupts.allocate(entry)
    steps = [*_message(machine, index)]
    delivered = machine.guest.boundary()
    outcome = f"vector {delivered.vector:#x}, no exit" if isinstance(delivered, Delivered) else "-"
    steps.append(DemoStep("guest", "takes the virtual interrupt", outcome))
    interrupts.change(index, RemappedIrte.of(p=True, v=VECTOR, sid=machine.source_id, svt=1))
    machine.guest.cpuid()
    machine.enter(posted=False)
    steps += _message(machine, index)
    information = machine.processor.vmread(BY_NAME["exit_interruption_info"].encoding)
    assert isinstance(information, VmResult) and information.value is not None
    return Scene(
        "An MSI posted needs no exit; one that is only remapped is exit 1",
        tuple(steps),
        {"exit_interruption_info": Hex(information.value)},
    )


def _message(machine: GuestMachine, index: int) -> list[DemoStep]:
    """The device signals; the interrupt, or the notification, reaches the processor."""
    since = len(machine.events)
    guest = machine.guest
    machine.device.send_message(*remappable_message(index))
    (event,) = (each for each in machine.events[since:] if isinstance(each, InterruptDelivered))
    match event.outcome:
        case Posted(notification=Interrupt() as interrupt):
            told = (
                f"posted in the descriptor at {DESCRIPTOR:#x}, notification {interrupt.vector:#x}"
            )
        case Interrupt() as interrupt:
            told = f"remapped to vector {interrupt.vector:#x}"
        case _:
            return [DemoStep("unit", "handles the MSI", "posted, nobody is notified")]
    reached = guest.interrupt(interrupt.vector)
    outcome = (
        str(reached) if isinstance(reached, VmExit) else "no exit: PIR goes to the virtual APIC"
    )
    return [
        DemoStep("unit", "handles the MSI", told),
        DemoStep("processor", f"gets vector {interrupt.vector:#x} while the guest runs", outcome),
    ]


def run() -> list[Scene]:
    """Every scene, on one machine."""
    machine = GuestMachine()
    return [
        shared_page(machine),
        without_invept(machine),
        without_iotlb_invalidation(machine),
        posted_interrupt(machine),
    ]
