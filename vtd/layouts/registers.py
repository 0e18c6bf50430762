"""Register layouts of a remapping unit (VT-d 11.4).

Each register is declared once: where it sits, its value after reset, the capability without which
it is absent, and for each field the bits and how software may touch them. Bits that belong to no
field, and fields whose capability is missing, read as 0 whatever was written. Left out: what a
write causes, and the locks of Table 51 on performance-monitoring fields (RWL, RWLV), which depend
on the state of the unit.

Message data and address fields are as wide as the registers; what their bits mean is in
``vtd.layouts.interrupt_entries``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, ClassVar

from pagetables.bits import Access, BitRecord, Bits

RO = Access.RO
WO = Access.WO
ROS = Access.ROS
RW1C = Access.RW1C
RW1CS = Access.RW1CS


class Register(BitRecord):
    """A memory-mapped register, or an array of ``COUNT`` registers ``STRIDE`` bytes apart.

    ``offset`` is None where a capability or another register says where the array sits; ``needs``
    names the capability without which the register is absent and reads as 0.
    """

    OFFSET: ClassVar[int | None]
    RESET: ClassVar[int]
    NEEDS: ClassVar[str | None]
    COUNT: ClassVar[int]
    STRIDE: ClassVar[int]
    MASKS: ClassVar[dict[Access, int]]
    """Bits by the access kind of their field."""

    def __init_subclass__(
        cls,
        *,
        width: int,
        offset: int | None = None,
        reset: int = 0,
        needs: str | None = None,
        count: int = 1,
        stride: int | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(width=width, **keywords)
        cls.OFFSET = offset
        cls.RESET = reset
        cls.NEEDS = needs
        cls.COUNT = count
        cls.STRIDE = width // 8 if stride is None else stride
        cls.MASKS = {}
        for bits in cls.FIELDS.values():
            cls.MASKS[bits.access] = cls.MASKS.get(bits.access, 0) | bits.mask

    def flags(self) -> frozenset[str]:
        """Names of the one-bit fields that are set."""
        return frozenset(
            name for name, bits in self.FIELDS.items() if bits.as_ is bool and self & bits.mask
        )


class LargePages(IntFlag):
    """CAP.SSLPS: large pages of the second stage."""

    PAGE_2M = 1
    PAGE_1G = 2
    RESERVED_4 = 4
    RESERVED_8 = 8


class AddressWidths(IntFlag):
    """CAP.SAGAW: supported adjusted guest address widths."""

    RESERVED_1 = 1
    AGAW_39 = 2
    AGAW_48 = 4
    AGAW_57 = 8
    RESERVED_16 = 16


class Version(Register, offset=0x000, width=32):
    """11.4.1."""

    max = Bits(7, 4, access=RO)  # major
    min = Bits(3, 0, access=RO)  # minor


class Capability(Register, offset=0x008, width=64):
    """11.4.2."""

    esrtps = Bits(63, as_=bool, access=RO)  # SRTP invalidates the DMA-remapping caches
    esirtps = Bits(62, as_=bool, access=RO)  # SIRTP invalidates the interrupt-remapping cache
    ecmds = Bits(61, as_=bool, access=RO)  # enhanced commands
    fs5lp = Bits(60, as_=bool, access=RO)  # first-stage 5-level paging
    pi = Bits(59, as_=bool, access=RO)  # posted interrupts
    fs1gp = Bits(56, as_=bool, access=RO)  # first-stage 1-GiB pages
    drd = Bits(55, as_=bool, access=RO)  # read draining
    dwd = Bits(54, as_=bool, access=RO)  # write draining
    mamv = Bits(53, 48, access=RO)  # maximum address mask value
    nfr = Bits(47, 40, access=RO)  # number of fault-recording registers, minus 1
    psi = Bits(39, as_=bool, access=RO)  # page-selective invalidation
    sslps = Bits(37, 34, as_=LargePages, access=RO)
    fro = Bits(33, 24, shift=4, access=RO)  # offset of the fault-recording registers
    dep_23 = Bits(23, access=RO)
    zlr = Bits(22, as_=bool, access=RO)  # zero-length reads of write-only pages
    mgaw = Bits(21, 16, access=RO)  # maximum guest address width, minus 1
    sagaw = Bits(12, 8, as_=AddressWidths, access=RO)
    cm = Bits(7, as_=bool, access=RO)  # caching mode
    phmr = Bits(6, as_=bool, access=RO)  # protected high-memory region
    plmr = Bits(5, as_=bool, access=RO)  # protected low-memory region
    rwbf = Bits(4, as_=bool, access=RO)  # write-buffer flushing required
    nd = Bits(2, 0, access=RO)  # domain-ids have 4 + 2 * ND bits


class ExtendedCapability(Register, offset=0x010, width=64):
    """11.4.3."""

    irreq = Bits(62, as_=bool, access=RO)  # interrupt remapping required
    eimer = Bits(61, as_=bool, access=RO)  # extended interrupt mode required
    rdts = Bits(60, as_=bool, access=RO)  # RDT configuration
    hpt1gps = Bits(59, as_=bool, access=RO)  # 1-GiB pages in host permission tables
    sms = Bits(58, as_=bool, access=RO)  # stop marker
    ssirws = Bits(57, as_=bool, access=RO)  # second-stage I/O read/write bits
    ptrs = Bits(56, as_=bool, access=RO)  # PASID in translated requests
    hpts = Bits(55, as_=bool, access=RO)  # host permission tables
    rprivs = Bits(53, as_=bool, access=RO)  # RID_PRIV
    adms = Bits(52, as_=bool, access=RO)  # abort-DMA mode
    pms = Bits(51, as_=bool, access=RO)  # performance monitoring
    tdxcs = Bits(50, as_=bool, access=RO)  # TDX Connect
    rps = Bits(49, as_=bool, access=RO)  # RID_PASID
    smpwcs = Bits(48, as_=bool, access=RO)  # scalable-mode page-walk coherency
    fsts = Bits(47, as_=bool, access=RO)  # first-stage translation
    ssts = Bits(46, as_=bool, access=RO)  # second-stage translation
    ssads = Bits(45, as_=bool, access=RO)  # second-stage accessed/dirty
    vcs = Bits(44, as_=bool, access=RO)  # virtual commands
    smts = Bits(43, as_=bool, access=RO)  # scalable mode
    pds = Bits(42, as_=bool, access=RO)  # page-request drain
    dit = Bits(41, as_=bool, access=RO)  # device-TLB invalidation throttle
    pasid = Bits(40, as_=bool, access=RO)
    pss = Bits(39, 35, access=RO)  # PASID size, minus 1
    eafs = Bits(34, as_=bool, access=RO)  # extended accessed flag
    nwfs = Bits(33, as_=bool, access=RO)  # no-write flag
    srs = Bits(31, as_=bool, access=RO)  # supervisor requests
    ers = Bits(30, as_=bool, access=RO)  # execute requests
    prs = Bits(29, as_=bool, access=RO)  # page requests
    dep_28 = Bits(28, access=RO)
    nest = Bits(26, as_=bool, access=RO)  # nested translation
    mts = Bits(25, as_=bool, access=RO)  # memory types
    dep_24 = Bits(24, access=RO)
    mhmv = Bits(23, 20, access=RO)  # maximum handle mask value
    iro = Bits(17, 8, shift=4, access=RO)  # offset of the IOTLB registers
    sc = Bits(7, as_=bool, access=RO)  # snoop control
    pt = Bits(6, as_=bool, access=RO)  # pass-through
    dep_5 = Bits(5, access=RO)
    eim = Bits(4, as_=bool, access=RO)  # extended interrupt mode
    ir = Bits(3, as_=bool, access=RO)  # interrupt remapping
    dt = Bits(2, as_=bool, access=RO)  # device-TLBs
    qi = Bits(1, as_=bool, access=RO)  # queued invalidation
    c = Bits(0, as_=bool, access=RO)  # page-walk coherency


class GlobalCommand(Register, offset=0x018, width=32):
    """11.4.4.1."""

    te = Bits(31, as_=bool, access=WO)  # translation enable
    srtp = Bits(30, as_=bool, access=WO)  # set root table pointer
    wbf = Bits(27, as_=bool, access=WO)  # write buffer flush
    qie = Bits(26, as_=bool, access=WO)  # queued invalidation enable
    ire = Bits(25, as_=bool, access=WO)  # interrupt remapping enable
    sirtp = Bits(24, as_=bool, access=WO)  # set interrupt remap table pointer
    cfi = Bits(23, as_=bool, access=WO)  # compatibility format interrupt


class GlobalStatus(Register, offset=0x01C, width=32):
    """11.4.4.2."""

    tes = Bits(31, as_=bool, access=RO)
    rtps = Bits(30, as_=bool, access=RO)
    wbfs = Bits(27, as_=bool, access=RO)
    qies = Bits(26, as_=bool, access=RO)
    ires = Bits(25, as_=bool, access=RO)
    irtps = Bits(24, as_=bool, access=RO)
    cfis = Bits(23, as_=bool, access=RO)


class TranslationTableMode(IntEnum):
    """TTM (11.4.5)."""

    LEGACY = 0
    SCALABLE = 1
    RESERVED_2 = 2
    ABORT_DMA = 3


class RootTableAddress(Register, offset=0x020, width=64):
    """11.4.5."""

    rta = Bits(63, 12, shift=12)
    ttm = Bits(11, 10, as_=TranslationTableMode)
    ssirwe = Bits(7, as_=bool, needs="ssirws")


class ContextGranularity(IntEnum):
    """G of cc_inv_dsc (6.5.2.1), CIRG, and CAIG where 0 reports an error (11.4.6.1)."""

    RESERVED_0 = 0
    GLOBAL = 1
    DOMAIN = 2
    DEVICE = 3


class ContextCommand(Register, offset=0x028, width=64):
    """11.4.6.1."""

    icc = Bits(63, as_=bool)  # invalidate context-cache
    cirg = Bits(62, 61, as_=ContextGranularity)
    caig = Bits(60, 59, as_=ContextGranularity, access=RO)
    fm = Bits(33, 32, access=WO)  # function mask
    sid = Bits(31, 16, access=WO)
    did = Bits(15, 0)


class IotlbGranularity(IntEnum):
    """G of iotlb_inv_dsc (6.5.2.3), IIRG, and IAIG where 0 reports an error (11.4.6.3)."""

    RESERVED_0 = 0
    GLOBAL = 1
    DOMAIN = 2
    PAGE_IN_DOMAIN = 3


class IotlbInvalidate(Register, width=64):
    """11.4.6.3; follows the Invalidate Address Register."""

    ivt = Bits(63, as_=bool)  # invalidate IOTLB
    iirg = Bits(61, 60, as_=IotlbGranularity)
    iaig = Bits(58, 57, as_=IotlbGranularity, access=RO)
    dr = Bits(49, as_=bool)  # drain reads
    dw = Bits(48, as_=bool)  # drain writes
    did = Bits(47, 32)


class InvalidateAddress(Register, width=64):
    """11.4.6.4; placed by ECAP.IRO."""

    addr = Bits(63, 12, shift=12, access=WO)
    ih = Bits(6, as_=bool, access=WO)  # invalidation hint
    am = Bits(5, 0, access=WO)  # address mask


class FaultStatus(Register, offset=0x034, width=32):
    """11.4.7.1."""

    fri = Bits(15, 8, access=ROS)  # fault record index
    ite = Bits(6, as_=bool, access=RW1CS, needs="dt")  # invalidation time-out error
    ice = Bits(5, as_=bool, access=RW1CS, needs="dt")  # invalidation completion error
    iqe = Bits(4, as_=bool, access=RW1CS, needs="qi")  # invalidation queue error
    ppf = Bits(1, as_=bool, access=ROS)  # primary pending fault: OR of all F fields
    pfo = Bits(0, as_=bool, access=RW1CS)  # primary fault overflow


class FaultEventControl(Register, offset=0x038, width=32, reset=0x8000_0000):
    """11.4.7.2."""

    im = Bits(31, as_=bool)  # interrupt mask
    ip = Bits(30, as_=bool, access=RO)  # interrupt pending


class FaultEventData(Register, offset=0x03C, width=32):
    """11.4.7.3."""

    imd = Bits(15, 0)


class FaultEventAddress(Register, offset=0x040, width=32):
    """11.4.7.4."""

    ma = Bits(31, 2, shift=2)


class FaultEventUpperAddress(Register, offset=0x044, width=32):
    """11.4.7.5."""

    mua = Bits(31, 0, needs="eim")


class RequestType(IntEnum):
    """T1 and T2 of a fault record, as T1 * 2 + T2 (11.4.7.6)."""

    WRITE = 0
    PAGE_REQUEST = 1
    READ = 2
    ATOMIC_OP = 3


class FaultRecording(Register, width=128):
    """11.4.7.6; CAP.NFR + 1 of them, placed by CAP.FRO."""

    f = Bits(127, as_=bool, access=RW1CS)
    t1 = Bits(126, as_=bool, access=ROS)
    at = Bits(125, 124, access=ROS, needs="dt")  # address type of the request
    pv = Bits(123, 104, access=ROS, needs="pasid")  # PASID value
    fr = Bits(103, 96, access=ROS)  # fault reason
    pp = Bits(95, as_=bool, access=ROS, needs="pasid")  # PASID present
    exe = Bits(94, as_=bool, access=ROS, needs="pasid")  # execute permission requested
    priv = Bits(93, as_=bool, access=ROS, needs="pasid")  # privileged mode requested
    t2 = Bits(92, as_=bool, access=ROS)
    sid = Bits(79, 64, access=ROS)
    fi = Bits(63, 12, shift=12, access=ROS)  # page address, or interrupt_index in bits 63:48

    @property
    def request_type(self) -> RequestType:
        return RequestType(self.t1 << 1 | self.t2)


class ProtectedMemoryEnable(Register, offset=0x064, width=32):
    """11.4.8.1. ``pmr`` stands for either of CAP.PLMR and CAP.PHMR."""

    epm = Bits(31, as_=bool, needs="pmr")  # enable protected memory
    prs = Bits(0, as_=bool, access=RO)  # protected region status


class ProtectedLowMemoryBase(Register, offset=0x068, width=32, needs="plmr"):
    """11.4.8.2. The alignment is the implementation's choice, here 2 MiB."""

    plmb = Bits(31, 21, shift=21)


