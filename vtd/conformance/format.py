"""The binary formats of a kit: image, program and results, declared once.

An image is loaded as it is, at any page below 4 GiB: header and payload, then the program, which is
a list of cases. Results are frames on a byte stream. ``payload/format.h`` is written from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from construct import (
    Array,
    Bytes,
    Const,
    Default,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64ul,
    Padding,
    Struct,
)

VERSION = 3
PAGE = 4096
MAGIC = 0x1BADB002
FLAGS = 0x0001_0002
"""Multiboot: a memory map is wanted, and the header says where to load."""
FRAME_MAGIC = 0x4652_4456
"""``VDRF``: the beginning of a frame."""
STATE_MAGIC = 0x5453_4456
MOST_DEVICES = 8
MOST_VECTORS = 15
NO_DEVICE = 0x100
"""Of a problem: added to the number of the device; below are vectors of exceptions."""
REAL_MACHINE = 0x200
"""Of a problem: no hypervisor says that this is a virtual machine, and cases do more than read."""
DESCRIPTORS = 2048
"""Bytes for the descriptors of a transfer, and for its data behind them."""
NVME_COMMANDS = 256
"""Entries of a submission queue; none is free again before the next case."""


class Mode(IntEnum):
    """What an image does."""

    PROBE = 0
    CASES = 1
    SERVE = 2
    """Cases come by the serial port."""


class Door(IntEnum):
    """Where results go: a port that takes every byte at once, or a 16550 that says when."""

    PLAIN = 0
    UART = 1


class Driver(IntEnum):
    """The kind of a device."""

    NONE = 0
    EDU = 1
    NVME = 2
    NIC = 3
    """82574 or 82576, in loopback."""
    IOAT = 4


class Reset(IntEnum):
    """What comes before a case."""

    SOFTWARE = 0
    MACHINE = 1
    NONE = 2
    """Nothing: the case reads registers, and nothing else is done to the unit."""


class Op(IntEnum):
    """An instruction of a case; ``address``, ``value`` and ``length`` are its operands."""

    STORE = 1
    """The bytes that follow go to memory."""
    LOAD = 2
    """Memory: ``length`` bytes of output."""
    CLEAR = 3
    """``length`` bytes of memory become 0."""
    WRITE = 4
    """Register ``address`` of ``size`` bytes becomes ``value``."""
    READ = 5
    """A register: 8 bytes of output."""
    FILL = 6
    """The bytes that follow go to the device's buffer at ``address``; remapping is off."""
    DUMP = 7
    """The device's buffer at ``address``: output; remapping is off."""
    DEVICE_READ = 8
    """The device reads from ``address`` to its buffer at ``value``."""
    DEVICE_WRITE = 9
    """The device writes its buffer at ``value`` to ``address``."""
    MESSAGE = 10
    """The device writes ``value``, 4 bytes, to ``address``."""
    INTERRUPTS = 11
    """Vectors that came since the last time, once ``value`` have or time is up: output."""
    OFF = 12
    """Remapping is switched off."""
    DRAIN = 13
    """An invalidation queue at ``address`` is made to run dry, whatever it stands at."""
    DESCRIPTORS = 14
    """The device's next descriptors go to memory at ``value``, which it reaches at ``address``."""


class Status(IntEnum):
    """How a case ended."""

    DONE = 0
    TIME = 1
    """A device or the unit did not answer in time."""
    NO_RESET = 2
    """The machine does not reset itself."""
    CRASHED = 3
    """The machine began anew in the middle of it."""
    NO_DEVICE = 4
    """A device can't be made ready."""


class Kind(IntEnum):
    """Of a frame."""

    BEGIN = 1
    CASE = 2
    END = 3
    MEMORY = 4
    TABLE = 5
    UNIT = 6
    FUNCTION = 7
    PROBLEM = 8
    """An exception of the processor, or a device that is not where the image says."""
    CONTROLLER = 9
    """CAP of the NVMe controller of a function."""


class Scratch(IntEnum):
    """Where the payload keeps what, from the beginning of its scratch memory."""

    PAGE_TABLES = 0
    STACK = 0x12000
    """It ends where the interrupt table begins."""
    INTERRUPT_TABLE = 0x16000
    STAGING = 0x17000
    QUEUE = 0x18000
    STATE = 0x19000
    ADMIN = 0x1A000
    """Of NVMe: admin commands, their completions, and a completion queue that stays full."""
    COMPLETIONS = 0x1B000
    FULL = 0x1C000
    MORE_TABLES = 0x1D000
    """Page tables for what lies above the first 16 GiB."""
    KEPT = 0x25000
    """What was where descriptors are."""
    BUFFERS = 0x26000
    """A page for each device that keeps nothing itself."""
    SIZE = 0x2E000


