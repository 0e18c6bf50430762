"""Itanium registers that virtualization looks at (SDM volume 2, chapters 3 to 5)."""

from __future__ import annotations

from enum import IntEnum

from pagetables.bits import BitRecord, Bits


class Psr(BitRecord, width=64):
    """Processor status register, of the processor or of a virtual one."""

    be = Bits(1)  # big-endian accesses
    up = Bits(2)
    ac = Bits(3)
    mfl = Bits(4)
    mfh = Bits(5)
    ic = Bits(13)  # interruption collection
    i = Bits(14)  # external interrupts are taken
    pk = Bits(15)
    dt = Bits(17)
    dfl = Bits(18)
    dfh = Bits(19)
    sp = Bits(20)
    pp = Bits(21)
    di = Bits(22)
    si = Bits(23)  # the interval timer counter is secure
    db = Bits(24)
    lp = Bits(25)
    tb = Bits(26)
    rt = Bits(27)
    cpl = Bits(33, 32)
    is_ = Bits(34)
    mc = Bits(35)
    it = Bits(36)
    id = Bits(37)
    da = Bits(38)
    dd = Bits(39)
    ss = Bits(40)
    ri = Bits(42, 41)
    ed = Bits(43)
    bn = Bits(44)  # register bank
    ia = Bits(45)
    vm = Bits(46)  # privileged instructions cause virtualization faults


READ_BY_MOV = 0x18_FFFF_FFFF
"""Bits of PSR that a move from it gives: 36:35 and 31:0."""
MASKS = 0xFF_FFFF & ~Psr.RESERVED
"""Bits that ssm and rsm may name: those of 23:0 that are defined."""
WRITTEN_BY_MOV = 0xFFFF_FFFF & ~Psr.RESERVED
"""Bits that a move to PSR.l may set."""
KEPT_BY_INTERRUPTION = Psr.of(up=1, mfl=1, mfh=1, pk=1, dt=1, rt=1, mc=1, it=1)
"""Bits of PSR that an interruption leaves; ic, i, cpl, bn, vm and the others become 0."""


class Tpr(BitRecord, width=64):
    """Task priority register."""

    mic = Bits(7, 4)  # classes up to this one are masked
    mmi = Bits(16)  # all but NMI are masked


class Cpuid3(BitRecord, width=64):
    """CPUID register 3."""

    number = Bits(7, 0)  # of the highest register
    revision = Bits(15, 8)
    model = Bits(23, 16)
    family = Bits(31, 24)
    archrev = Bits(39, 32)


class RegionRegister(BitRecord, width=64):
    """A region register, and the part of ITIR with the same places."""

    ve = Bits(0)
    ps = Bits(7, 2)  # preferred page size, as a power of two
    rid = Bits(31, 8)


class KeyRegister(BitRecord, width=64):
    """A protection key register."""

    v = Bits(0)
    wd = Bits(1)
    rd = Bits(2)
    xd = Bits(3)
    key = Bits(31, 8)


class Itir(BitRecord, width=64):
    """Interruption TLB insertion register."""

    ps = Bits(7, 2)
    key = Bits(31, 8)


class Pta(BitRecord, width=64):
    """Page table address."""

    ve = Bits(0)
    size = Bits(7, 2)
    vf = Bits(8)  # long format
    base = Bits(63, 15, shift=15)


class TranslationEntry(BitRecord, width=64):
    """A translation as itc and itr insert it; bit 63:53 belong to software."""

    p = Bits(0)
    ma = Bits(4, 2)
    a = Bits(5)
    d = Bits(6)
    pl = Bits(8, 7)
    ar = Bits(11, 9)  # access rights
    ppn = Bits(49, 12, shift=12)
    ed = Bits(52)

    @property
    def writable(self) -> bool:
        """Whether privilege level 0 may write (Table 4-2)."""
        return self.ar in WRITABLE


WRITABLE = frozenset({2, 3, 4, 5, 6})
"""Access rights with which the most privileged level may write."""


class Cr(IntEnum):
    """Control registers by number; the others are reserved."""

    DCR = 0
    ITM = 1
    IVA = 2
    PTA = 8
    IPSR = 16
    ISR = 17
    IIP = 19
    IFA = 20
    ITIR = 21
    IIPA = 22
    IFS = 23
    IIM = 24
    IHA = 25
    LID = 64
    IVR = 65
    TPR = 66
    EOI = 67
    IRR0 = 68
    IRR1 = 69
    IRR2 = 70
    IRR3 = 71
    ITV = 72
    PMV = 73
    CMCV = 74
    LRR0 = 80
    LRR1 = 81


CONTROL_REGISTERS = frozenset(Cr)
INTERRUPTION_CRS = frozenset({Cr.IPSR, Cr.ISR, *range(Cr.IIP, Cr.IHA + 1)})
"""What an interruption collects; accessible while PSR.ic is 0."""
EXTERNAL_INTERRUPT_CRS = frozenset(range(Cr.IVR, Cr.IRR3 + 1))
AR_ITC = 44
"""Application register: the interval timer counter."""
WORD = (1 << 64) - 1
"""All bits of a register."""
