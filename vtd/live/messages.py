"""The messages of vfio-user 0.0, as QEMU speaks it: header, commands, and the parts of each.

All numbers are little-endian. Layouts are declared once, with construct; those that accesses and
interrupts need have a packer of the standard library made from the same declaration. Left
out: migration, dirty pages, and file descriptors for regions.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from construct import (
    Array,
    Bytes,
    GreedyBytes,
    Int16ul,
    Int32ul,
    Int64ul,
    Struct,
    Terminated,
    this,
)

MAX_DATA = 1 << 20
"""Bytes of data in one message, what both sides assume where nothing else is agreed on."""
MAX_FDS = 16
"""File descriptors that may come with one message."""


class Command(IntEnum):
    """What a message asks for."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_REGION_IO_FDS = 6
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    RESET = 13
    DIRTY_PAGES = 14
    REGION_WRITE_MULTI = 15


REPLY = 1
"""The type of a message that answers another one; that of a command is 0."""
TYPE = 0xF
"""The bits of a header's flags that hold the type."""
NO_REPLY = 1 << 4
ERROR = 1 << 5


class DmaFlag(IntFlag):
    """How memory of the guest may be used."""

    READ = 1 << 0
    WRITE = 1 << 1


class DeviceFlag(IntFlag):
    """What a device is and can do."""

    RESET = 1 << 0
    PCI = 1 << 1


class RegionFlag(IntFlag):
    """What may be done with a region."""

    READ = 1 << 0
    WRITE = 1 << 1


class IrqFlag(IntFlag):
    """What an interrupt of a device can do."""

    EVENTFD = 1 << 0
    MASKABLE = 1 << 1
    AUTOMASKED = 1 << 2
    NORESIZE = 1 << 3


class IrqData(IntEnum):
    """What comes with a SET_IRQS."""

    NONE = 1 << 0
    BOOL = 1 << 1
    EVENTFD = 1 << 2


class IrqAction(IntEnum):
    """What a SET_IRQS is about."""

    MASK = 1 << 3
    UNMASK = 1 << 4
    TRIGGER = 1 << 5


IRQ_DATA = 0x7
IRQ_ACTION = 0x38
"""The bits of a SET_IRQS that hold the data's kind, and those that hold the action."""

CONFIG_REGION = 7
"""Regions 0 to 5 are the BARs, 6 the expansion ROM, 7 configuration space, 8 VGA."""
REGIONS = 9


class Irq(IntEnum):
    """Kinds of interrupts, by the index that messages give them; there are others for errors."""

    INTX = 0
    MSI = 1
    MSIX = 2


Header = Struct(
    "id" / Int16ul,
    "command" / Int16ul,
    "size" / Int32ul,  # of the whole message
    "flags" / Int32ul,
    "error" / Int32ul,
)
Version = Struct("major" / Int16ul, "minor" / Int16ul, "data" / GreedyBytes)  # JSON with a NUL
DmaMap = Struct(
    "argsz" / Int32ul,
    "flags" / Int32ul,
    "offset" / Int64ul,
    "address" / Int64ul,
    "size" / Int64ul,
)
DmaUnmap = Struct("argsz" / Int32ul, "flags" / Int32ul, "address" / Int64ul, "size" / Int64ul)
DeviceInfo = Struct(
    "argsz" / Int32ul,
    "flags" / Int32ul,
    "num_regions" / Int32ul,
    "num_irqs" / Int32ul,
)
RegionInfo = Struct(
    "argsz" / Int32ul,
    "flags" / Int32ul,
    "index" / Int32ul,
    "cap_offset" / Int32ul,
    "size" / Int64ul,
    "offset" / Int64ul,
)
IrqInfo = Struct("argsz" / Int32ul, "flags" / Int32ul, "index" / Int32ul, "count" / Int32ul)
IrqSet = Struct(
    "argsz" / Int32ul,
    "flags" / Int32ul,
    "index" / Int32ul,
    "start" / Int32ul,
    "count" / Int32ul,
    "data" / GreedyBytes,
)
RegionAccess = Struct("offset" / Int64ul, "region" / Int32ul, "count" / Int32ul)  # data follows
WriteMulti = Struct(
    "count" / Int64ul,
    "writes"
    / Array(
        this.count,
        Struct("offset" / Int64ul, "region" / Int32ul, "count" / Int32ul, "data" / Bytes(8)),
    ),
    Terminated,
)
DmaAccess = Struct("address" / Int64ul, "count" / Int64ul)  # data follows
InterruptData = Struct("data" / Int32ul)


def packer(*declarations: Struct) -> struct.Struct:
    """What packs the numbers of layouts that follow each other, at a tenth of their cost."""
    codes = (
        each.subcon.fmtstr.removeprefix("<")
        for declaration in declarations
        for each in declaration.subcons
    )
    return struct.Struct("<" + "".join(codes))


HEADER = packer(Header)
REGION_ACCESS = packer(RegionAccess)
REGION_READ = packer(Header, RegionAccess)
INTERRUPT = packer(Header, DmaAccess, InterruptData)
MAX_MESSAGE = HEADER.size + REGION_ACCESS.size + MAX_DATA


def message(number: int, command: int, flags: int, body: bytes = b"", error: int = 0) -> bytes:
    """A whole message."""
    return HEADER.pack(number, command, HEADER.size + len(body), flags, error) + body
