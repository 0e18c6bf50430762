"""A processor with a guest for tests: where things are in memory, tables, controls by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pagetables import ept, first_stage
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import first_stage_geometry
from pagetables.memory import PhysicalMemory
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES, VmxCapabilities
from vtd.guest.x86.controls import CONTROL_WORDS
from vtd.guest.x86.fields import BY_NAME
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.mappings import Mappings
from vtd.guest.x86.outcomes import Entered, VmResult
from vtd.guest.x86.posting import Notification
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import VmcsState, pack

SIZE = 1 << 24
VMXON, VMCS, SHADOW, BITMAPS = 0x1000, 0x2000, 0x3000, 0x4000
VIRTUAL_APIC, APIC_ACCESS, DESCRIPTOR, PML, VE_PAGE = 0x8000, 0x9000, 0xA000, 0xB000, 0xC000
EPT_TABLES, GUEST_TABLES = 0x10_0000, 0x20_0000
RAM = 0x40_0000
"""Host memory that the guest sees from guest-physical 0 on, 4 MiB."""
RAM_SIZE = 0x40_0000
WORDS = {
    "pin": "pin_controls",
    "primary": "primary_controls",
    "secondary": "secondary_controls",
    "tertiary": "tertiary_controls",
    "exit": "exit_controls",
    "entry": "entry_controls",
}
WB = 6 << 3
Option = Any
"""An option of calls that take fields as ``**values``: a type checker matches those with all."""


def with_controls(state: VmcsState, *names: str, off: Option = ()) -> VmcsState:
    """A state with control bits set, by feature name, and cleared; secondary ones activated."""
    values = {field: state[field] for field in WORDS.values()}
    for name in (*names, *off):
        word, bit = name.split(".")
        mask = CONTROL_WORDS[word].FIELDS[bit].mask
        field = WORDS[word]
        values[field] = values[field] & ~mask | (0 if name in off else mask)
        if word == "secondary":
            values["primary_controls"] |= 1 << 31
        if word == "tertiary":
            values["primary_controls"] |= 1 << 17
    return state.replace(values)


def state_of(
    capabilities: VmxCapabilities, *names: str, off: Option = (), **values: int
) -> VmcsState:
    """The ordinary state with controls by feature name and fields by name."""
    return with_controls(base_state(capabilities), *names, off=off).replace(values)


UNPAGED = {"guest_cr0": 0x31, "guest_efer": 0, "guest_cs_access_rights": 0xC09B}
"""An unrestricted guest without paging; the entry control has to be cleared, too."""


class Machine:
    """Memory, a processor in VMX root operation, EPT for 4 MiB of guest memory."""

    def __init__(
        self,
        profile: str = "broadwell-posted",
        *,
        mappings: Mappings | None = None,
        largest: int = 12,
        capabilities: VmxCapabilities | None = None,
        send: Callable[[Notification], None] | None = None,
    ) -> None:
        self.capabilities = capabilities or VMX_PROFILES[profile]
        self.memory = PhysicalMemory()
        self.memory.add_region(0, SIZE)
        self.cpu = LogicalProcessor(self.capabilities, self.memory, mappings=mappings, send=send)
        self.memory.write(VMXON, REVISION.to_bytes(4, "little"))
        assert self.cpu.vmxon(VMXON) == VmResult(0)
        geometry = ept.ept_geometry(4, self.capabilities.ept_implementation)
        self.ept = TableBuilder(
            self.memory,
            geometry,
            FramePool(EPT_TABLES, GUEST_TABLES),
            largest=largest,
            preset=ept.EXECUTE,
        )
        self.ept.map(0, RAM, RAM_SIZE, attributes=WB)
        self.eptp = self.ept.root << 12 | 0x1E

    def run(
        self,
        *names: str,
        off: Option = (),
        paged: Option = False,
        at: Option = VMCS,
        **values: int,
    ) -> Guest:
        """Enter a guest with EPT; ``paged``: with the tables at its CR3, else unpaged."""
        state = self.state(*names, off=off, paged=paged, **values)
        self.memory.write(at, pack(state))
        assert self.cpu.vmptrld(at) == VmResult(0)
        entered = self.cpu.vmlaunch()
        assert isinstance(entered, Entered), entered
        return self.guest

    def state(
        self, *names: str, off: Option = (), paged: Option = False, **values: int
    ) -> VmcsState:
        """The state that :meth:`run` enters."""
        extra: dict[str, int] = {"eptp": self.eptp}
        names = ("secondary.ept", "secondary.unrestricted_guest", *names)
        if not paged:
            off = ("entry.ia32e_mode_guest", *off)
            extra |= UNPAGED
        return state_of(self.capabilities, *names, off=off, **{**extra, **values})

    @property
    def guest(self) -> Guest:
        """The guest that runs."""
        assert self.cpu.guest is not None
        return self.cpu.guest

    def guest_tables(self, *, at: int = 0x10_0000) -> TableBuilder:
        """4-level tables in guest memory, from guest-physical ``at`` on."""
        return TableBuilder(
            self.memory,
            first_stage_geometry(4, self.capabilities.ept_implementation),
            FramePool(at, at + 0x8_0000),
            translate=lambda gpa: gpa + RAM,
            largest=12,
            preset=first_stage.ACCESSED,
        )

    def leaf(self, gpa: int) -> int:
        """Address of the EPT entry that maps a 4 KiB page."""
        table = self.eptp & ~0xFFF
        for shift in (39, 30, 21):
            entry = self.word(table + (gpa >> shift & 511) * 8)
            table = entry & ~0xFFF & (1 << 52) - 1
        return table + (gpa >> 12 & 511) * 8

    def word(self, address: int) -> int:
        """A quadword of host memory."""
        return int.from_bytes(self.memory.read(address, 8), "little")

    def put(self, address: int, value: int) -> None:
        """Store a quadword in host memory."""
        self.memory.write(address, value.to_bytes(8, "little"))

    def field(self, name: str) -> int:
        """A field of the current VMCS, as VMREAD gives it."""
        result: Any = self.cpu.vmread(BY_NAME[name].encoding)
        assert isinstance(result, VmResult) and result.ok, result
        assert result.value is not None
        return result.value
