"""NVMe registers, queue entries and identify pages, as bit records and byte layouts.

NVM Express Base Specification 1.4. Scatter-gather lists and metadata are left out.
"""

from __future__ import annotations

from enum import IntEnum

from devices.config_space import RO
from pagetables.bits import BitRecord, Bits

SUBMISSION_SIZE = 64
COMPLETION_SIZE = 16
IDENTIFY_SIZE = 4096
BLOCK_SHIFT = 9


class Offset(IntEnum):
    """Registers of BAR0."""

    CAP = 0x00
    VS = 0x08
    INTMS = 0x0C
    INTMC = 0x10
    CC = 0x14
    CSTS = 0x1C
    AQA = 0x24
    ASQ = 0x28
    ACQ = 0x30
    DOORBELLS = 0x1000


class Capabilities(BitRecord, width=64):
    """CAP: what the controller can do."""

    mqes = Bits(15, 0, access=RO)  # largest queue, minus one
    cqr = Bits(16, access=RO)  # queues have to be contiguous
    ams = Bits(18, 17, access=RO)
    to = Bits(31, 24, access=RO)  # 500 ms units until ready
    dstrd = Bits(35, 32, access=RO)
    nssrs = Bits(36, access=RO)
    css = Bits(44, 37, access=RO)  # bit 0: NVM command set
    mpsmin = Bits(51, 48, access=RO)
    mpsmax = Bits(55, 52, access=RO)


class Configuration(BitRecord, width=32):
    """CC: controller configuration."""

    en = Bits(0)
    css = Bits(6, 4)
    mps = Bits(10, 7)  # memory pages are of 2^(12+MPS) bytes
    ams = Bits(13, 11)
    shn = Bits(15, 14)
    iosqes = Bits(19, 16)
    iocqes = Bits(23, 20)


class ControllerStatus(BitRecord, width=32):
    """CSTS: controller status."""

    rdy = Bits(0, access=RO)
    cfs = Bits(1, access=RO)  # fatal
    shst = Bits(3, 2, access=RO)  # 2: shutdown complete


class AdminQueues(BitRecord, width=32):
    """AQA: entries of the admin queues, minus one."""

    asqs = Bits(11, 0)
    acqs = Bits(27, 16)


class Submission(BitRecord, width=512):
    """A submission queue entry."""

    opcode = Bits(7, 0)
    fuse = Bits(9, 8)
    psdt = Bits(15, 14)  # 0: PRP
    cid = Bits(31, 16)
    nsid = Bits(63, 32)
    prp1 = Bits(255, 192)
    prp2 = Bits(319, 256)
    cdw10 = Bits(351, 320)
    cdw11 = Bits(383, 352)
    cdw12 = Bits(415, 384)

    @property
    def start_block(self) -> int:
        """First logical block of a read or write: CDW10 and CDW11."""
        return self.cdw10 | self.cdw11 << 32

    @property
    def blocks(self) -> int:
        """Logical blocks of a read or write."""
        return (self.cdw12 & 0xFFFF) + 1


class CompletionEntry(BitRecord, width=128):
    """A completion queue entry."""

    result = Bits(31, 0)
    sq_head = Bits(79, 64)
    sq_id = Bits(95, 80)
    cid = Bits(111, 96)
    phase = Bits(112)
    status = Bits(123, 113)  # status code type and status code
    dnr = Bits(127)  # do not retry


class Admin(IntEnum):
    """Opcodes of the admin queue."""

    DELETE_SQ = 0x00
    CREATE_SQ = 0x01
    GET_LOG_PAGE = 0x02
    DELETE_CQ = 0x04
    CREATE_CQ = 0x05
    IDENTIFY = 0x06
    ABORT = 0x08
    SET_FEATURES = 0x09
    GET_FEATURES = 0x0A
    ASYNC_EVENT = 0x0C


class Io(IntEnum):
    """Opcodes of the I/O queues."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    COMPARE = 0x05
    WRITE_ZEROES = 0x08


class Status(IntEnum):
    """Status code type << 8 | status code."""

    SUCCESS = 0x000
    BAD_OPCODE = 0x001
    BAD_FIELD = 0x002
    DATA_TRANSFER_ERROR = 0x004
    BAD_NAMESPACE = 0x00B
    BAD_PRP_OFFSET = 0x013
    LBA_OUT_OF_RANGE = 0x080
    CQ_INVALID = 0x100
    QID_INVALID = 0x101
    QUEUE_SIZE = 0x102
    BAD_VECTOR = 0x108
    BAD_QUEUE_DELETION = 0x10C
    COMPARE_FAILURE = 0x285


class CommandError(Exception):
    """Ends a command with a status; raised where found, caught where commands are completed."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


NUMBER_OF_QUEUES = 0x07
"""The one feature that can be set and read."""


def identify_controller(queue_pairs: int, max_pages_log2: int) -> bytes:
    """The identify controller page."""
    page = bytearray(IDENTIFY_SIZE)
    fields = {
        0: (0x1B36).to_bytes(2, "little"),
        2: (0x1AF4).to_bytes(2, "little"),
        4: b"model".ljust(20),
        24: b"emulated NVMe controller".ljust(40),
        64: b"1.0".ljust(8),
        77: bytes([max_pages_log2]),
        80: (0x0001_0400).to_bytes(4, "little"),
        512: b"\x66\x44",
        516: (1).to_bytes(4, "little"),
        520: (1 << 3 | 1).to_bytes(2, "little"),
        768: f"nqn.2014-08.org.nvmexpress:model-{queue_pairs}".encode(),
    }
    for offset, data in fields.items():
        page[offset : offset + len(data)] = data
    return bytes(page)


def identify_namespace(blocks: int) -> bytes:
    """The identify namespace page: one format, 512-byte blocks without metadata."""
    page = bytearray(IDENTIFY_SIZE)
    for offset in (0, 8, 16):
        page[offset : offset + 8] = blocks.to_bytes(8, "little")
    page[130] = BLOCK_SHIFT
    return bytes(page)


def active_namespaces(after: int) -> bytes:
    """The list of namespace ids above ``after``: there is one namespace, 1."""
    listed = (1).to_bytes(4, "little") if after < 1 else b""
    return listed.ljust(IDENTIFY_SIZE, b"\0")


def namespace_descriptors() -> bytes:
    """The identification descriptor list of namespace 1: an EUI-64."""
    return (b"\x01\x08\0\0" + b"\x52\x54\0\0\0\0\0\x01").ljust(IDENTIFY_SIZE, b"\0")
