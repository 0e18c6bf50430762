"""EPT paging entries, 64 bits each (SDM 28.2.2, Tables 28-1 to 28-6), and their geometry.

The processor's second stage: the same shape as the unit's, with execute rights of its own. Left
out: rules that combine bits (write without read, reserved memory types), which
:mod:`vtd.guest.x86.ept` judges, and bits of sub-page permissions and paging-write.

Capability names: ``ept_2m`` and ``ept_1g`` are bits 16 and 17 of IA32_VMX_EPT_VPID_CAP,
``mode_based_execute`` stands for the VM-execution control.
"""

from __future__ import annotations

import functools

from pagetables.bits import BitRecord, Bits, Implementation, address, ignored
from pagetables.geometry import PAGE_SHIFT, Geometry, StageKind, levels_of
from pagetables.second_stage import ExtendedMemoryType


class EptEntry(BitRecord, width=64):
    """EPT PML5E, PML4E, and PDPTE or PDE with bit 7 = 0: points to the next table."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    x = Bits(2, as_=bool)  # supervisor-mode linear addresses only, with mode-based execute
    a = Bits(8, as_=bool)
    ign_9 = ignored(9)
    xu = Bits(10, as_=bool)  # execute from user-mode linear addresses
    ign_11 = ignored(11)
    addr = address(51, 12)
    ign_63_52 = ignored(63, 52)


class EptPage1G(BitRecord, width=64):
    """EPT PDPTE with bit 7 = 1: maps a page of 1 GiB."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    x = Bits(2, as_=bool)
    emt = Bits(5, 3, as_=ExtendedMemoryType)
    ipat = Bits(6, as_=bool)
    ps = Bits(7, as_=bool, needs="ept_1g")
    a = Bits(8, as_=bool)
    d = Bits(9, as_=bool)
    xu = Bits(10, as_=bool)
    ign_11 = ignored(11)
    addr = address(51, 30)
    ign_62_52 = ignored(62, 52)
    sve = Bits(63, as_=bool)  # suppress #VE


class EptPage2M(BitRecord, width=64):
    """EPT PDE with bit 7 = 1: maps a page of 2 MiB."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    x = Bits(2, as_=bool)
    emt = Bits(5, 3, as_=ExtendedMemoryType)
    ipat = Bits(6, as_=bool)
    ps = Bits(7, as_=bool, needs="ept_2m")
    a = Bits(8, as_=bool)
    d = Bits(9, as_=bool)
    xu = Bits(10, as_=bool)
    ign_11 = ignored(11)
    addr = address(51, 21)
    ign_62_52 = ignored(62, 52)
    sve = Bits(63, as_=bool)


class EptPage4K(BitRecord, width=64):
    """EPT PTE: maps a page of 4 KiB."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    x = Bits(2, as_=bool)
    emt = Bits(5, 3, as_=ExtendedMemoryType)
    ipat = Bits(6, as_=bool)
    ign_7 = ignored(7)
    a = Bits(8, as_=bool)
    d = Bits(9, as_=bool)
    xu = Bits(10, as_=bool)
    ign_11 = ignored(11)
    addr = address(51, 12)
    ign_62_52 = ignored(62, 52)
    sve = Bits(63, as_=bool)


PAGES = {12: EptPage4K, 21: EptPage2M, 30: EptPage1G}
"""The layout of an entry that maps a page, by log2 of the page size."""

READ = EptEntry.r.mask
WRITE = EptEntry.w.mask
EXECUTE = EptEntry.x.mask
EXECUTE_USER = EptEntry.xu.mask
RIGHTS = READ | WRITE | EXECUTE
PAGE_SIZE = EptPage2M.ps.mask
ACCESSED = EptEntry.a.mask
DIRTY = EptPage4K.d.mask


@functools.cache
def ept_geometry(levels: int, implementation: Implementation) -> Geometry:
    """EPT of 4 or 5 levels (28.2.2), ValueError for others.

    With the feature ``mode_based_execute`` an entry with only XU is present, too.
    """
    if levels not in (4, 5):
        raise ValueError(f"levels: EPT have 4 or 5 of them, not {levels}")
    rights = RIGHTS
    if "mode_based_execute" in implementation.features:
        rights |= EXECUTE_USER
    return Geometry(
        StageKind.SECOND,
        levels_of(levels, implementation, EptEntry, PAGES, rights, PAGE_SIZE),
        present=rights,
        read=READ,
        write=WRITE,
        user=0,
        rights=rights,
        accessed=ACCESSED,
        dirty=DIRTY,
    )


def decode_ept_entry(shift: int, entry: int) -> BitRecord:
    """An entry of the level with this ``shift`` as the record that bit 7 makes it."""
    if shift in PAGES and (shift == PAGE_SHIFT or entry & PAGE_SIZE):
        return PAGES[shift](entry)
    return EptEntry(entry)
