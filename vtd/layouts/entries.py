"""Root, context, PASID and host-permission table entries (VT-d 9.1 to 9.6, 9.12).

Layouts only. Left out: the order of checks and what is ignored in which translation type, which
the descriptions below name where a reserved mask alone would mislead.
"""

from enum import IntEnum

from pagetables.bits import BitRecord, Bits, Implementation, address, ignored


class TranslationType(IntEnum):
    """TT of a legacy-mode context entry (9.3)."""

    SECOND_STAGE = 0
    DEVICE_TLB = 1
    """As 0, and translation and translated requests are allowed; reserved unless DT."""
    PASS_THROUGH = 2
    """Reserved unless PT."""
    RESERVED_3 = 3


class AddressWidth(IntEnum):
    """AW: adjusted guest address width of second-stage tables (9.3, 9.6)."""

    RESERVED_0 = 0
    AGAW_39 = 1
    AGAW_48 = 2
    AGAW_57 = 3
    RESERVED_4 = 4
    RESERVED_5 = 5
    RESERVED_6 = 6
    RESERVED_7 = 7


class PasidTranslationType(IntEnum):
    """PGTT: PASID granular translation type (9.6)."""

    RESERVED_0 = 0
    FIRST_STAGE = 1
    SECOND_STAGE = 2
    NESTED = 3
    PASS_THROUGH = 4
    RESERVED_5 = 5
    RESERVED_6 = 6
    RESERVED_7 = 7


class FirstStagePagingMode(IntEnum):
    """FSPM (9.6)."""

    FOUR_LEVEL = 0
    FIVE_LEVEL = 1
    RESERVED_2 = 2
    RESERVED_3 = 3


class HostPermissionTableSize(IntEnum):
    """HPTSZ: size of the level-4 table; n KiB reach translated addresses below n * 2**47 (9.6)."""

    SIZE_4K = 0
    SIZE_8K = 1
    SIZE_16K = 2
    SIZE_32K = 3


class RootEntry(BitRecord, width=128):
    """Root entry (9.1); index = bus."""

    p = Bits(0, as_=bool)
    ctp = address(63, 12)  # context-table pointer


class ScalableRootEntry(BitRecord, width=128):
    """Scalable-mode root entry (9.2); index = bus.

    The halves are independent: reserved bits of each count only while its own present bit is set.
    """

    lp = Bits(0, as_=bool)
    lctp = address(63, 12)  # context table of devices 0 to 15
    up = Bits(64, as_=bool)
    uctp = address(127, 76, shift=12)  # context table of devices 16 to 31


class ContextEntry(BitRecord, width=128):
    """Legacy-mode context entry (9.3); index = device and function."""

    p = Bits(0, as_=bool)
    fpd = Bits(1, as_=bool)  # fault processing disable: evaluated even with P = 0
    tt = Bits(3, 2, as_=TranslationType)
    ssptptr = address(63, 12)
    aw = Bits(66, 64, as_=AddressWidth)
    ign_70_67 = ignored(70, 67)
    did = Bits(87, 72, limit="did_width")


class ScalableContextEntry(BitRecord, width=256):
    """Scalable-mode context entry (9.4); index = low 7 bits of device and function."""

    p = Bits(0, as_=bool)
    fpd = Bits(1, as_=bool)  # evaluated even with P = 0
    dte = Bits(2, as_=bool, needs="dt")  # device-TLB enable
    paside = Bits(3, as_=bool, needs="pasid")
    pre = Bits(4, as_=bool, needs="prs")  # page request enable
    hpte = Bits(5, as_=bool, needs="hpts")  # host permission table enable
    eptr = Bits(6, as_=bool, needs="ptrs")  # enable PASID in translated requests
    pdts = Bits(11, 9)  # the PASID directory has 2**(PDTS + 7) entries
    pasiddirptr = address(63, 12)
    rid_pasid = Bits(83, 64, needs="rps")
    rid_priv = Bits(84, as_=bool, needs="rprivs")


