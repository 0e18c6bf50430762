"""First-stage paging entries, 64 bits each (VT-d 9.7, Tables 34 to 40).

The layout of processor page tables in 4-level and 5-level paging. One record per kind of entry: a
pointer to the next table, and a page of 1 GiB, 2 MiB or 4 KiB. Bit 63 has no effect since execute
requests were dropped. Left out: which flags count in which mode; EA is ignored with EAFE = 0
(3.6.2), the memory-type bits matter only to devices in the processor's coherency domain (3.11).
"""

from pagetables.bits import BitRecord, Bits, address, ignored


class FirstStageEntry(BitRecord, width=64):
    """FS-PML5E, FS-PML4E, and FS-PDPE or FS-PDE with PS = 0: points to the next table.

    Bit 7 is PS in a PDPE or PDE and reserved in a PML5E or PML4E, so 0 in every entry of this kind.
    """

    p = Bits(0, as_=bool)
    rw = Bits(1, as_=bool)
    us = Bits(2, as_=bool)
    ign_4_3 = ignored(4, 3)
    a = Bits(5, as_=bool)  # accessed
    ign_6 = ignored(6)
    ign_9_8 = ignored(9, 8)
    ea = Bits(10, as_=bool)  # extended accessed
    ign_11 = ignored(11)
    addr = address(51, 12)
    ign_63_52 = ignored(63, 52)


class FirstStagePage1G(BitRecord, width=64):
    """FS-PDPE with PS = 1: maps a page of 1 GiB."""

    p = Bits(0, as_=bool)
    rw = Bits(1, as_=bool)
    us = Bits(2, as_=bool)
    pwt = Bits(3, as_=bool)
    pcd = Bits(4, as_=bool)
    a = Bits(5, as_=bool)
    d = Bits(6, as_=bool)  # dirty
    ps = Bits(7, as_=bool, needs="fs1gp")
    g = Bits(8, as_=bool)  # global: treated as 0
    ign_9 = ignored(9)
    ea = Bits(10, as_=bool)
    ign_11 = ignored(11)
    pat = Bits(12, as_=bool)
    addr = address(51, 30)
    ign_63_52 = ignored(63, 52)


class FirstStagePage2M(BitRecord, width=64):
    """FS-PDE with PS = 1: maps a page of 2 MiB, which every implementation supports."""

    p = Bits(0, as_=bool)
    rw = Bits(1, as_=bool)
    us = Bits(2, as_=bool)
    pwt = Bits(3, as_=bool)
    pcd = Bits(4, as_=bool)
    a = Bits(5, as_=bool)
    d = Bits(6, as_=bool)
    ps = Bits(7, as_=bool)
    g = Bits(8, as_=bool)
    ign_9 = ignored(9)
    ea = Bits(10, as_=bool)
    ign_11 = ignored(11)
    pat = Bits(12, as_=bool)
    addr = address(51, 21)
    ign_63_52 = ignored(63, 52)


class FirstStagePage4K(BitRecord, width=64):
    """FS-PTE: maps a page of 4 KiB. Bit 7 is PAT here, not a page-size flag."""

    p = Bits(0, as_=bool)
    rw = Bits(1, as_=bool)
    us = Bits(2, as_=bool)
    pwt = Bits(3, as_=bool)
    pcd = Bits(4, as_=bool)
    a = Bits(5, as_=bool)
    d = Bits(6, as_=bool)
    pat = Bits(7, as_=bool)
    g = Bits(8, as_=bool)
    ign_9 = ignored(9)
    ea = Bits(10, as_=bool)
    ign_11 = ignored(11)
    addr = address(51, 12)
    ign_63_52 = ignored(63, 52)


PRESENT = FirstStageEntry.p.mask
WRITE = FirstStageEntry.rw.mask
USER = FirstStageEntry.us.mask
PAGE_SIZE = FirstStagePage2M.ps.mask
ACCESSED = FirstStageEntry.a.mask
DIRTY = FirstStagePage4K.d.mask
EXTENDED_ACCESSED = FirstStageEntry.ea.mask
