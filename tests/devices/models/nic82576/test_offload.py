"""Checksums, segments and tags that the controller puts in, judged by slow sums."""

import struct
import zlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from devices.network.frames import crc32c
from tests.devices.models.nic82576.drivers import Rings
from tests.devices.models.nic82576.machines import Machine, frame_for
from tests.devices.network.packets import ip_packet, pseudo, slow_sum, sound

TCP, UDP = 6, 17
IP_CHECKSUM, L4_CHECKSUM = 1 << 8, 1 << 9
SEGMENT, TAG = 1 << 31, 1 << 30


def context(
    version: int, protocol: int, *, mss: int = 0, vlan: int = 0, index: int = 0
) -> tuple[int, int]:
    """A context descriptor as igb fills it in: VLAN and lengths, types, MSS."""
    iplen, l4len = (20 if version == 4 else 40), (20 if protocol == TCP else 8)
    types = 0x2020_0000 | (version == 4) << 10 | (protocol == TCP) << 11
    return vlan << 16 | 14 << 9 | iplen, types | (mss << 16 | l4len << 8 | index << 4) << 32


def up() -> tuple[Machine, Rings]:
    machine = Machine()
    machine.up()
    return machine, machine.driver.open()


@given(
    payload=st.binary(max_size=600),
    protocol=st.sampled_from([TCP, UDP]),
    version=st.sampled_from([4, 6]),
    vlan=st.none() | st.integers(1, 4094),
    parts=st.integers(1, 3),
    index=st.integers(0, 1),
)
def test_checksums_are_put_in(
    payload: bytes, protocol: int, version: int, vlan: int | None, parts: int, index: int
) -> None:
    machine, rings = up()
    rings.descriptor(*context(version, protocol, vlan=vlan or 0, index=index))
    packet = ip_packet(payload, protocol, version=version, check=False)
    options = L4_CHECKSUM | (IP_CHECKSUM if version == 4 else 0) | index << 4
    last = rings.send(packet, command=TAG if vlan else 0, options=options, parts=parts)
    assert rings.done(last)
    (frame,) = machine.sink.frames
    if vlan:
        assert frame[12:16] == b"\x81\0" + vlan.to_bytes(2, "big")
        frame = frame[:12] + frame[16:]
    length = len(packet)
    assert frame[length:] == bytes(max(60 - length - 4 * bool(vlan), 0))
    assert frame[:length] == ip_packet(payload, protocol, version=version)