class PasidDirectoryEntry(BitRecord, width=64):
    """Scalable-mode PASID directory entry (9.5); index = PASID bits 19:6."""

    p = Bits(0, as_=bool)
    fpd = Bits(1, as_=bool)  # evaluated even with P = 0
    smptblptr = address(63, 12)


class PasidEntry(BitRecord, width=512):
    """Scalable-mode PASID table entry (9.6); index = PASID bits 5:0.

    Where supported, AW, SSADE, SSPTPTR and EMTE are ignored with PGTT 001b and 100b, WPE, FSPM,
    EAFE and FSPTPTR with PGTT 010b and 100b, and the HPT fields while HPTE of the context entry
    is 0. FSPTPTR is a guest physical address with PGTT 011b.
    """

    p = Bits(0, as_=bool)
    fpd = Bits(1, as_=bool)  # evaluated even with P = 0
    aw = Bits(4, 2, as_=AddressWidth, needs="ssts")
    pgtt = Bits(8, 6, as_=PasidTranslationType)
    ssade = Bits(9, as_=bool, needs="ssads")  # second-stage accessed/dirty enable
    ssptptr = address(63, 12, needs="ssts")
    did = Bits(79, 64, limit="did_width")
    pwsnp = Bits(87, as_=bool, needs="smpwcs")
    pgsnp = Bits(88, as_=bool, needs="sc")
    cd = Bits(89, as_=bool, needs="mts")  # cache disable
    emte = Bits(90, as_=bool, needs="mts")  # extended memory type enable
    pat = Bits(127, 96, needs="mts")  # PA0 to PA7, 4 bits each
    sre = Bits(128, as_=bool, needs="srs")  # supervisor request enable
    fspm = Bits(131, 130, as_=FirstStagePagingMode, needs="fsts")
    wpe = Bits(132, as_=bool, needs="fsts")  # write protect enable
    ign_134_133 = ignored(134, 133)
    eafe = Bits(135, as_=bool, needs="eafs")  # extended accessed flag enable
    fsptptr = address(191, 140, shift=12, needs="fsts")
    hptsz = Bits(257, 256, as_=HostPermissionTableSize, needs="hpts")
    hptpfd = Bits(258, as_=bool, needs="hpts")  # HPT prefetch disable
    hptptr = address(319, 268, shift=12, needs="hpts")
    hptdid = Bits(335, 320, needs="hpts", limit="did_width")


class PagePermissions(Bits[int]):
    """PPi fields, 4 bits each from page 0 upwards: R, W and two reserved bits (Table 48)."""

    def reserved(self, implementation: Implementation) -> int:
        pairs = (1 << self.high + 1) // 0xF * 0xC  # bits 3:2 of every group of four
        return super().reserved(implementation) | self.mask & pairs


class HostPermissionL4Entry(BitRecord, width=128):
    """HPTL4E (9.12.1): points to a level-3 table; index = address bits from 41 upwards."""

    av = Bits(64, as_=bool)  # address valid; while 0 the address is ignored
    addr = address(115, 76, shift=12)
    ign_127_116 = ignored(127, 116)


class HostPermissionL3Entry(BitRecord, width=128):
    """HPTL3E (9.12.2): index = address bits 40:33, PPi by bits 32:30 for pages of 1 GiB."""

    pp = PagePermissions(31, 0, needs="hpt1gps")
    av = Bits(64, as_=bool)
    addr = address(115, 76, shift=12)
    ign_127_116 = ignored(127, 116)


class HostPermissionL2Entry(BitRecord, width=128):
    """HPTL2E (9.12.3): index = address bits 32:25, PPi by bits 24:21 for pages of 2 MiB."""

    pp = PagePermissions(63, 0)
    av = Bits(64, as_=bool)
    addr = address(115, 76, shift=12)
    ign_127_116 = ignored(127, 116)


class HostPermissionL1Entry(BitRecord, width=128):
    """HPTL1E (9.12.4): index = address bits 24:17, PPi by bits 16:12 for pages of 4 KiB."""

    pp = PagePermissions(127, 0)
