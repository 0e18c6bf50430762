"""The registers of BAR0, each declared once: offset, value after reset, and which bits do what.

Offsets and reset values are those that the Linux driver and the model in QEMU agree on. What is not
declared here reads 0 and drops writes. Fields that the model looks at follow their register.
"""

from __future__ import annotations

from dataclasses import dataclass

ALL = 0xFFFF_FFFF
QUEUES = 16
POOLS = 8
VECTORS = 25
"""Interrupt causes that have a vector of their own."""
ADDRESSES = 24
"""Entries of the receive address table."""


_RESET: list[int] = []


@dataclass(frozen=True, slots=True)
class Declared:
    """A register, or an array of them."""

    offset: int
    """Where the first one is in BAR0."""
    count: int
    stride: int
    writable: int
    """Bits that keep what software writes."""
    cleared: int
    """Bits that software clears by writing 1."""
    read_clears: int
    """Bits that a read clears."""
    kept: bool
    """Whether a software reset (CTRL.RST) leaves it alone."""


DECLARED: dict[int, Declared] = {}
"""Every register by the place of its value among all values."""


def _register(
    offset: int,
    *,
    reset: int = 0,
    writable: int = ALL,
    cleared: int = 0,
    read_clears: int = 0,
    count: int = 1,
    stride: int = 4,
    kept: bool = False,
) -> int:
    """Declare one. It is known by the place of its value; the rest of an array follows."""
    place = len(_RESET)
    _RESET.extend([reset] * count)
    DECLARED[place] = Declared(offset, count, stride, writable, cleared, read_clears, kept)
    return place


def _queue(offset: int, *, reset: int = 0, writable: int = ALL, read_clears: int = 0) -> int:
    """A register that each of the 16 queues of a direction has."""
    return _register(
        offset,
        reset=reset,
        writable=writable,
        read_clears=read_clears,
        count=QUEUES,
        stride=0x40,
    )


def _counter(offset: int) -> int:
    """A counter that reading clears."""
    return _register(offset, writable=0, read_clears=ALL)


def _vf(offset: int, *, writable: int = ALL) -> int:
    """A register that each VF sees in its own BAR, and the PF among those of all VFs."""
    return _register(offset, writable=writable, count=POOLS, stride=0x100)


CTRL = _register(0x0000, reset=0x0010_0209)
CTRL_MASTER_DISABLE = 1 << 2
CTRL_LINK_UP = 1 << 6
CTRL_RESET = 1 << 26
CTRL_DEVICE_RESET = 1 << 29
CTRL_VLAN_MODE = 1 << 30
CTRL_PHY_RESET = 1 << 31

STATUS = _register(0x0008, writable=0)
STATUS_FULL_DUPLEX = 1 << 0
STATUS_LINK_UP = 1 << 1
STATUS_GIGABIT = 2 << 6
STATUS_PHY_RESET = 1 << 10
STATUS_VFS = 14
STATUS_IOV = 1 << 18
STATUS_MASTER_ENABLED = 1 << 19
STATUS_31 = 1 << 31

EECD = _register(0x0010, reset=2 << 11 | 3 << 8, writable=0x4F)
EECD_REQUEST = 1 << 6
EECD_GRANT = 1 << 7
EERD = _register(0x0014)
CTRL_EXT = _register(0x0018)
CTRL_EXT_PF_RESET_DONE = 1 << 14
MDIC = _register(0x0020)
SCTL = _register(0x0024)
FCAL = _register(0x0028)
FCAH = _register(0x002C, writable=0xFFFF)
FCT = _register(0x0030, writable=0xFFFF)
CONNSW = _register(0x0034)
VET = _register(0x0038, reset=0x8100_8100)
TSSDP = _register(0x003C)

