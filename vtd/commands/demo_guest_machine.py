"""What hypervisor, guest, device and hardware do on a machine, with what came of it as values."""

from __future__ import annotations

from devices.dma import READ
from devices.interrupt_programming import remappable_message
from vtd.commands.demo_scene import DemoStep, Scene
from vtd.guest.x86.exits import VmExit
from vtd.guest.x86.fields import BY_NAME
from vtd.guest.x86.outcomes import Delivered, VmResult
from vtd.host.guest_machine import DESCRIPTOR, PAGE, VECTOR, GuestMachine
from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte
from vtd.rows import Hex
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.reporting.events import InterruptDelivered, RequestBlocked


class DemoMachine(GuestMachine):
    """The machine whose parts tell what they do."""

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
        before, blocked = set(self.audit.findings), len(self.events)
        self.device.dma.write(PAGE, text)
        findings = [debt for debt in self.audit.findings if debt not in before]
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
            self.set_leaf(entry)
            told = "the IOTLB is forgotten"
        return DemoStep("software", f"clears W of the entry at {self.leaf:#x}", told)

    def give_writing_back(self) -> None:
        """Software makes the page writable again, everything invalidated."""
        entry = int.from_bytes(self.memory.read(self.leaf, 8), "little") | 2
        self.set_leaf(entry)
        self.invalidate_iotlb()
        self.virtual.invept()

    def told_invept(self) -> DemoStep:
        """The hypervisor executes INVEPT."""
        done = "done" if self.virtual.invept() else "failed"
        return DemoStep("software", f"INVEPT, EPTP {self.virtual.eptp:#x}", done)

    def told_invalidation(self) -> DemoStep:
        """The driver has the unit drop the page."""
        self.invalidate_iotlb()
        return DemoStep("software", "invalidates the IOTLB", "done")


def _text(found: object) -> str:
    return repr(found.decode("ascii", "replace")) if isinstance(found, bytes) else str(found)


def shared_page(machine: DemoMachine) -> Scene:
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


def without_invept(machine: DemoMachine) -> Scene:
    """The processor goes on with what it cached."""
    return Scene(
        "INVEPT left out: the device is stopped, the guest is not",
        (
            machine.take_writing_away(with_iotlb=True),
            machine.device_writes(b"device is late"),
            machine.guest_stores(b"guest is in!! "),
            machine.told_invept(),
            machine.guest_stores(b"guest is late "),
        ),
    )


def without_iotlb_invalidation(machine: DemoMachine) -> Scene:
    """The unit goes on with what it cached."""
    machine.give_writing_back()
    machine.device_writes(b"cached by IOTLB")
    return Scene(
        "The IOTLB invalidation left out: the guest is stopped, the device is not",
        (
            machine.take_writing_away(with_iotlb=False),
            machine.told_invept(),
            machine.guest_stores(b"guest is late "),
            machine.device_writes(b"device is in! "),
            machine.told_invalidation(),
            machine.device_writes(b"device is late"),
        ),
    )


def posted_interrupt(machine: DemoMachine) -> Scene:
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
    machine.virtual.enter(posted=False)
    steps += _message(machine, index)
    information = machine.processor.vmread(BY_NAME["exit_interruption_info"].encoding)
    assert isinstance(information, VmResult) and information.value is not None
    return Scene(
        "An MSI posted needs no exit; one that is only remapped is exit 1",
        tuple(steps),
        {"exit_interruption_info": Hex(information.value)},
    )


def _message(machine: DemoMachine, index: int) -> list[DemoStep]:
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
    machine = DemoMachine()
    return [
        shared_page(machine),
        without_invept(machine),
        without_iotlb_invalidation(machine),
        posted_interrupt(machine),
    ]