class ProtectedLowMemoryLimit(Register, offset=0x06C, width=32, needs="plmr"):
    """11.4.8.3. Bits below the field count as ones."""

    plml = Bits(31, 21, shift=21)


class ProtectedHighMemoryBase(Register, offset=0x070, width=64, needs="phmr"):
    """11.4.8.4. The alignment is the implementation's choice, here 2 MiB."""

    phmb = Bits(63, 21, shift=21)


class ProtectedHighMemoryLimit(Register, offset=0x078, width=64, needs="phmr"):
    """11.4.8.5. Bits below the field count as ones."""

    phml = Bits(63, 21, shift=21)


class InvalidationQueueHead(Register, offset=0x080, width=64, needs="qi"):
    """11.4.9.1."""

    qh = Bits(18, 4, shift=4, access=RO)  # byte offset in the queue


class InvalidationQueueTail(Register, offset=0x088, width=64, needs="qi"):
    """11.4.9.2."""

    qt = Bits(18, 4, shift=4)  # byte offset in the queue


class InvalidationQueueAddress(Register, offset=0x090, width=64, needs="qi"):
    """11.4.9.3."""

    iqa = Bits(63, 12, shift=12)
    dw = Bits(11, as_=bool)  # 256-bit descriptors
    qs = Bits(2, 0)  # 2**QS pages of 4 KiB


