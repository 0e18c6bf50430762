"""Rules of VM entries: each with a name, its group, and what it asks (SDM 26.2 to 26.3).

The rules themselves are in :mod:`entry_controls`, :mod:`entry_host` and :mod:`entry_guest`, in the
order in which they are checked; here is what they look at.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cached_property, lru_cache, partial
from typing import NamedTuple, TypeVar, cast

from pagetables.bits import BitRecord
from vtd.guest.bus import Memory, get_number
from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.controls import (
    AccessRights,
    EntryControls,
    EntryEvent,
    ExitControls,
    Interruptibility,
    PinControls,
    PrimaryControls,
    SecondaryControls,
    TertiaryControls,
)
from vtd.guest.x86.vmcs import NO_POINTER, VmcsState


class Group(Enum):
    """Which part of the VMCS a rule is about."""

    CONTROLS = "controls"
    HOST = "host"
    GUEST = "guest"


CR0_PE, CR0_NE, CR0_WP, CR0_NW, CR0_CD, CR0_PG = 1, 1 << 5, 1 << 16, 1 << 29, 1 << 30, 1 << 31
CR4_PAE, CR4_PGE, CR4_LA57, CR4_VMXE, CR4_PCIDE, CR4_CET = (
    1 << 5, 1 << 7, 1 << 12, 1 << 13, 1 << 17, 1 << 23,
)  # fmt: skip
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1, 1 << 8, 1 << 10, 1 << 11
RFLAGS_TF, RFLAGS_IF, RFLAGS_VM = 1 << 8, 1 << 9, 1 << 17
DEBUGCTL_BTF = 1 << 1
DEBUGCTL_DEFINED = 0xDFC3
"""LBR, BTF, 6 to 12, 14, 15 (RTM); others are reserved."""


R = TypeVar("R", bound=BitRecord)


def record(kind: type[R], value: int) -> R:
    """A record of a field; states differ little, and a record keeps the fields it was asked for."""
    return cast(R, _record(kind, value))


_record: Callable[[Callable[[int], BitRecord], int], BitRecord] = lru_cache(maxsize=1024)(
    lambda kind, value: kind(value)
)


class Entry:
    """What the rules of one VM entry look at.

    ``ia32e``: whether the processor is in IA-32e mode now. ``current``: address of the VMCS.
    """

    def __init__(
        self,
        state: VmcsState,
        capabilities: VmxCapabilities,
        memory: Memory,
        *,
        ia32e: bool = True,
        current: int | None = None,
    ) -> None:
        self.state = state
        self.capabilities = capabilities
        self.memory = memory
        self.asked_memory = False
        """Whether a rule has looked into memory."""
        self.ia32e = ia32e
        self.current = current
        self.pin = record(PinControls, state.pin_controls)
        self.primary = primary = record(PrimaryControls, state.primary_controls)
        active = primary.secondary_controls and "primary.secondary_controls" in (
            capabilities.features
        )
        self.secondary = record(SecondaryControls, state.secondary_controls if active else 0)
        self.tertiary = record(
            TertiaryControls, state.tertiary_controls if primary.tertiary_controls else 0
        )
        self.exit = record(ExitControls, state.exit_controls)
        self.entry = record(EntryControls, state.entry_controls)

    @cached_property
    def event(self) -> EntryEvent:
        """The event to be injected."""
        return record(EntryEvent, self.state.entry_interruption_info)

    @cached_property
    def interruptibility(self) -> Interruptibility:
        """Interruptibility of the guest."""
        return record(Interruptibility, self.state.guest_interruptibility)

    @cached_property
    def unrestricted(self) -> bool:
        """Whether the guest may be unpaged or in real mode."""
        return self.secondary.unrestricted_guest

    @cached_property
    def virtual_8086(self) -> bool:
        """Whether the guest will be in virtual-8086 mode."""
        return bool(self.state.guest_rflags & RFLAGS_VM)

    @cached_property
    def rights(self) -> dict[str, AccessRights]:
        """Access rights by segment register."""
        return {
            name: record(AccessRights, self.state[f"guest_{name}_access_rights"])
            for name in SEGMENTS
        }

    def selector(self, name: str) -> int:
        """A guest selector."""
        return self.state[f"guest_{name}_selector"]

    def inside(self, address: int) -> bool:
        """Whether an address is within the physical-address width."""
        return not address >> self.capabilities.address_width

    def pointer(self, address: int, alignment: int) -> bool:
        """Whether an address is aligned and within the physical-address width."""
        return not address % alignment and self.inside(address)

    def read(self, address: int, length: int) -> int:
        """A number in memory; all ones where there is no memory, as reads of nothing give."""
        self.asked_memory = True
        return get_number(self.memory, address, length)


SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr")


class Rule(NamedTuple):
    """One check of a VM entry."""

    name: str
    group: Group
    text: str
    """What has to hold."""
    broken: Callable[[Entry], bool]
    qualification: int = 0
    """Exit qualification where a guest-state rule is broken."""


F = TypeVar("F", bound=Callable[[Entry], bool])


class Rules:
    """A list of rules of one group, filled by decorated functions."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.rules: list[Rule] = []

    def add(
        self, name: str, text: str, broken: Callable[[Entry], bool], qualification: int = 0
    ) -> None:
        """Add a rule."""
        full = f"{self.group.value}.{name}"
        self.rules.append(Rule(full, self.group, text, broken, qualification))

    def __call__(self, name: str, text: str, qualification: int = 0) -> Callable[[F], F]:
        """A decorator: the function says whether the rule is broken."""

        def added(broken: F) -> F:
            self.add(name, text, broken, qualification)
            return broken

        return added

    def canonical(self, *fields: str) -> None:
        """Add rules for fields that hold addresses."""
        for field in fields:
            self.add(field, f"{field} is canonical", partial(_not_canonical, field))


def _not_canonical(field: str, entry: Entry) -> bool:
    return not entry.capabilities.canonical(entry.state[field])


def bad_pat(value: int) -> bool:
    """Whether a byte of IA32_PAT holds a reserved memory type."""
    return any(value >> 8 * byte & 0xFF not in (0, 1, 4, 5, 6, 7) for byte in range(8))


def reserved_efer(entry: Entry) -> int:
    """Bits that are reserved in IA32_EFER."""
    known = EFER_SCE | EFER_LME | EFER_LMA
    if "no_execute" in entry.capabilities.extra:
        known |= EFER_NXE
    return NO_POINTER & ~known


def breaks_fixed(value: int, fixed0: int, fixed1: int, exempt: int = 0) -> bool:
    """Whether a control register sets a bit to a value that VMX operation does not support."""
    return bool(~value & fixed0 & ~exempt or value & ~fixed1)
