"""A virtual processor: VMCS, virtual-APIC page, posting, EPT, and the guest that runs on it.

The guest is unpaged and takes interrupts: its linear addresses are guest physical (SDM 24, 28).
"""

from __future__ import annotations

from typing import NamedTuple

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
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.outcomes import VmResult
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import pack
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor

NOTIFICATION = 0xF2
"""The vector that tells a processor of posted interrupts."""
WRITE_BACK = 6 << 3
"""Memory type of an EPT entry (SDM 28.2.7)."""
EPTP_FLAGS = 0x1E
"""Write-back tables of four levels."""


class VirtualPages(NamedTuple):
    """Addresses of the pages that a virtual processor needs."""

    vmxon: int
    vmcs: int
    apic: int
    descriptor: int


class VirtualProcessor:
    """Runs a guest whose memory is what the EPT tables at ``root`` map, once it is entered."""

    def __init__(self, memory: PhysicalMemory, pages: VirtualPages, root: int) -> None:
        self.memory = memory
        self.pages = pages
        self.eptp = root | EPTP_FLAGS
        self.processor = LogicalProcessor(VMX_PROFILES["broadwell-posted"], memory)
        descriptor = PostedInterruptDescriptor.of(nv=NOTIFICATION)
        memory.write(pages.descriptor, descriptor.pack())
        memory.write(pages.vmxon, REVISION.to_bytes(4, "little"))
        self.processor.vmxon(pages.vmxon)

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
            "virtual_apic_address": self.pages.apic,
            "posted_interrupt_vector": NOTIFICATION,
            "posted_interrupt_descriptor_address": self.pages.descriptor,
        }
        region = pack(state.replace({name: int(value) for name, value in values.items()}))
        self.memory.write(self.pages.vmcs, region)
        self.processor.vmclear(self.pages.vmcs)
        self.processor.vmptrld(self.pages.vmcs)
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