class InvalidationCompletionStatus(Register, offset=0x09C, width=32, needs="qi"):
    """11.4.9.4."""

    iwc = Bits(0, as_=bool, access=RW1CS)  # invalidation wait descriptor complete


class InvalidationEventControl(Register, offset=0x0A0, width=32, reset=0x8000_0000, needs="qi"):
    """11.4.9.5."""

    im = Bits(31, as_=bool)  # interrupt mask
    ip = Bits(30, as_=bool, access=RO)  # interrupt pending


class InvalidationEventData(Register, offset=0x0A4, width=32, needs="qi"):
    """11.4.9.6."""

    imd = Bits(15, 0)


class InvalidationEventAddress(Register, offset=0x0A8, width=32, needs="qi"):
    """11.4.9.7."""

    ma = Bits(31, 2, shift=2)


class InvalidationEventUpperAddress(Register, offset=0x0AC, width=32, needs="qi"):
    """11.4.9.8."""

    mua = Bits(31, 0, needs="eim")


class InvalidationQueueErrorInfo(IntEnum):
    """IQEI (11.4.9.9)."""

    NO_INFORMATION = 0
    INVALID_TAIL = 1
    FETCH_ERROR = 2
    INVALID_TYPE = 3
    RESERVED_FIELD = 4
    INVALID_WIDTH = 5
    TAIL_MISALIGNED = 6
    INVALID_TRANSLATION_TABLE_MODE = 7
    UNDEFINED_8 = 8
    UNDEFINED_9 = 9
    UNDEFINED_10 = 10
    UNDEFINED_11 = 11
    UNDEFINED_12 = 12
    UNDEFINED_13 = 13
    UNDEFINED_14 = 14
    UNDEFINED_15 = 15