@given(
    size=st.integers(1, 9000),
    protocol=st.sampled_from([TCP, UDP]),
    version=st.sampled_from([4, 6]),
    mss=st.integers(64, 1460),
    flags=st.sampled_from([0x10, 0x18, 0x19, 0x90]),
)
def test_a_large_packet_becomes_segments_that_say_the_same(
    size: int, protocol: int, version: int, mss: int, flags: int
) -> None:
    machine, rings = up()
    payload = bytes(index * 7 & 0xFF for index in range(size))
    large = ip_packet(payload, protocol, version=version, flags=flags, check=False)
    field = 14 + (20 if version == 4 else 40) + (16 if protocol == TCP else 6)
    if version == 4:
        total = slow_sum(large[26:34] + bytes((0, protocol)))
    else:
        total = slow_sum(large[22:54] + bytes((0, protocol)))
    large = large[:field] + struct.pack("!H", total) + large[field + 2 :]
    assume(len(large) < 0x9000)
    rings.descriptor(*context(version, protocol, mss=mss))
    options = L4_CHECKSUM | (IP_CHECKSUM if version == 4 else 0)
    rings.send(large, command=SEGMENT, options=options, parts=2)
    start = len(large) - size
    frames = machine.sink.frames
    assert len(frames) == -(-size // mss)
    told = b""
    for number, padded in enumerate(frames):
        length = start + min(mss, size - number * mss)
        frame = padded[:length]
        assert not any(padded[length:])
        assert sound(frame)
        told += frame[start:]
        at = 14 + (20 if version == 4 else 40)
        if version == 4:
            assert int.from_bytes(frame[18:20], "big") == 7 + number
        if protocol == TCP:
            assert int.from_bytes(frame[at + 4 : at + 8], "big") == 1000 + number * mss
            wanted = flags
            if number < len(frames) - 1:
                wanted &= ~0x09
            if number:
                wanted &= ~0x80
            assert frame[at + 13] == wanted
    assert told == payload


@pytest.mark.parametrize(
    "low_high",
    [
        context(4, TCP, mss=63),
        context(4, TCP),
        (14 << 9 | 8, 0x2020_0C00 | 1000 << 48 | 20 << 40),
        (14 << 9 | 20, 0x2020_0C00 | 1000 << 48 | 8 << 40),
        (100 << 9 | 20, 0x2020_0C00 | 1000 << 48 | 20 << 40),
        (14 << 9 | 20, 0x2020_1400 | 1000 << 48 | 20 << 40),
    ],
)
def test_a_context_without_sense_sends_nothing(low_high: tuple[int, int]) -> None:
    machine, rings = up()
    rings.descriptor(*low_high)
    last = rings.send(ip_packet(bytes(60), TCP, check=False), command=SEGMENT, options=L4_CHECKSUM)
    assert rings.done(last)
    assert machine.sink.frames == []
    assert machine.driver.read(0x40FC) == 1


def test_a_checksum_of_udp_is_never_0() -> None:
    """0 says that there is none, so its other form is sent (RFC 768)."""
    machine, rings = up()
    rings.descriptor(*context(4, UDP))
    packet = ip_packet(b"\0\0", UDP, check=False)
    missing = slow_sum(packet[34:]) ^ 0xFFFF
    packet = packet[:42] + missing.to_bytes(2, "big")
    rings.send(packet, options=L4_CHECKSUM)
    assert machine.sink.frames[0][40:42] == b"\xff\xff"


def test_the_checksum_of_sctp_is_a_crc() -> None:
    machine, rings = up()
    body = struct.pack("!HHII", 5000, 5001, 7, 0) + bytes(range(40))
    packet = bytearray(ip_packet(b"", UDP))
    packet[23], packet[16:18] = 132, struct.pack("!H", 20 + len(body))
    frame = bytes(packet[:34]) + body
    rings.descriptor(14 << 9 | 20, 0x2020_1400)
    rings.send(frame, options=L4_CHECKSUM)
    (sent,) = machine.sink.frames
    assert sent[42:46] == crc32c(body).to_bytes(4, "little")
    machine.nic.receive(machine.driver.mac + sent[6:])
    got = rings.receive()
    assert got is not None
    assert got.status & 1 << 5
    assert not got.status & 1 << 29


def test_a_legacy_descriptor_puts_in_a_checksum_and_a_tag() -> None:
    machine, rings = up()
    packet = ip_packet(bytes(40), UDP, check=False)
    machine.port.ram.write(rings.tx_buffers, packet)
    high = len(packet) | 40 << 16 | 0x4F << 24 | (34 << 8 | 0x2005 << 16) << 32
    rings.descriptor(rings.tx_buffers, high)
    rings.ring_bell()
    (frame,) = machine.sink.frames
    assert frame[12:16] == b"\x81\0\x20\x05"
    body = frame[4 + 34 :]
    assert slow_sum(pseudo(frame[30:34], frame[34:38], UDP, len(body)) + body) == 0xFFFF


def test_a_frame_with_its_own_check_sequence_needs_a_right_one() -> None:
    machine, rings = up()
    frame = frame_for(b"\2\0\0\0\0\1")
    check = zlib.crc32(frame)
    for value, sent in ((check ^ 1, 0), (check, 1)):
        data = frame + struct.pack("<I", value)
        machine.port.ram.write(rings.tx_buffers, data)
        rings.descriptor(rings.tx_buffers, 0x2930_0000 | len(data) | len(data) << 46)
        rings.ring_bell()
        assert machine.sink.frames == [frame] * sent
