"""NVMe registers, queue entries and codes.

NVM Express Base Specification 1.4. Metadata is left out.
"""

from __future__ import annotations

from enum import IntEnum

from devices.config_space import RO
from pagetables.bits import BitRecord, Bits

SUBMISSION_SIZE = 64
COMPLETION_SIZE = 16
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


class SglDescriptor(BitRecord, width=128):
    """One descriptor of a scatter-gather list."""

    address = Bits(63, 0)
    length = Bits(95, 64)
    subtype = Bits(123, 120)  # 0: an address
    type = Bits(127, 124)  # an SglType


class SglType(IntEnum):
    """Kinds of descriptors; other codes may come."""

    DATA = 0
    BIT_BUCKET = 1
    SEGMENT = 2
    LAST_SEGMENT = 3


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
    cdw13 = Bits(447, 416)

    @property
    def sgl(self) -> SglDescriptor:
        """The data pointer as a scatter-gather list's descriptor."""
        return SglDescriptor(self >> 192 & (1 << 128) - 1)

    @property
    def fua(self) -> bool:
        """Whether a write is to be durable when it completes: force unit access."""
        return bool(self.cdw12 >> 30 & 1)

    @property
    def start_block(self) -> int:
        """First logical block of a read or write: CDW10 and CDW11."""
        return self >> 320 & (1 << 64) - 1

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
    VIRTUALIZATION = 0x1C


class Io(IntEnum):
    """Opcodes of the I/O queues."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    COMPARE = 0x05
    WRITE_ZEROES = 0x08
    DATASET = 0x09


class Status(IntEnum):
    """Status code type << 8 | status code."""

    SUCCESS = 0x000
    BAD_OPCODE = 0x001
    BAD_FIELD = 0x002
    DATA_TRANSFER_ERROR = 0x004
    BAD_NAMESPACE = 0x00B
    COMMAND_SEQUENCE = 0x00C
    SGL_SEGMENT = 0x00D
    SGL_COUNT = 0x00E
    SGL_LENGTH = 0x00F
    SGL_TYPE = 0x011
    BAD_PRP_OFFSET = 0x013
    LBA_OUT_OF_RANGE = 0x080
    CQ_INVALID = 0x100
    QID_INVALID = 0x101
    QUEUE_SIZE = 0x102
    TOO_MANY_EVENT_REQUESTS = 0x105
    BAD_VECTOR = 0x108
    BAD_LOG_PAGE = 0x109
    BAD_QUEUE_DELETION = 0x10C
    NOT_SAVEABLE = 0x10D
    BAD_CONTROLLER = 0x11F
    BAD_SECONDARY_STATE = 0x120
    BAD_RESOURCE_COUNT = 0x121
    BAD_RESOURCE = 0x122
    COMPARE_FAILURE = 0x285


class CommandError(Exception):
    """Ends a command with a status; raised where found, caught where commands are completed."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Feature(IntEnum):
    """Features that can be read; all but the last can be set at any time."""

    ARBITRATION = 0x01
    POWER = 0x02
    TEMPERATURE = 0x04
    ERROR_RECOVERY = 0x05
    WRITE_CACHE = 0x06
    COALESCING = 0x08
    VECTOR = 0x09
    ATOMICITY = 0x0A
    EVENTS = 0x0B
    QUEUES = 0x07


class LogPage(IntEnum):
    """Log pages."""

    ERRORS = 0x01
    HEALTH = 0x02
    FIRMWARE = 0x03
    NAMESPACES = 0x04
    EFFECTS = 0x05


class EventType(IntEnum):
    """Types of asynchronous events."""

    ERROR = 0
    HEALTH = 1
    NOTICE = 2


class AsyncEvent(BitRecord, width=32):
    """What an asynchronous event request completes with."""

    type = Bits(2, 0)
    information = Bits(15, 8)
    log_page = Bits(23, 16)


class Virtualization(IntEnum):
    """Actions of the virtualization management command."""

    OFFLINE = 7
    ASSIGN = 8
    ONLINE = 9


BROADCAST = 0xFFFF_FFFF
"""The namespace id that means all of them."""