class InvalidationQueueErrorRecord(Register, offset=0x0B0, width=64, needs="qi"):
    """11.4.9.9."""

    icesid = Bits(63, 48, access=ROS)  # invalidation completion error source identifier
    itesid = Bits(47, 32, access=ROS)  # invalidation time-out error source identifier
    iqei = Bits(3, 0, as_=InvalidationQueueErrorInfo, access=ROS)


class InterruptRemappingTableAddress(Register, offset=0x0B8, width=64, needs="ir"):
    """11.4.10."""

    irta = Bits(63, 12, shift=12)
    eime = Bits(11, as_=bool, needs="eim")  # extended interrupt mode enable
    s = Bits(3, 0)  # 2**(S + 1) entries


class PageRequestQueueHead(Register, offset=0x0C0, width=64, needs="prs"):
    """11.4.11.1."""

    pqh = Bits(18, 5, shift=5)  # byte offset in the queue


class PageRequestQueueTail(Register, offset=0x0C8, width=64, needs="prs"):
    """11.4.11.2."""

    pqt = Bits(18, 5, shift=5)  # byte offset in the queue; hardware advances it


class PageRequestQueueAddress(Register, offset=0x0D0, width=64, needs="prs"):
    """11.4.11.3."""

    pqa = Bits(63, 12, shift=12)
    pqs = Bits(2, 0)  # 2**PQS pages of 4 KiB


