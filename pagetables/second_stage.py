"""Second-stage paging entries, 64 bits each (VT-d 9.8, Tables 41 to 47).

One record per kind of entry: a pointer to the next table, and a page of 1 GiB, 2 MiB or 4 KiB.
Left out: which bits count in which mode. A and D have a meaning only with SSADE = 1 (3.7.2), EMT
and IPAT only with EMTE = 1, and R/W give way to IR/IW while SSIRWE = 1 (3.7.1).

Capability names used here beyond the one-bit flags of ECAP_REG: ``sslps_1g`` and ``sslps_2m`` are
the bits of CAP.SSLPS, and ``ssirwe`` stands for RTADDR_REG.SSIRWE as latched by the unit.
"""

from enum import IntEnum

from pagetables.bits import BitRecord, Bits, address, ignored


class ExtendedMemoryType(IntEnum):
    """EMT of a leaf entry (9.8)."""

    UC = 0
    WC = 1
    RESERVED_2 = 2
    RESERVED_3 = 3
    WT = 4
    WP = 5
    WB = 6
    RESERVED_7 = 7


class SecondStageEntry(BitRecord, width=64):
    """SS-PML5E, SS-PML4E, and SS-PDPE or SS-PDE with PS = 0: points to the next table.

    Bit 7 is PS in a PDPE or PDE and reserved in a PML5E or PML4E, so 0 in every entry of this kind.
    """

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    ign_2 = ignored(2)
    ign_6_3 = ignored(6, 3)
    a = Bits(8, as_=bool)  # accessed
    ign_10_9 = ignored(10, 9)
    addr = address(51, 12)
    ign_60_52 = ignored(60, 52)
    ir = Bits(61, as_=bool)  # I/O read; ignored unless SSIRWE = 1
    iw = Bits(62, as_=bool, needs="ssirwe")
    ign_63 = ignored(63)


class SecondStagePage1G(BitRecord, width=64):
    """SS-PDPE with PS = 1: maps a page of 1 GiB."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    ign_2 = ignored(2)
    emt = Bits(5, 3, as_=ExtendedMemoryType)
    ipat = Bits(6, as_=bool)  # ignore PAT
    ps = Bits(7, as_=bool, needs="sslps_1g")
    a = Bits(8, as_=bool)
    d = Bits(9, as_=bool)  # dirty
    ign_10 = ignored(10)
    snp = Bits(11, as_=bool, needs="sc")
    addr = address(51, 30)
    ign_60_52 = ignored(60, 52)
    ir = Bits(61, as_=bool)
    iw = Bits(62, as_=bool, needs="ssirwe")
    ign_63 = ignored(63)


class SecondStagePage2M(BitRecord, width=64):
    """SS-PDE with PS = 1: maps a page of 2 MiB."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    ign_2 = ignored(2)
    emt = Bits(5, 3, as_=ExtendedMemoryType)
    ipat = Bits(6, as_=bool)
    ps = Bits(7, as_=bool, needs="sslps_2m")
    a = Bits(8, as_=bool)
    d = Bits(9, as_=bool)
    ign_10 = ignored(10)
    snp = Bits(11, as_=bool, needs="sc")
    addr = address(51, 21)
    ign_60_52 = ignored(60, 52)
    ir = Bits(61, as_=bool)
    iw = Bits(62, as_=bool, needs="ssirwe")
    ign_63 = ignored(63)


class SecondStagePage4K(BitRecord, width=64):
    """SS-PTE: maps a page of 4 KiB. Bit 7 is not a page-size flag here and is ignored."""

    r = Bits(0, as_=bool)
    w = Bits(1, as_=bool)
    ign_2 = ignored(2)
    emt = Bits(5, 3, as_=ExtendedMemoryType)
    ipat = Bits(6, as_=bool)
    ign_7 = ignored(7)
    a = Bits(8, as_=bool)
    d = Bits(9, as_=bool)
    ign_10 = ignored(10)
    snp = Bits(11, as_=bool, needs="sc")
    addr = address(51, 12)
    ign_60_52 = ignored(60, 52)
    ir = Bits(61, as_=bool)
    iw = Bits(62, as_=bool, needs="ssirwe")
    ign_63 = ignored(63)


READ = SecondStageEntry.r.mask
WRITE = SecondStageEntry.w.mask
IO_READ = SecondStageEntry.ir.mask
IO_WRITE = SecondStageEntry.iw.mask
PAGE_SIZE = SecondStagePage2M.ps.mask
ACCESSED = SecondStageEntry.a.mask
DIRTY = SecondStagePage4K.d.mask
SNOOP = SecondStagePage4K.snp.mask
