"""Registers, ring entries and commands of a virtio block device (virtio 1.2: 2.7, 4.1.4, 5.2)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from devices.config_space import RO
from pagetables.bits import BitRecord, Bits

NO_VECTOR = 0xFFFF
VERSION_1, ACCESS_PLATFORM = 1 << 32, 1 << 33
FEATURES = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 28 | VERSION_1
"""SEG_MAX, BLK_SIZE, FLUSH, RING_INDIRECT_DESC, VERSION_1."""


class StructureKind(IntEnum):
    """What a capability of the transport is about."""

    COMMON = 1
    NOTIFY = 2
    INTERRUPT_STATUS = 3
    DEVICE = 4


class StructureType(BitRecord, width=16):
    """Length and kind of a capability, +2."""

    cap_len = Bits(7, 0, access=RO)
    cfg_type = Bits(15, 8, access=RO)


class StructureWhere(BitRecord, width=32):
    """The BAR, +4."""

    bar = Bits(7, 0, access=RO)
    id = Bits(15, 8, access=RO)


class StructureOffset(BitRecord, width=32):
    """Where in the BAR, +8."""

    offset = Bits(31, 0, access=RO)


class StructureLength(BitRecord, width=32):
    """How many bytes, +12."""

    length = Bits(31, 0, access=RO)


class NotifyMultiplier(BitRecord, width=32):
    """Bytes between the places of two queues, +16."""

    notify_off_multiplier = Bits(31, 0, access=RO)


class DeviceStatus(IntFlag):
    """How far the driver has come."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class CommonConfiguration(BitRecord, width=448):
    """Negotiation and the queue that is selected."""

    device_feature_select = Bits(31, 0)
    device_feature = Bits(63, 32, access=RO)
    driver_feature_select = Bits(95, 64)
    driver_feature = Bits(127, 96)
    msix_config = Bits(143, 128)
    num_queues = Bits(159, 144, access=RO)
    device_status = Bits(167, 160)
    config_generation = Bits(175, 168, access=RO)
    queue_select = Bits(191, 176)
    queue_size = Bits(207, 192)
    queue_msix_vector = Bits(223, 208)
    queue_enable = Bits(239, 224)
    queue_notify_off = Bits(255, 240, access=RO)
    queue_desc = Bits(319, 256)
    queue_driver = Bits(383, 320)
    queue_device = Bits(447, 384)


QUEUE_FIELDS = (
    *("queue_size", "queue_msix_vector", "queue_enable"),
    *("queue_desc", "queue_driver", "queue_device"),
)
"""What each queue has its own of."""


class BlockConfiguration(BitRecord, width=192):
    """What the disk is like."""

    capacity = Bits(63, 0, access=RO)
    size_max = Bits(95, 64, access=RO)
    seg_max = Bits(127, 96, access=RO)
    cylinders = Bits(143, 128, access=RO)
    heads = Bits(151, 144, access=RO)
    sectors = Bits(159, 152, access=RO)
    blk_size = Bits(191, 160, access=RO)


class Descriptor(BitRecord, width=128):
    """One buffer, or a table of them."""

    address = Bits(63, 0)
    length = Bits(95, 64)
    next = Bits(96)
    write = Bits(97)
    indirect = Bits(98)
    next_index = Bits(127, 112)


class CommandKind(IntEnum):
    """What a command does."""

    READ = 0
    WRITE = 1
    FLUSH = 4
    SERIAL = 8


class CommandHeader(BitRecord, width=128):
    """The beginning of a command."""

    kind = Bits(31, 0)
    sector = Bits(127, 64)


class CommandStatus(IntEnum):
    """How it ended."""

    OK = 0
    IO_ERROR = 1
    UNSUPPORTED = 2
