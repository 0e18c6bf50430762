"""Registers and descriptors of the I/OAT (QuickData) engine, version 3.2, as bit records.

As software uses them: the drivers of Linux, and the pages of Xeon E7 v2 and C5500 data sheets that
are public. Parity (XOR, PQ), direct cache access and the registers of version 3.4 are left out.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from devices.config_space import RO, RW1C
from pagetables.bits import BitRecord, Bits

DESCRIPTOR_SIZE = 64
CHANNEL_SIZE = 0x80
"""Bytes of the registers of a channel; the first block is that of the whole engine."""


class ChannelCount(BitRecord, width=8):
    """CHANCNT, 00h."""

    channels = Bits(4, 0, access=RO)


class TransferCapacity(BitRecord, width=8):
    """XFERCAP, 01h: log2 of the longest transfer of a descriptor."""

    log2 = Bits(4, 0, access=RO)


class GeneralControl(BitRecord, width=8):
    """GENCTRL, 02h."""

    debug = Bits(0)


class InterruptControl(BitRecord, width=8):
    """INTRCTRL, 03h."""

    enable = Bits(0)  # of the interrupt that all channels share
    status = Bits(1, access=RO)  # a channel wants it
    asserted = Bits(2, access=RO)
    vectors = Bits(3)  # a vector for each channel, enabled or not


class AttentionStatus(BitRecord, width=32):
    """ATTNSTATUS, 04h: channels that want the shared interrupt; a read clears it."""

    channels = Bits(31, 0, access=RO)


class EngineVersion(BitRecord, width=8):
    """CBVER, 08h."""

    minor = Bits(3, 0, access=RO)
    major = Bits(7, 4, access=RO)


class InterruptDelay(BitRecord, width=16):
    """INTRDELAY, 0Ch: microseconds to wait for more; kept, and not waited for."""

    microseconds = Bits(13, 0)


class ChannelControl(BitRecord, width=16):
    """CHANCTRL, +00h."""

    rearm = Bits(0)  # reads 0
    error_completion = Bits(2)
    abort_on_error = Bits(3)
    error_interrupt = Bits(4)
    descriptor_no_snoop = Bits(5)


class Compatibility(BitRecord, width=16):
    """DMA_COMP, +02h."""

    version1 = Bits(0, access=RO)
    version2 = Bits(1, access=RO)


class ChannelCommand(BitRecord, width=8):
    """CHANCMD, +04h; a bit reads 1 until the command is done."""

    start = Bits(0)
    append = Bits(1)
    suspend = Bits(2)
    abort = Bits(3)
    resume = Bits(4)
    reset = Bits(5)


class DescriptorCount(BitRecord, width=16):
    """DMACOUNT, +06h: descriptors made ready since CHAINADDR was written, modulo 65536."""

    count = Bits(15, 0)


class ChannelState(IntEnum):
    """What a channel is doing."""

    ACTIVE = 0
    DONE = 1
    SUSPENDED = 2
    HALTED = 3


class ChannelStatus(BitRecord, width=64):
    """CHANSTS, +08h, and what is written at CHANCMP."""

    state = Bits(1, 0, as_=ChannelState, access=RO)  # bit 2 belongs to it and is 0
    address = Bits(63, 6, shift=6, access=RO)  # of the last completed descriptor


class ChainAddress(BitRecord, width=64):
    """CHAINADDR, +10h: the first descriptor."""

    address = Bits(63, 0)


class CompletionAddress(BitRecord, width=64):
    """CHANCMP, +18h."""

    address = Bits(63, 3, shift=3)


class CurrentDescriptor(BitRecord, width=64):
    """CDAR, +20h."""

    address = Bits(63, 0, access=RO)


class ChannelErrors(BitRecord, width=32):
    """CHANERR, +28h, and its copy in configuration space at 180h."""

    errors = Bits(31, 0, access=RW1C)


class ErrorMask(BitRecord, width=32):
    """CHANERRMSK, +2Ch, and its like in configuration space."""

    mask = Bits(31, 0)


class CacheControl(BitRecord, width=32):
    """DCACTRL, +30h: kept."""

    value = Bits(31, 0)


class ChannelError(IntFlag):
    """Bits of CHANERR that this engine sets."""

    SOURCE_ADDRESS = 1 << 0
    DESTINATION_ADDRESS = 1 << 1
    NEXT_ADDRESS = 1 << 2
    DESCRIPTOR = 1 << 3
    CHAIN_ADDRESS = 1 << 4
    READ_DATA = 1 << 8
    WRITE_DATA = 1 << 9
    CONTROL = 1 << 10
    LENGTH = 1 << 11
    COMPLETION_ADDRESS = 1 << 12


RECOVERABLE = ChannelError.READ_DATA | ChannelError.WRITE_DATA
"""What software can go on after; of all others a completion record must not tell."""


class Descriptor(BitRecord, width=512):
    """A descriptor in memory, 64 bytes."""

    size = Bits(31, 0)
    interrupt = Bits(32)
    source_no_snoop = Bits(33)
    destination_no_snoop = Bits(34)
    completion = Bits(35)
    fence = Bits(36)
    null = Bits(37)  # no data moves
    opcode = Bits(63, 56)
    source = Bits(127, 64)
    destination = Bits(191, 128)
    next = Bits(255, 192)


COPY = 0
"""The opcode of a copy, the only one of this engine."""