class PageRequestStatus(Register, offset=0x0DC, width=32, needs="prs"):
    """11.4.11.4."""

    pro = Bits(1, as_=bool, access=RW1CS)  # page request overflow
    ppr = Bits(0, as_=bool, access=RW1CS)  # pending page request


class PageRequestEventControl(Register, offset=0x0E0, width=32, reset=0x8000_0000, needs="prs"):
    """11.4.11.5."""

    im = Bits(31, as_=bool)  # interrupt mask
    ip = Bits(30, as_=bool, access=RO)  # interrupt pending


class PageRequestEventData(Register, offset=0x0E4, width=32, needs="prs"):
    """11.4.11.6."""

    imd = Bits(15, 0)


class PageRequestEventAddress(Register, offset=0x0E8, width=32, needs="prs"):
    """11.4.11.7."""

    ma = Bits(31, 2, shift=2)


class PageRequestEventUpperAddress(Register, offset=0x0EC, width=32, needs="prs"):
    """11.4.11.8."""

    mua = Bits(31, 0, needs="eim")


class MtrrCapability(Register, offset=0x100, width=64, needs="mts"):
    """11.4.12.1."""

    wc = Bits(10, as_=bool, access=RO)  # write combining
    fix = Bits(8, as_=bool, access=RO)  # fixed-range registers
    vcnt = Bits(7, 0, access=RO)  # variable-range registers


