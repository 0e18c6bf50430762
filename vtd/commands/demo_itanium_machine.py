"""Two virtual processors of Itanium on one logical one, and devices beside them (docs/guests.md).

The same program with no acceleration and with all: how often the monitor is needed. Then a guest
that gives its device an address of its own: without remapping, as on every Itanium, and with it.
"""

from __future__ import annotations

from devices.dma import DirectPort
from devices.models.edu import Edu
from devices.topology import Topology
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.commands.demo_scene import DemoStep, Scene
from vtd.dmar.description import build
from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.monitor import Monitor
from vtd.guest.itanium.outcomes import GuestInstruction
from vtd.guest.itanium.pal import Pal
from vtd.guest.itanium.partition import Partition
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import Cr, Psr
from vtd.guest.itanium.virtual_processor import VirtualProcessor
from vtd.guest.itanium.vpd import VPD_SIZE
from vtd.platform import Platform
from vtd.software.driver import Driver
from vtd.unit.registers.capabilities import PROFILES

DMAR = """
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
"""
BUFFER, HOST_IVT, TABLES, TABLES_END = 0x10_0000, 0x20_0000, 0x80_0000, 0x90_0000
VPDS = 0x30_0000, 0x31_0000
GUESTS, SIZE = (0x40_0000, 0x60_0000), 0x20_0000
ACCELERATIONS = (0x00, 0x7F)
ADDRESS, PHYSICAL = 0x4000_0000_0000_5000, 0x2000
"""A virtual address that both guests use, and a physical one."""
RID = 5 << 8 | 14 << 2
IVT, CLASS_3, VECTOR = 0x8000, 0x30, 0x51
IC, I = Psr.ic.mask, Psr.i.mask  # noqa: E741 - the bit's name

Cause = InterceptCause
PROGRAM = (
    GuestInstruction(Cause.MOV_FROM_CPUID, 3),
    GuestInstruction(Cause.MOV_TO_CR, Cr.IVA, IVT),
    GuestInstruction(Cause.MOV_TO_RR, ADDRESS >> 61, RID),
    GuestInstruction(Cause.RSM, value=IC),
    GuestInstruction(Cause.MOV_TO_CR, Cr.IFA, ADDRESS),
    GuestInstruction(Cause.MOV_TO_CR, Cr.ITIR, 12 << 2),
    GuestInstruction(Cause.ITC_D, value=PHYSICAL | 2 << 9 | 0x61),
    GuestInstruction(Cause.SSM, value=IC),
    GuestInstruction(Cause.MOV_TO_CR, Cr.TPR, CLASS_3),
    GuestInstruction(Cause.SSM, value=I),
    GuestInstruction(Cause.MOV_FROM_PSR),
)
"""What each guest does: its table of vectors, a translation, a task priority, interrupts on."""
HANDLER = (
    GuestInstruction(Cause.MOV_FROM_CR, Cr.IPSR),
    GuestInstruction(Cause.MOV_FROM_CR, Cr.IIP),
    GuestInstruction(Cause.COVER),
    GuestInstruction(Cause.BSW_1),
    GuestInstruction(Cause.MOV_FROM_CR, Cr.IVR),
    GuestInstruction(Cause.MOV_FROM_CR, Cr.TPR),
    GuestInstruction(Cause.MOV_TO_CR, Cr.TPR, 0x50),
    GuestInstruction(Cause.SSM, value=I),
    GuestInstruction(Cause.RSM, value=I),
    GuestInstruction(Cause.MOV_TO_CR, Cr.TPR, CLASS_3),
    GuestInstruction(Cause.MOV_TO_CR, Cr.EOI),
    GuestInstruction(Cause.BSW_0),
    GuestInstruction(Cause.RFI),
)
"""What its handler of external interrupts does."""


