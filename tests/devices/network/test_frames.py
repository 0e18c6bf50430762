"""Headers and checksums of frames."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devices.network.frames import (
    TCP,
    UDP,
    crc32c,
    dissect,
    network_checksum_good,
    ones_complement,
    payload_offset,
    transport_checksum_good,
)
from tests.devices.network.packets import ip_packet, slow_sum, sound, with_extension


@given(st.binary(max_size=100))
@example(b"\xff\xff")
@example(b"\x00\x00")
def test_the_sum_is_that_of_rfc_1071(data: bytes) -> None:
    assert ones_complement(data) == slow_sum(data)


@given(
    piece=st.binary(min_size=1, max_size=40) | st.sampled_from([b"\xff", b"\x00"]),
    size=st.integers(0, 3000) | st.integers(0, 70_000),
    extra=st.integers(0, 0x1_0000),
    start=st.integers(0, 70),
    left=st.none() | st.integers(0, 70),
)
@settings(max_examples=200)
def test_long_sums_of_a_part_are_those_of_its_words(
    piece: bytes, size: int, extra: int, start: int, left: int | None
) -> None:
    data = (piece * (size // len(piece) + 1))[:size]
    start = min(start, size)
    end = None if left is None else max(size - left, start)
    words = data[start:end] + bytes((size if end is None else end) - start & 1)
    expected = slow_sum(words + extra.to_bytes(4, "big"))
    assert ones_complement(data, extra, start, end) == expected


def test_the_published_check_value_of_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@given(
    payload=st.binary(max_size=64),
    protocol=st.sampled_from([TCP, UDP]),
    version=st.sampled_from([4, 6]),
    flip=st.integers(0, 1 << 16),
    tag=st.booleans(),
    extended=st.booleans(),
)
def test_a_changed_bit_is_noticed(
    payload: bytes, protocol: int, version: int, flip: int, tag: bool, extended: bool
) -> None:
    frame = ip_packet(payload, protocol, version=version)
    assert sound(frame)
    if extended:
        frame = with_extension(frame)
    shift = 4 if tag else 0
    if tag:
        frame = frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    headers = dissect(frame)
    assert headers.version == version
    assert headers.extended == extended
    assert headers.protocol == protocol
    assert payload_offset(frame, headers) == len(frame) - len(payload)
    assert transport_checksum_good(frame, headers)
    assert version == 6 or network_checksum_good(frame, headers)
    start = headers.transport if version == 6 else 14 + shift
    at = start + flip % (len(frame) - start)
    damaged = frame[:at] + bytes((frame[at] ^ 1,)) + frame[at + 1 :]
    found = dissect(damaged)
    if at < headers.transport:
        assert not found.version or not network_checksum_good(damaged, found)
    elif found.protocol == protocol:
        assert transport_checksum_good(damaged, found) is False


@given(st.binary(max_size=80), st.sampled_from([b"\x08\x00\x45", b"\x86\xdd\x60", b"\x81\x00\x00"]))
def test_no_bytes_make_dissecting_fail(data: bytes, start: bytes) -> None:
    frame = bytes(12) + start + data
    headers = dissect(frame)
    assert headers.end <= len(frame)
    if headers.version:
        assert headers.network < headers.transport <= headers.end
        assert transport_checksum_good(frame, headers) in {True, False, None}
        assert payload_offset(frame, headers) <= len(frame)
    assert dissect(frame[:13]).version == 0


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_have_no_layer_4(version: int) -> None:
    frame = bytearray(ip_packet(bytes(40), UDP, version=version))
    if version == 4:
        frame[20:22] = b"\x20\x00"
    else:
        frame[20] = 44
    assert dissect(bytes(frame)).protocol == 0