class MtrrDefaultType(Register, offset=0x108, width=64, needs="mts"):
    """11.4.12.2."""

    e = Bits(11, as_=bool)  # MTRR enable
    fe = Bits(10, as_=bool)  # fixed-range enable
    type = Bits(7, 0)


class FixedRangeMtrr(Register, offset=0x120, width=64, count=11, needs="fix"):
    """11.4.12.3, where MTRRCAP_REG.FIX reports them.

    64K_00000, 16K_80000, 16K_A0000 and the eight 4K registers from C0000 to F8000.
    """

    r7 = Bits(63, 56)
    r6 = Bits(55, 48)
    r5 = Bits(47, 40)
    r4 = Bits(39, 32)
    r3 = Bits(31, 24)
    r2 = Bits(23, 16)
    r1 = Bits(15, 8)
    r0 = Bits(7, 0)


class VariableRangeMtrrBase(Register, offset=0x180, width=64, count=10, stride=16, needs="mts"):
    """11.4.12.4; as many as MTRRCAP_REG.VCNT says."""

    physbase = Bits(63, 12, shift=12, limit="haw")
    type = Bits(7, 0)


class VariableRangeMtrrMask(Register, offset=0x188, width=64, count=10, stride=16, needs="mts"):
    """11.4.12.4; as many as MTRRCAP_REG.VCNT says."""

    physmask = Bits(63, 12, shift=12, limit="haw")
    v = Bits(11, as_=bool)


class PerformanceMonitoringCapability(Register, offset=0x300, width=64, needs="pms"):
    """11.4.13.2."""

    rsvd_63_60 = Bits(63, 60, access=RO)  # documented default Fh
    cs = Bits(54, 52, access=RO)  # counter stride: 2**(CS + 10) bytes
    pccs = Bits(51, as_=bool, access=RO)  # per-counter capabilities
    ios = Bits(50, as_=bool, access=RO)  # interrupt on overflow
    gfs = Bits(49, as_=bool, access=RO)  # global freeze on overflow
    cwe = Bits(48, as_=bool, access=RO)  # counters writable while enabled
    ptlfs = Bits(36, as_=bool, access=RO)  # page table level filter
    atfs = Bits(35, as_=bool, access=RO)  # address type filter
    pasidfs = Bits(34, as_=bool, access=RO)  # PASID filter
    didfs = Bits(33, as_=bool, access=RO)  # domain-id filter
    ridfs = Bits(32, as_=bool, access=RO)  # requester-id filter
    egcnt = Bits(28, 24, access=RO)  # event groups
    cw = Bits(22, 16, access=RO)  # counter width in bits
    ncntr = Bits(15, 0, access=RO)  # counters


class PerformanceMonitoringConfigurationOffset(Register, offset=0x310, width=32, needs="pms"):
    """11.4.13.3."""

    cfgo = Bits(31, 0, access=RO)


