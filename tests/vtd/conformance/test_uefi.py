"""The UEFI application, read by hand: firmware finds a PE file whose sections are where it says."""

import struct
from itertools import pairwise

from tests.vtd.conformance.kits import built, probed
from vtd.conformance.format import MAGIC, Mode
from vtd.conformance.image import DEBUG_CONSOLE, Image, make_image
from vtd.conformance.uefi import application

PAGE = 4096


def sections(data: bytes) -> dict[str, tuple[int, int, int, int]]:
    """Address in memory, size there, place in the file and size there, by name."""
    header = struct.unpack_from("<I", data, 0x3C)[0]
    count, optional = struct.unpack_from("<H12xH", data, header + 6)
    found = {}
    for index in range(count):
        place = header + 24 + optional + 40 * index
        name = data[place : place + 8].rstrip(b"\0").decode()
        size, address, raw_size, raw = struct.unpack_from("<4I", data, place + 8)
        found[name] = address, size, raw, raw_size
    return found


def checked(image: Image) -> None:
    told = image.told(DEBUG_CONSOLE)
    data = application(told)
    header = struct.unpack_from("<I", data, 0x3C)[0]
    assert data[:2] == b"MZ"
    assert data[header : header + 4] == b"PE\0\0"
    assert struct.unpack_from("<H", data, header + 4)[0] == 0x8664
    magic = struct.unpack_from("<H", data, header + 24)[0]
    entry = struct.unpack_from("<I", data, header + 24 + 16)[0]
    alignment, file_alignment = struct.unpack_from("<2I", data, header + 24 + 32)
    size, headers = struct.unpack_from("<2I", data, header + 24 + 56)
    subsystem = struct.unpack_from("<H", data, header + 24 + 68)[0]
    assert (magic, subsystem) == (0x20B, 10)
    found = sections(data)
    spans = sorted((address, address + length) for address, length, _, _ in found.values())
    assert spans[0][0] == headers
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert spans[-1][1] == size == len(data)
    for address, length, raw, raw_size in found.values():
        assert address % alignment == raw % file_alignment == 0
        assert length == raw_size
        assert raw + raw_size <= len(data)
    address, length, _, _ = found[".text"]
    assert address <= entry < address + length
    start, room, raw, _ = found[".kit"]
    assert start == address + length, "the loader looks for the image behind itself"
    assert data[raw : raw + len(told)] == told
    assert room - len(told) < PAGE
    assert struct.unpack_from("<I", data, raw)[0] == MAGIC


def test_the_application_holds_an_image_that_probes() -> None:
    checked(make_image(Mode.PROBE, 0x200_0000))


def test_the_application_holds_cases() -> None:
    checked(built(probed(), 2, "driver", "interrupts"))