ICR = _register(0x00C0, writable=0)
ICR_TRANSMITTED = 1 << 0
ICR_LINK = 1 << 2
ICR_RECEIVED = 1 << 7
ICR_MAILBOX = 1 << 8
ICR_OUT_OF_SYNC = 1 << 28
ICR_RESET = 1 << 30
ICR_ASSERTED = 1 << 31
ITR = _register(0x00C4)
ICS = _register(0x00C8, writable=0)
IMS = _register(0x00D0, writable=0)
IMS_BITS = 0x77D4_FBFD
IMC = _register(0x00D8, writable=0)
IAM = _register(0x00E0)

RCTL = _register(0x0100, writable=0x04CF_B0FE)
RCTL_ENABLE = 1 << 1
RCTL_UNICAST_PROMISCUOUS = 1 << 3
RCTL_MULTICAST_PROMISCUOUS = 1 << 4
RCTL_LONG = 1 << 5
RCTL_LOOPBACK = 3 << 6
RCTL_HASH_BITS = 12
RCTL_BROADCAST = 1 << 15
RCTL_BUFFER_SIZE = 16
RCTL_VLAN_FILTER = 1 << 18
RCTL_STRIP_CRC = 1 << 26
FCTTV = _register(0x0170, writable=0xFFFF)
TXCW = _register(0x0178)
TCTL = _register(0x0400, reset=0xA404_00F8)
TCTL_ENABLE = 1 << 1
TCTL_PAD_SHORT = 1 << 3
TCTL_EXT = _register(0x0404, reset=0x1_0840)
TIPG = _register(0x0410, reset=0x0060_1008, writable=0x3FFF_FFFF)
AIT = _register(0x0458)

VMBMEM = _register(0x0800, count=POOLS * 16)
P2VMAILBOX = _register(0x0C00, count=POOLS, writable=0)
V2PMAILBOX = _register(0x0C40, count=POOLS, writable=0, reset=1 << 6)
MBVFICR = _register(0x0C80, writable=0, cleared=0x00FF_00FF)
MBVFIMR = _register(0x0C84, reset=0xFF, writable=0xFF)
VFLRE = _register(0x0C88, writable=0, cleared=0xFF)
VFRE = _register(0x0C8C, reset=0xFF, writable=0xFF)
VFTE = _register(0x0C90, reset=0xFF, writable=0xFF)

LEDCTL = _register(0x0E00, reset=0x0706_8302)
PBA = _register(0x1000)
EEMNGCTL = _register(0x1010, reset=1 << 31 | 3 << 18)
I2CCMD = _register(0x1028)
EEWR = _register(0x102C)
TCPTIMER = _register(0x104C)

GPIE = _register(0x1514)
GPIE_NSICR = 1 << 0
GPIE_MSIX = 1 << 4
GPIE_AUTO_MASK = 1 << 30
EICS = _register(0x1520, writable=0)
EIMS = _register(0x1524, writable=0)
EIMC = _register(0x1528, writable=0)
EIAC = _register(0x152C)
EIAM = _register(0x1530)
EICR = _register(0x1580, writable=0)
EITR = _register(0x1680, count=VECTORS, writable=0x7FFF_FFFF, kept=True)
IVAR = _register(0x1700, count=8)
IVAR_MISC = _register(0x1740)

FCRTL = _register(0x2160)
FCRTH = _register(0x2168, writable=0xFFF0)
RXPBS = _register(0x2404, reset=0x40, kept=True)
QDE = _register(0x2408)
FCRTV = _register(0x2460)
DMACR = _register(0x2508)
TXPBS = _register(0x3404, reset=0x28, kept=True)
DTXSWC = _register(0x3500)
DTXSWC_LOOPBACK = 1 << 31
LVMMC = _register(0x3548, writable=0, read_clears=ALL)
WVBR = _register(0x3554, writable=0, read_clears=ALL)
DTXCTL = _register(0x3590, reset=0x44)
RTTDQSEL = _register(0x3604)
RTTBCNRM = _register(0x3690)
RTTBCNRC = _register(0x36B0)
VMVIR = _register(0x3700, count=POOLS)
VMVIR_ALWAYS = 1 << 30
VMVIR_NEVER = 1 << 31

