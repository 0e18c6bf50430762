"""Interrupt-remapping entries, posted-interrupt descriptors and interrupt messages.

VT-d 9.9 to 9.11 for the table entries, 5.1.2 for interrupt requests, 5.1.6 for event messages. The
address of remappable requests is in :mod:`devices.interrupt_messages`. Left out: what depends on
the interrupt mode; without EIME a destination-id is 8 bits wide and the rest of its field reserved.
"""

from __future__ import annotations

from enum import IntEnum

from pagetables.bits import BitRecord, Bits, ignored

XAPIC_DESTINATION = 0x0000_FF00
"""Bits of a 32-bit destination-id field that xAPIC mode uses; the others are reserved then."""


class DeliveryMode(IntEnum):
    """DLM (9.9)."""

    FIXED = 0
    LOWEST_PRIORITY = 1
    SMI = 2
    RESERVED_3 = 3
    NMI = 4
    INIT = 5
    RESERVED_6 = 6
    EXT_INT = 7


class TriggerMode(IntEnum):
    """TM (9.9)."""

    EDGE = 0
    LEVEL = 1


class DestinationMode(IntEnum):
    """DM (9.9)."""

    PHYSICAL = 0
    LOGICAL = 1


class SourceValidationType(IntEnum):
    """SVT (9.9)."""

    NONE = 0
    SOURCE_ID = 1
    """Compare the requester with SID as far as SQ says."""
    BUS_RANGE = 2
    """The requester's bus lies from SID 15:8 to SID 7:0, both included."""
    RESERVED_3 = 3


class SourceIdQualifier(IntEnum):
    """SQ: the function-number bits that the comparison leaves out (9.9)."""

    ALL_BITS = 0
    IGNORE_BIT_2 = 1
    IGNORE_BITS_2_1 = 2
    IGNORE_BITS_2_0 = 3


class RemappedIrte(BitRecord, width=128):
    """Interrupt-remapping table entry, IM = 0 (9.9)."""

    p = Bits(0, as_=bool)
    fpd = Bits(1, as_=bool)  # evaluated even with P = 0
    dm = Bits(2, as_=DestinationMode)
    rh = Bits(3, as_=bool)  # redirection hint
    tm = Bits(4, as_=TriggerMode)
    dlm = Bits(7, 5, as_=DeliveryMode)
    avail = ignored(11, 8)
    im = Bits(15, as_=bool, needs="pi")
    v = Bits(23, 16)
    dst = Bits(63, 32)
    sid = Bits(79, 64)
    sq = Bits(81, 80, as_=SourceIdQualifier)
    svt = Bits(83, 82, as_=SourceValidationType)


class PostedIrte(BitRecord, width=128):
    """Interrupt-remapping table entry, IM = 1 (9.10)."""

    p = Bits(0, as_=bool)
    fpd = Bits(1, as_=bool)  # evaluated even with P = 0
    avail = ignored(11, 8)
    urg = Bits(14, as_=bool, needs="pi")
    im = Bits(15, as_=bool, needs="pi")
    vv = Bits(23, 16)
    pdal = Bits(63, 38, shift=6)
    sid = Bits(79, 64)
    sq = Bits(81, 80, as_=SourceIdQualifier)
    svt = Bits(83, 82, as_=SourceValidationType)
    pdah = Bits(127, 96, shift=32, limit="haw")

    @property
    def descriptor_address(self) -> int:
        """Address of the posted-interrupt descriptor."""
        return self.pdah | self.pdal


class PostedInterruptDescriptor(BitRecord, width=512):
    """Posted-interrupt descriptor, 64-byte aligned in memory (9.11)."""

    pir = Bits(255, 0)  # one bit per vector
    on = Bits(256, as_=bool)  # outstanding notification
    sn = Bits(257, as_=bool)  # suppress notification
    nv = Bits(279, 272)
    ndst = Bits(319, 288)


class RemappableData(BitRecord, width=32):
    """Data of a remappable-format interrupt request (5.1.2.2); ignored with SHV = 0."""

    subhandle = Bits(15, 0)


class CompatibilityAddress(BitRecord, width=32):
    """Address of a compatibility-format interrupt request (5.1.2.1)."""

    ign_1_0 = ignored(1, 0)
    dm = Bits(2, as_=DestinationMode)
    rh = Bits(3, as_=bool)
    format = Bits(4, as_=bool)  # 0: compatibility
    dst = Bits(19, 12)
    fee = Bits(31, 20)


class CompatibilityData(BitRecord, width=32):
    """Data of a compatibility-format interrupt request (5.1.2.1)."""

    v = Bits(7, 0)
    dlm = Bits(10, 8, as_=DeliveryMode)
    level = Bits(14, as_=bool)  # trigger mode level
    tm = Bits(15, as_=TriggerMode)


class EventAddress(BitRecord, width=32):
    """Address of an interrupt of the unit itself, as an event address register holds it (5.1.6)."""

    dm = Bits(2, as_=DestinationMode)
    rh = Bits(3, as_=bool)
    dst_7_0 = Bits(19, 12)
    fee = Bits(31, 20)


class EventUpperAddress(BitRecord, width=32):
    """Upper address of an interrupt of the unit itself; used in x2APIC mode (5.1.6)."""

    dst_31_8 = Bits(31, 8, shift=8)


class EventData(BitRecord, width=32):
    """Data of an interrupt of the unit itself: always edge triggered (5.1.6)."""

    v = Bits(7, 0)
    dlm = Bits(8, as_=DeliveryMode)  # FIXED or LOWEST_PRIORITY
