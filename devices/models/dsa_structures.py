"""Registers, descriptors and completion records of the Data Streaming Accelerator, version 1.0.

As software uses them (Linux's idxd and its user interface). Left out: interrupt message storage,
performance counters, the event log of version 2, occupancy interrupts and read buffer limits.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from devices.config_space import RO, RW1C
from pagetables.bits import BitRecord, Bits

DESCRIPTOR_SIZE, COMPLETION_SIZE = 64, 32


class Version(BitRecord, width=32):
    """VERSION, 00h."""

    minor = Bits(7, 0, access=RO)
    major = Bits(15, 8, access=RO)


class GeneralCapability(BitRecord, width=64):
    """GENCAP, 10h."""

    block_on_fault = Bits(0, access=RO)
    overlapping_copy = Bits(1, access=RO)
    command_capability = Bits(4, access=RO)
    max_transfer = Bits(20, 16, access=RO)  # log2 of bytes
    max_batch = Bits(24, 21, access=RO)  # log2 of descriptors
    configurable = Bits(31, access=RO)


class WorkQueueCapability(BitRecord, width=64):
    """WQCAP, 20h."""

    total_size = Bits(15, 0, access=RO)
    queues = Bits(23, 16, access=RO)
    configuration_size = Bits(27, 24, access=RO)  # log2 of bytes, less 5
    shared = Bits(48, access=RO)
    dedicated = Bits(49, access=RO)
    ats = Bits(50, access=RO)
    priority = Bits(51, access=RO)


class GroupCapability(BitRecord, width=64):
    """GRPCAP, 30h."""

    groups = Bits(7, 0, access=RO)


class EngineCapability(BitRecord, width=64):
    """ENGCAP, 38h."""

    engines = Bits(7, 0, access=RO)


class OperationCapability(BitRecord, width=256):
    """OPCAP, 40h: a bit for each operation."""

    operations = Bits(255, 0, access=RO)


class TableOffsets(BitRecord, width=128):
    """OFFSETS, 60h, in units of 256 bytes."""

    groups = Bits(15, 0, access=RO)
    queues = Bits(31, 16, access=RO)
    permissions = Bits(47, 32, access=RO)


class GeneralConfiguration(BitRecord, width=32):
    """GENCFG, 80h."""

    read_buffers = Bits(7, 0)


class GeneralControl(BitRecord, width=32):
    """GENCTRL, 88h."""

    software_error_interrupt = Bits(0)
    halt_interrupt = Bits(1)


class DeviceState(IntEnum):
    """What the device is doing."""

    DISABLED = 0
    ENABLED = 1
    DRAIN = 2
    HALT = 3


class GeneralStatus(BitRecord, width=32):
    """GENSTS, 90h."""

    state = Bits(1, 0, access=RO, as_=DeviceState)
    reset_type = Bits(3, 2, access=RO)


class InterruptCause(BitRecord, width=32):
    """INTCAUSE, 98h."""

    software_error = Bits(0, access=RW1C)
    command = Bits(1, access=RW1C)


class Command(IntEnum):
    """What software can ask for."""

    ENABLE_DEVICE = 1
    DISABLE_DEVICE = 2
    DRAIN_ALL = 3
    ABORT_ALL = 4
    RESET_DEVICE = 5
    ENABLE_QUEUE = 6
    DISABLE_QUEUE = 7
    DRAIN_QUEUE = 8
    ABORT_QUEUE = 9
    RESET_QUEUE = 10
    DRAIN_PASID = 11
    ABORT_PASID = 12


class CommandRegister(BitRecord, width=32):
    """CMD, A0h; reads 0."""

    operand = Bits(19, 0)
    command = Bits(24, 20)
    interrupt = Bits(31)


class CommandError(IntEnum):
    """Why a command was not carried out."""

    NONE = 0
    INVALID_COMMAND = 0x01
    INVALID_QUEUE = 0x02
    DEVICE_ENABLED = 0x10
    NO_BUS_MASTER = 0x12
    QUEUE_SIZES = 0x14
    GROUP_INCOMPLETE = 0x15
    QUEUE_IN_TWO_GROUPS = 0x16
    QUEUE_WITHOUT_GROUP = 0x17
    ENGINE_IN_TWO_GROUPS = 0x18
    DEVICE_DISABLED = 0x20
    QUEUE_ENABLED = 0x21
    QUEUE_SIZE = 0x22
    QUEUE_PRIORITY = 0x23
    QUEUE_MODE = 0x24
    QUEUE_PASID = 0x26
    MAX_BATCH = 0x27
    MAX_TRANSFER = 0x28
    NOT_ENABLED = 0x31
    QUEUE_DISABLED = 0x32


class CommandStatus(BitRecord, width=32):
    """CMDSTS, A8h."""

    error = Bits(7, 0, access=RO)  # a CommandError
    active = Bits(31, access=RO)


class CommandCapability(BitRecord, width=32):
    """CMDCAP, B0h: a bit for each command."""

    commands = Bits(31, 0, access=RO)


class SoftwareError(BitRecord, width=256):
    """SWERR, C0h: the first error that no completion record tells."""

    valid = Bits(0, access=RW1C)
    overflow = Bits(1, access=RW1C)
    descriptor_valid = Bits(2, access=RO)
    queue_valid = Bits(3, access=RO)
    batch = Bits(4, access=RO)
    written = Bits(5, access=RO)
    privileged = Bits(6, access=RO)
    error = Bits(15, 8, access=RO)
    queue = Bits(23, 16, access=RO)
    operation = Bits(39, 32, access=RO)
    pasid = Bits(59, 40, access=RO)
    address = Bits(191, 128, access=RO)


class GroupConfiguration(BitRecord, width=512):
    """GRPCFG: queues and engines of a group."""

    queues = Bits(255, 0)
    engines = Bits(319, 256)
    flags = Bits(383, 320)


class QueueConfiguration(BitRecord, width=256):
    """WQCFG, of one work queue."""

    size = Bits(15, 0)
    threshold = Bits(47, 32)
    dedicated = Bits(64)
    block_on_fault = Bits(65)
    ats_disabled = Bits(66)
    page_requests_disabled = Bits(67)
    priority = Bits(71, 68)
    pasid = Bits(91, 72)
    pasid_enabled = Bits(92)
    privileged = Bits(93)
    max_transfer = Bits(100, 96)
    max_batch = Bits(104, 101)
    enabled = Bits(222, access=RO)


class VectorPermission(BitRecord, width=64):
    """MSIXPERM, of one vector: whose descriptors may raise it."""

    ignored = Bits(2)
    pasid_enabled = Bits(3)
    pasid = Bits(31, 12)


class Operation(IntEnum):
    """Operations of descriptors; others are none here."""

    NO_OP = 0x00
    BATCH = 0x01
    DRAIN = 0x02
    MOVE = 0x03
    FILL = 0x04
    COMPARE = 0x05
    COMPARE_PATTERN = 0x06
    CRC = 0x10
    COPY_WITH_CRC = 0x11


class Flag(IntFlag):
    """Flags of descriptors."""

    FENCE = 0x1
    BLOCK_ON_FAULT = 0x2
    COMPLETION_VALID = 0x4
    REQUEST_COMPLETION = 0x8
    REQUEST_INTERRUPT = 0x10
    CHECK_RESULT = 0x80
    CACHE_CONTROL = 0x100
    STRICT_ORDERING = 0x2000
    READ_BACK = 0x4000
    READ_SEED = 0x1_0000


HINTS = 0x1E20
"""Flags that say where data should go; all allowed, none heeded."""


class Descriptor(BitRecord, width=512):
    """64 bytes that software writes to a portal, or to a batch in memory."""

    pasid = Bits(19, 0)
    privileged = Bits(31)
    flags = Bits(55, 32)
    operation = Bits(63, 56)
    completion = Bits(127, 64)
    source = Bits(191, 128)  # of a batch the list, of fills and comparisons the pattern's place
    destination = Bits(255, 192)  # or the second source
    size = Bits(287, 256)  # bytes, or descriptors
    vector = Bits(303, 288)
    seed = Bits(351, 320)  # or, in bit 0, what a comparison is expected to give
    seed_address = Bits(447, 384)


class Status(IntEnum):
    """How a descriptor ended; bit 7 is set where a write met the page fault."""

    NONE = 0x00
    SUCCESS = 0x01
    FALSE_PREDICATE = 0x02
    PAGE_FAULT = 0x03
    PAGE_REQUEST_REFUSED = 0x04
    BATCH_FAILED = 0x05
    BATCH_PAGE_FAULT = 0x06
    INVALID_OPERATION = 0x10
    INVALID_FLAGS = 0x11
    TRANSFER_SIZE = 0x13
    DESCRIPTOR_COUNT = 0x14
    OVERLAP = 0x16
    LIST_ALIGNMENT = 0x18
    INTERRUPT_HANDLE = 0x19
    COMPLETION_PAGE_FAULT = 0x1A
    COMPLETION_ALIGNMENT = 0x1B


class Completion(BitRecord, width=256):
    """The completion record of a descriptor."""

    status = Bits(6, 0)
    written = Bits(7)
    result = Bits(15, 8)
    completed = Bits(63, 32)  # bytes, or descriptors
    address = Bits(127, 64)  # of a page fault
    crc = Bits(159, 128)  # or flags that are invalid
