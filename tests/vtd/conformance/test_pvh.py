"""The ELF kernel with a PVH note, read by hand: a monitor finds image, loader and entry in it."""

import struct

from tests.vtd.conformance.kits import built, probed
from vtd.conformance.format import MAGIC, Header
from vtd.conformance.image import DEBUG_CONSOLE
from vtd.conformance.pvh import RSDP, kernel

SEARCHED = 8192
"""Bytes in which a loader looks for a multiboot header."""


def test_a_pvh_kernel_holds_image_and_loader_and_names_its_entry() -> None:
    told = built(probed(), 1, "tables").told(DEBUG_CONSOLE)
    header, data = Header.parse(told), kernel(told)
    assert data[:7] == b"\x7fELF\x02\x01\x01"
    assert struct.unpack_from("<2H", data, 16) == (2, 62)
    count = struct.unpack_from("<H", data, 56)[0]
    segments = [struct.unpack_from("<2I6Q", data, 64 + 56 * index) for index in range(count)]
    image, loader, note = segments
    assert [each[0] for each in segments] == [1, 1, 4]
    assert data[image[2] : image[2] + image[5]] == told
    assert image[3] == image[4] == header.load_address
    assert MAGIC.to_bytes(4, "little") not in data[:SEARCHED]
    name, size, kind = struct.unpack_from("<3I", data, note[2])
    assert (name, size, kind, data[note[2] + 12 : note[2] + 16]) == (4, 8, 18, b"Xen\0")
    entry = struct.unpack_from("<Q", data, note[2] + 16)[0]
    assert entry == loader[4] == header.load_end
    assert loader[4] + loader[5] + 64 + 24 * 2048 <= header.scratch
    code = data[loader[2] : loader[2] + loader[5]]
    moves = [(code[at], *struct.unpack_from("<I", code, at + 1)) for at in (0, 5, 10)]
    assert moves == [
        (0xBD, entry),
        (0xBE, header.load_address + RSDP),
        (0xBF, header.entry),
    ]
    changed = bytearray(told)
    changed[RSDP : RSDP + 4] = b"\1\2\3\4"
    assert Header.parse(bytes(changed)).rsdp == 0x04030201