Device = Struct(
    "driver" / Int8ul,
    "bus" / Int8ul,
    "devfn" / Int8ul,
    "message" / Int8ul,  # of the MSI capability in configuration space
    Padding(4),
    "registers" / Int64ul,
)
Header = Struct(
    "magic" / Const(MAGIC, Int32ul),
    "flags" / Const(FLAGS, Int32ul),
    "checksum" / Const(-(MAGIC + FLAGS) & 0xFFFF_FFFF, Int32ul),
    "header_address" / Int32ul,
    "load_address" / Int32ul,
    "load_end" / Int32ul,
    "bss_end" / Int32ul,
    "entry" / Int32ul,
    "opcode" / Const(b"\xbd"),  # mov to ebp: the payload learns where it is
    "base" / Int32ul,
    "jump" / Bytes(5),
    Padding(6),
    "scratch" / Int64ul,
    "unit" / Int64ul,
    "digest" / Bytes(16),
    "version" / Int32ul,
    "mode" / Int32ul,
    "program" / Int32ul,  # from the header
    "cases" / Int32ul,
    "first" / Int32ul,
    "door" / Int16ul,
    "port" / Int16ul,
    "limit" / Int32ul,  # million cycles of the processor, for one step
    "rsdp" / Default(Int32ul, 0),  # ACPI's root pointer, where firmware says it; 0: in BIOS memory
    "devices" / Array(MOST_DEVICES, Device),
)
Case = Struct(
    "number" / Int32ul,
    "reset" / Int32ul,
    "instructions" / Int32ul,
    "size" / Int32ul,  # bytes of instructions
    "output" / Int32ul,  # bytes that the instructions give
    Padding(4),
)
Instruction = Struct(
    "op" / Int8ul,
    "device" / Int8ul,
    "size" / Int16ul,
    "length" / Int32ul,
    "address" / Int64ul,
    "value" / Int64ul,
)
"""Behind STORE and FILL ``length`` bytes follow, padded to 8."""
Interrupts = Struct(
    "count" / Int8ul,
    "vectors" / Array(MOST_VECTORS, Int8ul),
)
Frame = Struct(
    "magic" / Const(FRAME_MAGIC, Int32ul),
    "kind" / Int32ul,
    "number" / Int32ul,
    "status" / Int32ul,
    "length" / Int32ul,
    "check" / Int32ul,  # sum of the bytes that follow
)
Begin = Struct(
    "digest" / Bytes(16),
    "version" / Int64ul,
    "capability" / Int64ul,
    "extended_capability" / Int64ul,
    "hypervisor" / Int64ul,  # 1: one says by CPUID that this is a virtual machine
)
"""The first frame: which image runs, and on which unit; of no unit where it probes."""
ResetProof = Struct(
    "global_status" / Int64ul,
    "fault_status" / Int64ul,
    "fault_control" / Int64ul,
    "event_control" / Int64ul,
    "queue_head" / Int64ul,
    "queue_tail" / Int64ul,
)
"""Registers after a reset, in front of the output of every case."""
State = Struct(
    "magic" / Int32ul,
    "next" / Int32ul,
    "reset" / Int32ul,
    "running" / Int32ul,
    "digest" / Bytes(16),
)
"""What survives a reset of the machine."""

_STRUCTURES = {
    "device": Device,
    "header": Header,
    "test_case": Case,
    "instruction": Instruction,
    "interrupts": Interrupts,
    "frame": Frame,
    "begin": Begin,
    "reset_proof": ResetProof,
    "state": State,
}
_ENUMERATIONS = (Mode, Door, Driver, Reset, Op, Status, Kind, Scratch)
_TYPES = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


def c_header() -> str:
    """The declarations as C."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "/* Written by python -m scripts.conformance_payload from vtd/conformance/format.py. */"
    yield "#pragma once"
    for name in (
        "VERSION",
        "FRAME_MAGIC",
        "STATE_MAGIC",
        "MOST_DEVICES",
        "MOST_VECTORS",
        "NO_DEVICE",
        "REAL_MACHINE",
        "PAGE",
        "DESCRIPTORS",
        "NVME_COMMANDS",
    ):
        yield f"#define {name} {globals()[name]:#x}"
    for enumeration in _ENUMERATIONS:
        for each in enumeration:
            yield f"#define {enumeration.__name__.upper()}_{each.name} {each.value:#x}"
    yield "#ifndef __ASSEMBLER__"
    yield "#include <stdint.h>"
    for name, structure in _STRUCTURES.items():
        yield f"struct {name} {{"
        for number, field in enumerate(structure.subcons):
            yield f"    {_declaration(field, number)};"
        yield f"}} __attribute__((packed)); /* {structure.sizeof()} bytes */"
    yield "#endif"


def _declaration(field: Any, number: int) -> str:
    name = field.name or f"padding{number}"
    inner = getattr(field, "subcon", field)
    if isinstance(inner, Array):
        of = f"struct {inner.subcon.name or 'device'}" if inner.subcon is Device else "uint8_t"
        return f"{of} {name}[{inner.count}]"
    size = field.sizeof()
    if size in _TYPES and not _is_bytes(inner):
        return f"{_TYPES[size]} {name}"
    return f"uint8_t {name}[{size}]"


def _is_bytes(inner: Any) -> bool:
    return isinstance(inner, type(Bytes(1))) or isinstance(getattr(inner, "value", None), bytes)
