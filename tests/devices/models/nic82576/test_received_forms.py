"""What a driver finds in its ring: checksums looked at, hashes, tags, headers split off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.network.toeplitz import toeplitz
from tests.devices.models.nic82576.drivers import ENTRIES, Received, Rings
from tests.devices.models.nic82576.machines import Machine, frame_for
from tests.devices.network.packets import ip_packet

TCP, UDP = 6, 17
KEY = b"".join((0x0101_0101 * word).to_bytes(4, "little") for word in range(10))


def up(srrctl: int = 0x0200_0402) -> tuple[Machine, Rings]:
    machine = Machine()
    machine.up()
    return machine, machine.driver.open(srrctl=srrctl)


def take(machine: Machine, rings: Rings, frame: bytes) -> Received:
    machine.nic.receive(frame)
    got = rings.receive()
    assert got is not None
    return got


@given(
    payload=st.binary(max_size=100),
    protocol=st.sampled_from([TCP, UDP]),
    version=st.sampled_from([4, 6]),
    damage=st.sampled_from(["none", "network", "transport"]),
)
def test_checksums_are_looked_at(payload: bytes, protocol: int, version: int, damage: str) -> None:
    machine, rings = up()
    frame = bytearray(ip_packet(payload, protocol, version=version, mac=machine.driver.mac))
    if damage == "network" and version == 4:
        frame[22] ^= 1  # time to live, which no other checksum covers
    elif damage == "transport":
        frame[14 + (20 if version == 4 else 40)] ^= 1
    got = take(machine, rings, bytes(frame))
    assert got.data[: len(frame)] == frame
    assert bool(got.status & 1 << 6) == (version == 4)
    assert bool(got.status & 1 << 30) == (version == 4 and damage == "network")
    assert got.status & 1 << 5
    assert bool(got.status & 1 << 4) == (protocol == UDP)
    assert bool(got.status & 1 << 29) == (damage == "transport")


def test_checksums_are_not_looked_at_unless_software_wants_it() -> None:
    machine, rings = up()
    machine.driver.write(0x5000, 0)
    got = take(machine, rings, ip_packet(b"", UDP, mac=machine.driver.mac))
    assert not got.status & (1 << 4 | 1 << 5 | 1 << 6)


@pytest.mark.parametrize(
    ("version", "protocol", "rss_type"), [(4, TCP, 1), (6, TCP, 3), (4, UDP, 7), (6, UDP, 8)]
)
def test_the_hash_chooses_the_queue(version: int, protocol: int, rss_type: int) -> None:
    machine, first = up()
    driver = machine.driver
    second = Rings(driver.bar, driver.ram, 0x4_0000, 0xC000 + 0x40 * 5, 0xE000 + 0x40 * 5)
    second.start()
    driver.write(0x5818, 0x00FF_0002)
    frame = ip_packet(bytes(20), protocol, version=version, mac=driver.mac)
    at = 26 if version == 4 else 22
    width = 8 if version == 4 else 32
    ports = 34 if version == 4 else 54
    value = toeplitz(KEY, frame[at : at + width] + frame[ports : ports + 4])
    got = take(machine, first, frame)
    assert (got.rss_type, got.rss_hash) == (rss_type, value)
    entry = value & 0x7F
    driver.write(0x5C00 + (entry & ~3), 5 << 8 * (entry & 3))
    assert take(machine, second, frame).rss_hash == value
    assert first.receive() is None


def test_the_hash_is_told_only_in_place_of_the_checksum() -> None:
    machine, rings = up()
    machine.driver.write(0x5000, 0x300)
    assert take(machine, rings, ip_packet(b"", TCP, mac=machine.driver.mac)).rss_hash == 0


def test_the_lowest_bit_of_a_header_buffer_is_no_address() -> None:
    machine, rings = up(5 << 25 | 2 << 8 | 1)
    packet, header = rings.rx_buffers, rings.rx_buffers + 1024
    descriptor = packet.to_bytes(8, "little") + (header | 1).to_bytes(8, "little")
    machine.port.ram.write(rings.rx_ring, descriptor)
    frame = ip_packet(bytes(300), UDP, mac=machine.driver.mac)
    got = take(machine, rings, frame)
    assert got.header + got.data == frame


def test_a_packet_in_several_legacy_descriptors_says_what_it_is_in_the_last() -> None:
    machine, rings = up(1)
    machine.driver.set(0x0000, 1 << 30)
    frame = ip_packet(bytes(1400), UDP, mac=machine.driver.mac)
    machine.nic.receive(frame[:12] + b"\x81\0\0\x07" + frame[12:])
    first, last = (machine.port.ram.read(rings.rx_ring + 16 * slot, 16) for slot in (0, 1))
    assert first[8:] == (1024).to_bytes(2, "little") + bytes(2) + b"\1\0\0\0"
    assert last[8:10] == (len(frame) - 1024).to_bytes(2, "little")
    assert last[12:] == bytes((0x7B, 0, 7, 0))


def test_without_a_field_for_them_ports_are_not_hashed() -> None:
    machine, rings = up()
    machine.driver.write(0x5818, 1 << 17 | 2)
    frame = ip_packet(b"", TCP, mac=machine.driver.mac)
    got = take(machine, rings, frame)
    assert (got.rss_type, got.rss_hash) == (2, toeplitz(KEY, frame[26:34]))
    machine.driver.write(0x5818, 2)
    assert take(machine, rings, frame).rss_type == 0


def test_a_tag_is_taken_out() -> None:
    machine, rings = up()
    frame = frame_for(machine.driver.mac, 200)
    tagged = frame[:12] + b"\x81\0\x60\x07" + frame[12:]
    got = take(machine, rings, tagged)
    assert got.data == tagged
    assert not got.status & 8
    machine.driver.set(0x0000, 1 << 30)
    got = take(machine, rings, tagged)
    assert got.data == frame
    assert got.status & 8
    assert got.vlan == 0x6007


def test_the_check_sequence_stays_if_software_wants_it() -> None:
    machine, rings = up()
    machine.driver.write(0x0100, 1 << 1 | 1 << 15)
    frame = machine.driver.mac + b"123456789".ljust(54, b"\0")
    got = take(machine, rings, frame)
    assert got.data[:60] == frame[:60]
    assert len(got.data) == len(frame) + 4


@given(
    size=st.integers(0, 3000),
    protocol=st.sampled_from([TCP, UDP]),
    version=st.sampled_from([4, 6]),
    kind=st.sampled_from([2, 5]),
    types=st.sampled_from([0, 0x10, 0x20, 0x30, 0x330]),
)
def test_headers_are_split_off(
    size: int, protocol: int, version: int, kind: int, types: int
) -> None:
    machine, rings = up(kind << 25 | 2 << 8 | 1)
    machine.driver.write(0x5480, types)
    payload = bytes(index & 0xFF for index in range(size))
    frame = ip_packet(payload, protocol, version=version, mac=machine.driver.mac)
    machine.nic.receive(frame)
    raw = machine.port.ram.read(rings.rx_ring, 16)
    split = bool(raw[3] & 0x80)
    got = rings.receive()
    assert got is not None
    whole = got.header + got.data
    assert whole[: len(frame)] == frame
    start = len(frame) - size
    network = 14 + (20 if version == 4 else 40)
    if types & (0x10 if protocol == TCP else 0x20):
        assert split
        assert len(got.header) == start
    elif types & 0x300:
        assert split
        assert len(got.header) == network
    else:
        assert not split
        assert len(got.header) == (min(128, len(whole)) if kind == 5 else 0)


def test_what_would_go_to_a_buffer_at_address_0_goes_nowhere() -> None:
    machine, rings = up()
    machine.port.ram.write(rings.rx_ring, bytes(16))
    frame = frame_for(machine.driver.mac)
    assert take(machine, rings, frame).data == bytes(100)
    assert machine.port.ram.read(0, 100) == bytes(100)
    assert take(machine, rings, frame).data == frame


@given(st.integers(0, 40))
def test_a_packet_that_does_not_fit_takes_no_descriptor(free: int) -> None:
    machine, rings = up(0x0200_0001)
    frame = frame_for(machine.driver.mac, 1514)
    tail = free % ENTRIES
    machine.driver.write(0xC018, tail)
    machine.nic.receive(frame)
    assert machine.driver.read(0xC010) == (2 if tail >= 2 else 0)
    assert (rings.receive() is not None) == (tail >= 2)