CRCERRS = _counter(0x4000)
MPC = _counter(0x4010)
PRC64 = _register(0x405C, writable=0, read_clears=ALL, count=6)
"""Good frames received by size: 64, to 127, 255, 511, 1023, longer."""
GPRC = _counter(0x4074)
BPRC = _counter(0x4078)
MPRC = _counter(0x407C)
GPTC = _counter(0x4080)
GORCL = _counter(0x4088)
GORCH = _counter(0x408C)
GOTCL = _counter(0x4090)
GOTCH = _counter(0x4094)
RNBC = _counter(0x40A0)
ROC = _counter(0x40AC)
TORL = _counter(0x40C0)
TORH = _counter(0x40C4)
TOTL = _counter(0x40C8)
TOTH = _counter(0x40CC)
TPR = _counter(0x40D0)
TPT = _counter(0x40D4)
PTC64 = _register(0x40D8, writable=0, read_clears=ALL, count=6)
MPTC = _counter(0x40F0)
BPTC = _counter(0x40F4)
TSCTC = _counter(0x40F8)
TSCTFC = _counter(0x40FC)
IAC = _counter(0x4100)

RXCSUM = _register(0x5000, reset=0x300)
RXCSUM_IP = 1 << 8
RXCSUM_L4 = 1 << 9
RXCSUM_PCSD = 1 << 13
RLPML = _register(0x5004, reset=0x2600, writable=0x3FFF)
RFCTL = _register(0x5008)
MTA = _register(0x5200, count=128)
RAL = _register(0x5400, count=16, stride=8)
RAH = _register(0x5404, count=16, stride=8, writable=0x83FF_FFFF)
RAL_16 = _register(0x54E0, count=8, stride=8)
RAH_16 = _register(0x54E4, count=8, stride=8, writable=0x83FF_FFFF)
RAH_VALID = 1 << 31
RAH_POOLS = 18
PSRTYPE = _register(0x5480, count=POOLS)
VFTA = _register(0x5600, count=128)
WUC = _register(0x5800)
WUFC = _register(0x5808)
MRQC = _register(0x5818)
MRQC_VMDQ = 1 << 0
VT_CTL = _register(0x581C)
VT_CTL_DEFAULT_POOL = 7
VT_CTL_NO_DEFAULT = 1 << 29
VT_CTL_REPLICATION = 1 << 30
MANC = _register(0x5820)
IP4AT = _register(0x5840, count=8)
SAQF = _register(0x5980, count=8)
DAQF = _register(0x59A0, count=8)
SPQF = _register(0x59C0, count=8)
FTQF = _register(0x59E0, count=8)
VMOLR = _register(0x5AD0, count=POOLS, reset=0x8000_2600)
VMOLR_LENGTH = 0x3FFF
VMOLR_LONG = 1 << 16
VMOLR_RSS = 1 << 17
VMOLR_UNTAGGED = 1 << 24
VMOLR_OVERFLOW_MULTICAST = 1 << 25
VMOLR_OVERFLOW_UNICAST = 1 << 26
VMOLR_BROADCAST = 1 << 27
VMOLR_MULTICAST_PROMISCUOUS = 1 << 28
VMOLR_STRIP_VLAN = 1 << 30
VMOLR_STRIP_CRC = 1 << 31
RPLOLR = _register(0x5AF0, reset=0x8000_0000)
GCR = _register(0x5B00, reset=1 << 18)
FACTPS = _register(0x5B30)
SWSM = _register(0x5B50, writable=0)
SWSM_SEMAPHORE = 1 << 0
SWSM_FIRMWARE_SEMAPHORE = 1 << 1
FWSM = _register(0x5B54, writable=0)
SW_FW_SYNC = _register(0x5B5C, writable=0x00FF_FFFF)
PCIEMISC = _register(0x5BB8)
IOVCTL = _register(0x5BBC)
RETA = _register(0x5C00, count=32)
RSSRK = _register(0x5C80, count=10)
ETQF = _register(0x5CB0, count=8)
VLVF = _register(0x5D00, count=32)
VLVF_POOLS = 12
VLVF_ENABLE = 1 << 31
TSYNCRXCFG = _register(0x5F50)
UTA = _register(0xA000, count=128)
SYSTIM = _register(0xB600, count=2)
TIMINCA = _register(0xB608)
TSYNCTXCTL = _register(0xB614)
TSYNCRXCTL = _register(0xB620)
TSAUXC = _register(0xB640)
TSICR = _register(0xB66C)
TSIM = _register(0xB674)

