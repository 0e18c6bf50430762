"""Capture files, ours and as others write them; cut and lying ones."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.network.capture import (
    CapturedFrame,
    CaptureError,
    read_capture,
    write_pcap,
)

FRAMES = st.lists(
    st.builds(CapturedFrame, st.integers(0, (1 << 32) * 10**9 - 1), st.binary(max_size=80)),
    max_size=5,
)
SECOND = 1_000_000_000


@given(FRAMES)
def test_what_is_written_is_read_again(frames: list[CapturedFrame]) -> None:
    assert read_capture(write_pcap(frames)) == frames


def pcap(order: str, magic: int, records: bytes, link_type: int = 1) -> bytes:
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type) + records


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_both_orders_and_resolutions_of_pcap(order: str, magic: int, unit: int) -> None:
    record = struct.pack(order + "IIII", 7, 5, 3, 3) + b"abc"
    assert read_capture(pcap(order, magic, record)) == [
        CapturedFrame(7 * SECOND + 5 * unit, b"abc")
    ]


def block(order: str, kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(order: str, *blocks: bytes) -> bytes:
    body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    return block(order, 0x0A0D0D0A, body) + b"".join(blocks)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_as_others_write_it(order: str) -> None:
    interface = struct.pack(order + "HHI", 1, 0, 0)
    binary = interface + struct.pack(order + "HHB3x", 9, 1, 0x8A)  # 2^-10 seconds
    named = interface + struct.pack(order + "HH4sHHI", 2, 4, b"eth0", 0, 0, 0)[:12]
    enhanced = struct.pack(order + "IIIII", 1, 0, 1024, 5, 5) + b"abcde\0\0\0"
    simple = struct.pack(order + "I", 2) + b"xy\0\0"
    old = struct.pack(order + "HHIIII", 0, 0, 0, 3_000_000, 1, 1) + b"z\0\0\0"
    data = section(
        order,
        block(order, 1, named),
        block(order, 1, binary),
        block(order, 5, bytes(8)),
        block(order, 6, enhanced),
        block(order, 3, simple),
        block(order, 2, old),
    )
    frames = [
        CapturedFrame(SECOND, b"abcde"),
        CapturedFrame(0, b"xy"),
        CapturedFrame(3 * SECOND, b"z"),
    ]
    assert read_capture(data) == frames
    assert read_capture(data + data) == frames * 2


def pcapng(frames: list[CapturedFrame]) -> bytes:
    """One section and one interface, with times in nanoseconds."""
    interface = struct.pack("<HHIHHB3x", 1, 0, 0, 9, 1, 9)
    return section("<", block("<", 1, interface), *map(packet, frames))


def packet(frame: CapturedFrame) -> bytes:
    size = len(frame.data)
    head = struct.pack("<5I", 0, frame.time >> 32, frame.time & 0xFFFF_FFFF, size, size)
    return block("<", 6, head + frame.data + bytes(-size % 4))


@given(FRAMES)
def test_pcapng_with_times_in_nanoseconds(frames: list[CapturedFrame]) -> None:
    assert read_capture(pcapng(frames)) == frames


RECORD = struct.pack("<IIII", 0, 0, 60, 60) + bytes(60)
WHOLE = pcap("<", 0xA1B2C3D4, RECORD)
NG = pcapng([CapturedFrame(0, bytes(60))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither"),
        (b"\x7fELF" * 20, "neither"),
        (WHOLE[:20], "byte 0x0: the file ends within the header"),
        (WHOLE[:30], "byte 0x18: the file ends within frame 1"),
        (WHOLE[:-1], "byte 0x18: frame 1 has 60 bytes, of which the file ends short"),
        (WHOLE + b"\0", "byte 0x64: the file ends within frame 2"),
        (pcap("<", 0xA1B2C3D4, b"", 101), "link type 101"),
        (pcap("<", 0xA1B2C3D4, struct.pack("<IIII", 0, 0, 64, 1514) + bytes(64)), "64 of 1514"),
        (pcap("<", 0xA1B2C3D4, struct.pack("<IIII", 0, 0, 1 << 31, 1 << 31)), "2147483648 bytes"),
        (NG[:10], "byte 0x8: the file ends within a block"),
        (NG[:-1], "of which the file ends short"),
        (NG[:-4] + bytes(4), "ends with another length"),
        (NG[:28] + NG[56:], "is of interface 0"),
        (NG[:8] + b"\1\2\3\4" + NG[12:], "the byte order of a section is unknown"),
        (section("<", struct.pack("<III", 6, 8, 8)), "a block of 8 bytes can't be"),
        (section("<", block("<", 1, struct.pack("<HHI", 113, 0, 0))), "link type 113"),
        (section("<", block("<", 1, b"")), "ends within a block"),
    ],
)
def test_what_is_wrong_with_a_capture_is_named(data: bytes, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        read_capture(data)


@given(st.integers(0, 200), st.integers(0, 255), st.sampled_from([WHOLE, NG]), st.booleans())
def test_damage_is_named_or_harmless(at: int, byte: int, data: bytes, cut: bool) -> None:
    at %= len(data)
    damaged = data[:at] if cut else data[:at] + bytes((byte,)) + data[at + 1 :]
    try:
        frames = read_capture(damaged)
    except CaptureError as error:
        assert str(error).startswith("byte 0x")
    else:
        assert all(len(frame.data) <= 60 for frame in frames)
