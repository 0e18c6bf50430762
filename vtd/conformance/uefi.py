"""The kit as a UEFI application: a PE file of the loader ``uefi.c`` and an image behind it.

Sections lie in the file as in memory, and nothing has to be relocated. PE format, revision 11.
"""

from __future__ import annotations

from importlib.resources import files

from construct import Array, Bytes, Const, Container, Int16ul, Int32ul, Int64ul, Padding, Struct

from vtd.conformance.format import PAGE

AMD64 = 0x8664
EXECUTABLE, LARGE = 0x0002, 0x0020
PE32_PLUS = 0x020B
APPLICATION = 10
"""The subsystem of UEFI applications."""
CODE = 0x6000_0020
DATA = 0xC000_0040
WRITABLE = 0x8000_0000
DIRECTORIES = 16

Section = Struct(
    "name" / Bytes(8),
    "virtual_size" / Int32ul,
    "address" / Int32ul,
    "size" / Int32ul,
    "place" / Int32ul,
    Padding(12),
    "characteristics" / Int32ul,
)
Pe = Struct(
    "dos" / Const(b"MZ"),
    Padding(58),
    "header" / Const(0x40, Int32ul),
    "signature" / Const(b"PE\0\0"),
    "machine" / Const(AMD64, Int16ul),
    "sections" / Const(2, Int16ul),
    Padding(12),
    "optional_size" / Const(112 + 8 * DIRECTORIES, Int16ul),
    "characteristics" / Const(EXECUTABLE | LARGE, Int16ul),
    "magic" / Const(PE32_PLUS, Int16ul),
    Padding(2),
    "code_size" / Int32ul,
    "data_size" / Int32ul,
    Padding(4),
    "entry" / Int32ul,
    "code_base" / Int32ul,
    "image_base" / Const(0, Int64ul),
    "section_alignment" / Const(PAGE, Int32ul),
    "file_alignment" / Const(PAGE, Int32ul),
    Padding(16),
    "image_size" / Int32ul,
    "headers_size" / Const(PAGE, Int32ul),
    Padding(4),
    "subsystem" / Const(APPLICATION, Int16ul),
    Padding(34),
    Padding(4),
    "directories" / Const(DIRECTORIES, Int32ul),
    Padding(8 * DIRECTORIES),
    "section" / Array(2, Section),
)


def application(image: bytes) -> bytes:
    """The file that firmware starts, of an image as it is loaded."""
    code = (files("vtd.conformance") / "payload" / "uefi.bin").read_bytes()
    data = image + bytes(-len(image) % PAGE)
    behind = PAGE + len(code)
    head = Pe.build(
        Container(
            code_size=len(code),
            data_size=len(data),
            entry=PAGE,
            code_base=PAGE,
            image_size=behind + len(data),
            section=[
                _section(b".text", PAGE, len(code), CODE | WRITABLE),
                _section(b".kit", behind, len(data), DATA),
            ],
        )
    )
    return bytes(head) + bytes(PAGE - len(head)) + code + data


def _section(name: bytes, place: int, size: int, characteristics: int) -> Container:
    return Container(
        name=name.ljust(8, b"\0"),
        virtual_size=size,
        address=place,
        size=size,
        place=place,
        characteristics=characteristics,
    )