RDBAL = _queue(0xC000, writable=0xFFFF_FF80)
RDBAH = _queue(0xC004)
RDLEN = _queue(0xC008, writable=0x000F_FFF0)
SRRCTL = _queue(0xC00C)
SRRCTL_PACKET_SIZE = 0x7F
SRRCTL_HEADER_SIZE = 8
SRRCTL_TYPE = 25
SRRCTL_DROP = 1 << 31
RDH = _queue(0xC010, writable=0xFFFF)
RXCTL = _queue(0xC014)
RDT = _queue(0xC018, writable=0xFFFF)
RXDCTL = _queue(0xC028, reset=0x1_0000)
QUEUE_ENABLE = 1 << 25
RQDPC = _queue(0xC030, writable=0, read_clears=ALL)
TDBAL = _queue(0xE000, writable=0xFFFF_FF80)
TDBAH = _queue(0xE004)
TDLEN = _queue(0xE008, writable=0x000F_FFF0)
TDH = _queue(0xE010, writable=0xFFFF)
TXCTL = _queue(0xE014, reset=0x2A00)
TDT = _queue(0xE018, writable=0xFFFF)
TXDCTL = _queue(0xE028)
TDWBAL = _queue(0xE038)
TDWBAH = _queue(0xE03C)

VTCTRL = _vf(0x1_0000, writable=0)
VTEICS = _vf(0x1_0020, writable=0)
VTEIMS = _vf(0x1_0024, writable=0)
VTEIMC = _vf(0x1_0028, writable=0)
VTEIAC = _vf(0x1_002C, writable=0)
VTEIAM = _vf(0x1_0030, writable=0)
VFGPRC = _vf(0x1_0010, writable=0)
VFGPTC = _vf(0x1_0014, writable=0)
VFGORC = _vf(0x1_0018, writable=0)
VFGOTC = _vf(0x1_0034, writable=0)
VFMPRC = _vf(0x1_003C, writable=0)
VTEICR = _vf(0x1_0080, writable=0)
VTIVAR = _register(0x1_1700, count=POOLS)
VTIVAR_MISC = _register(0x1_1720, count=POOLS)


def offset_of(register: int, index: int = 0) -> int:
    """Where a register is in BAR0, or one of an array; ``RDT + 3`` is the fourth's value."""
    declared = DECLARED[register]
    return declared.offset + index * declared.stride


CELLS: dict[int, tuple[int, int]] = {
    offset_of(register, index): (register, index)
    for register, declared in DECLARED.items()
    for index in range(declared.count)
}
"""Every 32 bits by their offset: the register, and which of its array they are."""
CELLS |= {
    base + 0x100 * queue + at: CELLS[ring + 0x40 * queue + at]
    for base, ring in ((0x2800, 0xC000), (0x3800, 0xE000))
    for queue in range(4)
    for at in range(0, 0x40, 4)
    if ring + at in CELLS
}  # queues 0 to 3 are seen a second time, where older controllers have them
_RESET[RXDCTL] |= QUEUE_ENABLE
_RESET[TXDCTL] |= QUEUE_ENABLE
RESET = tuple(_RESET)
"""All values after power-on."""
KEPT = tuple(
    register + index
    for register, declared in DECLARED.items()
    if declared.kept
    for index in range(declared.count)
)
"""Places of those that survive a software reset."""


def address_entry(index: int) -> tuple[int, int]:
    """Places of RAL and RAH of one of the 24 receive addresses."""
    if index < 16:
        return RAL + index, RAH + index
    return RAL_16 + index - 16, RAH_16 + index - 16