class PerformanceMonitoringFreezeOffset(Register, offset=0x314, width=32, needs="pms"):
    """11.4.13.4."""

    fzo = Bits(31, 0, access=RO)


class PerformanceMonitoringOverflowOffset(Register, offset=0x318, width=32, needs="pms"):
    """11.4.13.5."""

    ofo = Bits(31, 0, access=RO)


class PerformanceMonitoringCounterOffset(Register, offset=0x31C, width=32, needs="pms"):
    """11.4.13.6."""

    cnto = Bits(31, 0, access=RO)


class PerformanceMonitoringInterruptStatus(Register, offset=0x324, width=32, needs="pms"):
    """11.4.13.7."""

    pis = Bits(0, as_=bool, access=RW1C)


class PerformanceMonitoringInterruptControl(
    Register, offset=0x328, width=32, reset=0x8000_0000, needs="pms"
):
    """11.4.13.8."""

    im = Bits(31, as_=bool)  # interrupt mask
    ip = Bits(30, as_=bool, access=RO)  # interrupt pending


class PerformanceMonitoringInterruptData(Register, offset=0x32C, width=32, needs="pms"):
    """11.4.13.9."""

    imd = Bits(15, 0)


class PerformanceMonitoringInterruptAddress(Register, offset=0x330, width=32, needs="pms"):
    """11.4.13.10."""

    ma = Bits(31, 2, shift=2)


class PerformanceMonitoringInterruptUpperAddress(Register, offset=0x334, width=32, needs="pms"):
    """11.4.13.11."""

    mua = Bits(31, 0, needs="eim")


class PerformanceMonitoringFreezeStatus(Register, width=64, needs="pms"):
    """11.4.13.12; one for 64 counters, placed by the freeze offset."""

    fs = Bits(63, 0, access=RO)


class PerformanceMonitoringOverflowStatus(Register, width=64, needs="pms"):
    """11.4.13.13; one for 64 counters, placed by the overflow offset."""

    os = Bits(63, 0, access=RW1C)


class PerformanceMonitoringEventCapability(Register, offset=0x380, width=64, count=16, needs="pms"):
    """11.4.13.14; one for each event group."""

    es = Bits(27, 0, access=RO)  # events supported


class PerformanceMonitoringCounterConfiguration(Register, width=64, stride=0x100, needs="pms"):
    """11.4.13.15; one for each counter, as all that follow, placed by the configuration offset."""

    es = Bits(59, 32)  # event select
    egi = Bits(11, 8)  # event group index
    gfo = Bits(2, as_=bool)  # global freeze on overflow
    io = Bits(1, as_=bool)  # interrupt on overflow
    en = Bits(0, as_=bool, access=RO)


class PerformanceMonitoringRequesterIdFilter(Register, width=32, stride=0x100, needs="ridfs"):
    """11.4.13.16."""

    en = Bits(31, as_=bool)
    rid = Bits(15, 0)


class PerformanceMonitoringDomainIdFilter(Register, width=32, stride=0x100, needs="didfs"):
    """11.4.13.17."""

    en = Bits(31, as_=bool)
    did = Bits(15, 0)


class PasidFilterMode(IntEnum):
    """PFM (11.4.13.18)."""

    MATCH = 0
    ANY_PASID = 1
    WITHOUT_PASID = 2
    RESERVED_3 = 3


class PerformanceMonitoringPasidFilter(Register, width=32, stride=0x100, needs="pasidfs"):
    """11.4.13.18."""

    en = Bits(31, as_=bool)
    pfm = Bits(21, 20, as_=PasidFilterMode)
    pasid = Bits(19, 0)


class PerformanceMonitoringAddressTypeFilter(Register, width=32, stride=0x100, needs="atfs"):
    """11.4.13.19."""

    en = Bits(31, as_=bool)
    at = Bits(4, 0)


