"""MSRs that entries and exits move: which exist, which values they take, the MSR areas (SDM 26.4).

Left out: every MSR that no VMX rule depends on. One that is not listed can't be loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pagetables.memory import BusError
from vtd.guest.bus import Memory
from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.entry_rules import DEBUGCTL_DEFINED, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from vtd.guest.x86.entry_rules import bad_pat as _bad_pat

TSC, APIC_BASE, SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x10, 0x1B, 0x174, 0x175, 0x176
DEBUGCTL, PAT, PERF_GLOBAL_CTRL = 0x1D9, 0x277, 0x38F
EFER, STAR, LSTAR, CSTAR, FMASK = 0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084
FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX = 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103

KNOWN = frozenset(
    {
        TSC, SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP, DEBUGCTL, PAT, PERF_GLOBAL_CTRL,
        EFER, STAR, LSTAR, CSTAR, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX,
    }
)  # fmt: skip
"""MSRs of the model that WRMSR can write."""
CANONICAL = frozenset({SYSENTER_ESP, SYSENTER_EIP, LSTAR, CSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE})
ENTRY_SIZE = 16


class MsrEntry(NamedTuple):
    """An entry of an MSR area (24.7.2)."""

    number: int
    reserved: int
    value: int


def area(memory: Memory, address: int, count: int) -> Iterator[MsrEntry]:
    """The entries of an MSR area; BusError where there is no memory."""
    for number in range(count):
        data = memory.read(address + ENTRY_SIZE * number, ENTRY_SIZE)
        yield MsrEntry(
            int.from_bytes(data[:4], "little"),
            int.from_bytes(data[4:8], "little"),
            int.from_bytes(data[8:], "little"),
        )


def writable(index: int, value: int, capabilities: VmxCapabilities) -> bool:
    """Whether WRMSR would take this value without a fault."""
    if index not in KNOWN:
        return False
    if index in CANONICAL:
        return capabilities.canonical(value)
    if index == PAT:
        return not _bad_pat(value)
    if index == DEBUGCTL:
        return not value & ~DEBUGCTL_DEFINED
    if index == EFER:
        execute = EFER_NXE if "no_execute" in capabilities.extra else 0
        return not value & ~(EFER_SCE | EFER_LME | EFER_LMA | execute)
    return True


def loadable(entry: MsrEntry, capabilities: VmxCapabilities) -> bool:
    """Whether an entry of a load area can be loaded (26.4, 27.6)."""
    if entry.reserved or entry.number in (FS_BASE, GS_BASE) or entry.number >> 8 == 8:
        return False
    return writable(entry.number, entry.value, capabilities)


def longest_area(capabilities: VmxCapabilities) -> int:
    """Entries of the longest MSR area that IA32_VMX_MISC recommends (A.6)."""
    return 512 * (capabilities.misc.msr_list + 1)


def bad_load(memory: Memory, address: int, count: int, capabilities: VmxCapabilities) -> int | None:
    """The number, from 1, of the first entry of an area that can't be loaded, or None.

    More entries than IA32_VMX_MISC recommends fail there, as machines behave that check it.
    """
    limit = longest_area(capabilities)
    number = 0
    try:
        for number, entry in enumerate(area(memory, address, count), 1):
            if number > limit or not loadable(entry, capabilities):
                return number
    except BusError:
        return number + 1
    return None
