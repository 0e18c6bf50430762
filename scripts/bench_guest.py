"""What :mod:`scripts.bench` times of the processor: entries, EPT walks, posted interrupts.

By itself, many of each, and how many a second: ``python -m scripts.bench_guest [--part N]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

from pagetables import ept
from pagetables.build import FramePool, TableBuilder
from pagetables.memory import PhysicalMemory
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES
from vtd.guest.x86.controls import (
    EntryControls,
    ExitControls,
    PinControls,
    PrimaryControls,
    SecondaryControls,
)
from vtd.guest.x86.ept import ept_stage, walk_ept
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.outcomes import Entered
from vtd.guest.x86.posting import post
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import pack
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor

CAPABILITIES = VMX_PROFILES["broadwell-posted"]
VMXON, VMCS, APIC_PAGE, DESCRIPTOR = 0x1000, 0x2000, 0x3000, 0x4000
TABLES, RAM, RAM_SIZE = 0x1_0000, 1 << 24, 1 << 24
WRITE_BACK = 6 << 3
NOTIFICATION, VECTOR = 0xF2, 0x41


class Hypervisor:
    """A processor and one guest with EPT and posted interrupts, which has been entered once."""

    def __init__(self) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, RAM + RAM_SIZE)
        geometry = ept.ept_geometry(4, CAPABILITIES.ept_implementation)
        pool = FramePool(TABLES, RAM)
        tables = TableBuilder(self.memory, geometry, pool, largest=12, preset=ept.EXECUTE)
        tables.map(0, RAM, RAM_SIZE, attributes=WRITE_BACK)
        self.eptp = tables.root << 12 | 0x1E
        self.stage = ept_stage(self.eptp, CAPABILITIES)
        self.memory.write(DESCRIPTOR, PostedInterruptDescriptor.of(nv=NOTIFICATION).pack())
        self.memory.write(VMXON, REVISION.to_bytes(4, "little"))
        self.memory.write(VMCS, self._region())
        self.cpu = LogicalProcessor(CAPABILITIES, self.memory)
        for result in (self.cpu.vmxon(VMXON), self.cpu.vmptrld(VMCS), self.cpu.vmlaunch()):
            if isinstance(result, Entered):
                return
        raise RuntimeError(f"the guest does not enter: {result}")

    def _region(self) -> bytes:
        state = base_state(CAPABILITIES)
        values = {
            "pin_controls": int(PinControls(state.pin_controls).replace(posted_interrupts=True)),
            "primary_controls": int(
                PrimaryControls(state.primary_controls).replace(
                    secondary_controls=True, tpr_shadow=True
                )
            ),
            "secondary_controls": int(
                SecondaryControls.of(
                    ept=True, vpid=True, unrestricted_guest=True, virtual_interrupt_delivery=True
                )
            ),
            "exit_controls": int(
                ExitControls(state.exit_controls).replace(acknowledge_interrupt=True)
            ),
            "entry_controls": int(
                EntryControls(state.entry_controls).replace(ia32e_mode_guest=False)
            ),
            "guest_cr0": 0x31,
            "guest_efer": 0,
            "guest_cs_access_rights": 0xC09B,
            "guest_rflags": 0x202,
            "eptp": self.eptp,
            "virtual_apic_address": APIC_PAGE,
            "posted_interrupt_vector": NOTIFICATION,
            "posted_interrupt_descriptor_address": DESCRIPTOR,
        }
        return pack(state.replace(values))

    @property
    def guest(self) -> Guest:
        """The guest that runs."""
        if self.cpu.guest is None:
            raise RuntimeError("no guest runs")
        return self.cpu.guest


def runners() -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name of each case, what it does, and how many operations that is."""
    machine = Hypervisor()
    yield "VM entry and exit", entries(machine, 200), 200
    yield "EPT walk of 4 levels", walks(machine, 20_000), 20_000
    yield "guest load of 8 bytes, EPT-cached", loads(machine, 50_000), 50_000
    yield "posted interrupt, delivered, EOI", interrupts(machine, 500), 500


def entries(machine: Hypervisor, count: int) -> Callable[[], object]:
    """CPUID exits, each followed by VMRESUME."""

    def run() -> None:
        for _ in range(count):
            machine.guest.cpuid()
            machine.cpu.vmresume()

    return run


def walks(machine: Hypervisor, count: int) -> Callable[[], object]:
    """Walks of one address."""
    memory, stage = machine.memory, machine.stage

    def run() -> None:
        for _ in range(count):
            walk_ept(memory, stage, 0x12_3456)

    return run


def loads(machine: Hypervisor, count: int) -> Callable[[], object]:
    """Loads from one page."""

    def run() -> None:
        load = machine.guest.load
        for _ in range(count):
            load(0x12_3450, 8)

    return run


def interrupts(machine: Hypervisor, count: int) -> Callable[[], object]:
    """A device posts, the processor takes, the guest serves and ends the interrupt."""

    def run() -> None:
        guest = machine.guest
        if guest.apic is None:
            raise RuntimeError("the guest has no virtual APIC")
        for _ in range(count):
            post(machine.memory, DESCRIPTOR, VECTOR)
            guest.interrupt(NOTIFICATION)
            guest.boundary()
            guest.apic.virtualize_eoi()

    return run


def main(arguments: list[str] | None = None) -> None:
    """10^5 entries, 10^6 walks, 10^6 posted interrupts, or the N-th part of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, default=1, help="divide the numbers by this")
    part = parser.parse_args(arguments).part
    machine = Hypervisor()
    for name, make, count in (
        ("VM entries", entries, 10**5),
        ("EPT walks", walks, 10**6),
        ("posted interrupts", interrupts, 10**6),
    ):
        start = time.perf_counter()
        make(machine, count // part)()
        seconds = time.perf_counter() - start
        print(f"{name:20} {count // part:9} {count // part / seconds:12,.0f} per second")


if __name__ == "__main__":
    main()