class PerformanceMonitoringPageTableLevelFilter(Register, width=32, stride=0x100, needs="ptlfs"):
    """11.4.13.20."""

    en = Bits(31, as_=bool)
    ptl = Bits(4, 0, access=WO)


class PerformanceMonitoringCounterCapability(Register, width=32, stride=0x100, needs="pccs"):
    """11.4.13.21."""

    egcnt = Bits(31, 28, access=RO)
    gfs = Bits(17, as_=bool, access=RO)
    ios = Bits(16, as_=bool, access=RO)
    cw = Bits(15, 8, access=RO)
    pcc = Bits(0, as_=bool, access=RO)


class PerformanceMonitoringCounterEventCapability(Register, width=32, needs="pccs"):
    """11.4.13.22; several for each counter, following its capability register."""

    egi = Bits(31, 28, access=RO)
    es = Bits(27, 0, access=RO)


class PerformanceMonitoringCounter(Register, width=64, needs="pms"):
    """11.4.13.23; one for each counter, placed by the counter offset and stride."""

    cntr = Bits(63, 0)


class EnhancedCommand(Register, offset=0x400, width=64, needs="ecmds"):
    """11.4.14.1."""

    oa = Bits(63, 16, access=WO)  # operand A
    cmd = Bits(7, 0, access=WO)


class EnhancedCommandExtendedOperand(Register, offset=0x408, width=64, needs="ecmds"):
    """11.4.14.2."""

    ob = Bits(63, 0, access=WO)  # operand B


class EnhancedCommandResponse(Register, offset=0x410, width=64, needs="ecmds"):
    """11.4.14.3."""

    rslt = Bits(63, 16, access=RO)
    sc = Bits(7, 1, access=RO)  # status code
    ip = Bits(0, as_=bool, access=RO)  # in progress


class EnhancedCommandStatus(Register, offset=0x420, width=64, count=2, needs="ecmds"):
    """11.4.14.4; all reserved."""


class EnhancedCommandCapability(Register, offset=0x430, width=64, count=4, needs="ecmds"):
    """11.4.14.5. The fields are those of register 3; registers 0 to 2 are all reserved."""

    ufcnts = Bits(53, as_=bool, access=RO)  # unfreeze all counters
    fcnts = Bits(52, as_=bool, access=RO)  # freeze all counters
    rcnts = Bits(51, as_=bool, access=RO)  # reset all counter values
    rcfgs = Bits(50, as_=bool, access=RO)  # reset all counter configuration
    dcnts = Bits(49, as_=bool, access=RO)  # disable counter
    ecnts = Bits(48, as_=bool, access=RO)  # enable counter


class RdtConfiguration(Register, offset=0xDC0, width=64, needs="rdts"):
    """11.4.15."""

    clos = Bits(36, 32)  # class of service
    rmid = Bits(11, 0)  # resource monitoring id


class VirtualCommand(Register, offset=0xE00, width=64, needs="vcs"):
    """11.4.16.1."""

    oa = Bits(63, 16)  # operand A
    cmd = Bits(7, 0)


class VirtualCommandExtendedOperand(Register, offset=0xE08, width=64, needs="vcs"):
    """11.4.16.2."""

    ob = Bits(63, 0)  # operand B


class VirtualCommandResponse(Register, offset=0xE10, width=64, needs="vcs"):
    """11.4.16.3."""

    rslt = Bits(63, 16, access=RO)
    sc = Bits(7, 1, access=RO)  # status code
    ip = Bits(0, as_=bool, access=RO)  # in progress


class VirtualCommandCapability(Register, offset=0xE30, width=64, needs="vcs"):
    """11.4.16.4."""

    fps = Bits(2, as_=bool, access=RO)  # free PASID
    pas = Bits(1, as_=bool, access=RO)  # allocate PASID
    ns = Bits(0, as_=bool, access=RO)  # null command
