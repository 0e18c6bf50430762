"""The kit as an ELF file with a PVH note: an image, and the loader ``pvh.S`` behind it.

The note says where a monitor enters it, in 32-bit protected mode (x86/HVM direct boot ABI of Xen).
"""

from __future__ import annotations

from importlib.resources import files

from construct import Array, Const, Container, Int16ul, Int32ul, Int64ul, Padding, Struct

from vtd.conformance.format import PAGE, Header

LOAD, NOTE = 1, 4
READ_EXECUTE, READ = 7, 4
PHYS32_ENTRY = 18
AMD64 = 0x3E
START = 3 * PAGE
"""Of the image in the file: behind what loaders search for a multiboot header."""

ProgramHeader = Struct(
    "type" / Int32ul,
    "flags" / Int32ul,
    "place" / Int64ul,
    "address" / Int64ul,
    "physical" / Int64ul,
    "size" / Int64ul,
    "memory" / Int64ul,
    "alignment" / Int64ul,
)
Elf = Struct(
    "magic" / Const(b"\x7fELF\x02\x01\x01"),
    Padding(9),
    "type" / Const(2, Int16ul),  # executable
    "machine" / Const(AMD64, Int16ul),
    "version" / Const(1, Int32ul),
    "entry" / Int64ul,
    "headers" / Const(64, Int64ul),
    Padding(12),  # sections, flags
    "size" / Const(64, Int16ul),
    "header_size" / Const(ProgramHeader.sizeof(), Int16ul),
    "count" / Const(3, Int16ul),
    Padding(6),
    "header" / Array(3, ProgramHeader),
    "name_size" / Const(4, Int32ul),
    "value_size" / Const(8, Int32ul),
    "kind" / Const(PHYS32_ENTRY, Int32ul),
    "name" / Const(b"Xen\0"),
    "value" / Int64ul,
)
NOTE_SIZE = 24
RSDP = sum(field.sizeof() for field in Header.subcons[:-2])
"""Of the root pointer in an image's header."""


def kernel(image: bytes) -> bytes:
    """The file that a monitor boots by PVH, of an image as it is loaded."""
    header = Header.parse(image)
    base, place = header.load_address, START + len(image)
    entry = base + len(image)
    head = Elf.build(
        Container(
            entry=entry,
            header=[
                _segment(LOAD, READ_EXECUTE, START, base, len(image)),
                _segment(LOAD, READ_EXECUTE, place, entry, len(_loader(0, 0, 0))),
                _segment(NOTE, READ, Elf.sizeof() - NOTE_SIZE, 0, NOTE_SIZE),
            ],
            value=entry,
        )
    )
    return bytes(head).ljust(START, b"\0") + image + _loader(entry, base + RSDP, header.entry)


def _loader(*addresses: int) -> bytes:
    """The loader told where it is, where the root pointer goes, and where the image begins."""
    code = bytearray((files("vtd.conformance") / "payload" / "pvh.bin").read_bytes())
    for number, address in enumerate(addresses):
        code[5 * number + 1 : 5 * number + 5] = address.to_bytes(4, "little")
    return bytes(code)


def _segment(kind: int, flags: int, place: int, address: int, size: int) -> Container:
    return Container(
        type=kind,
        flags=flags,
        place=place,
        address=address,
        physical=address,
        size=size,
        memory=size,
        alignment=1,
    )