class ItaniumMachine:
    """A logical processor, its monitor and two virtual processors."""

    def __init__(self) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 16 << 20)
        self.monitor = Monitor(
            Pal(self.memory), ItaniumProcessor(self.memory), buffer=BUFFER, host_iva=HOST_IVT
        )
        self.guests = tuple(
            self.monitor.create(vpd, Partition(block, memory, SIZE), vac=vac)
            for block, (vpd, memory, vac) in enumerate(
                zip(VPDS, GUESTS, ACCELERATIONS, strict=True), 1
            )
        )

    def work(self, guest: VirtualProcessor, text: bytes) -> DemoStep:
        """The whole program of one guest, an interrupt included."""
        self.monitor.switch_to(guest)
        for instruction in PROGRAM:
            self.monitor.run(instruction)
        self.monitor.interrupt(guest, VECTOR)
        for instruction in HANDLER:
            self.monitor.run(instruction)
        stored = self.monitor.store(ADDRESS, text)
        count = guest.intercepts.total()
        return DemoStep(
            f"guest {guest.partition.block}",
            f"runs {len(PROGRAM) + len(HANDLER)} instructions and stores {text.decode()!r} at "
            f"{ADDRESS:#x}, vac {int(guest.vpd.vac):02X}h",
            f"{count} intercepts" + ("" if stored else ", and a fault"),
        )


def accelerations(machine: ItaniumMachine) -> Scene:
    """Fewer intercepts, the same virtual processor, and memory apart."""
    texts = (b"guest 1's", b"guest 2's")
    steps = [machine.work(*each) for each in zip(machine.guests, texts, strict=True)]
    machine.monitor.stop()
    first, second = (machine.memory.read(vpd + 16, VPD_SIZE - 16) for vpd in VPDS)
    found = [machine.memory.read(start + PHYSICAL, len(texts[0])) for start in GUESTS]
    same = "the same but for vac" if first == second else "different"
    steps.append(DemoStep("monitor", "compares the two VPDs", same))
    apart = "each in its own memory" if found == list(texts) else "mixed up"
    steps.append(DemoStep("monitor", "looks where the same address led", apart))
    return Scene(
        "VT-i: two VPDs on one logical processor, without accelerations and with all",
        tuple(steps),
        {
            "intercepts": {
                f"vac {int(guest.vpd.vac):02X}h": {
                    cause.name.lower(): count for cause, count in sorted(guest.intercepts.items())
                }
                for guest in machine.guests
            }
        },
    )


def devices(machine: ItaniumMachine) -> Scene:
    """A guest's device gets a physical address of the guest: whose memory is that?"""
    memory, text = machine.memory, b"DMA of 2"
    DirectPort(memory).write(PHYSICAL, text)
    hit = memory.read(PHYSICAL, len(text)) == text
    steps = [
        DemoStep(
            "device",
            f"without remapping writes {text.decode()!r} to {PHYSICAL:#x} for guest 2",
            "the monitor's memory is overwritten" if hit else "nothing",
        )
    ]
    memory.write(PHYSICAL, bytes(len(text)))
    topology, edu = Topology(), Edu()
    bdf = topology.add(edu, topology.add_root_bus(), device=2)
    platform = Platform.build(memory, topology, build(DMAR), PROFILES["qemu"])
    driver = Driver(platform.unit_of(edu), memory, FramePool(TABLES, TABLES_END))
    driver.start()
    domain = driver.domain()
    domain.map(0, machine.guests[1].partition.memory, SIZE)
    driver.attach(bdf.source_id, domain)
    edu.command.value = edu.command.value.replace(bme=True)
    edu.dma.write(PHYSICAL, text)
    own = memory.read(GUESTS[1] + PHYSICAL, len(text)) == text
    safe = memory.read(PHYSICAL, len(text)) == bytes(len(text))
    steps.append(
        DemoStep(
            "device",
            "behind a unit does the same",
            "guest 2's own memory, nobody else's" if own and safe else "elsewhere",
        )
    )
    outcome = edu.dma.write(VPDS[0], text)
    steps.append(
        DemoStep(
            "device",
            f"behind a unit writes to {VPDS[0]:#x}, guest 1's VPD",
            "refused" if not outcome.ok else "done",
        )
    )
    return Scene("Its device: VT-i protects no memory from DMA, VT-d does", tuple(steps))


def run() -> list[Scene]:
    """Both scenes, on one machine."""
    machine = ItaniumMachine()
    return [accelerations(machine), devices(machine)]
