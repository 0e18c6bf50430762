"""The physical function, driven as igb drives it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.nic82576.controller import Nic82576
from devices.models.nic82576.registers import GOTCL
from devices.network.link import connect
from tests.devices.models.nic82576.drivers import LINK_UP
from tests.devices.models.nic82576.machines import SECOND, Machine, frame_for
from tests.devices.network.packets import ip_packet

PATTERNS = (0x5A5A_5A5A, 0xA5A5_A5A5, 0, 0xFFFF_FFFF)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_igb_probes_opens_sends_and_receives(machine: Machine) -> None:
    machine.up()
    driver = machine.driver
    assert driver.read(0x0008) & LINK_UP
    driver.vectors()
    rings = driver.open()
    frame = frame_for(b"\2\0\0\0\0\1")
    index = rings.send(frame)
    assert machine.sink.frames == [frame]
    assert rings.done(index)
    assert machine.messages() == [0x41]
    driver.write(0x1524, 2)
    machine.nic.receive(frame_for(driver.mac))
    got = rings.receive()
    assert got is not None
    assert got.data == frame_for(driver.mac)
    assert machine.messages() == [0x41]
    assert rings.receive() is None
    assert driver.read(0x4074) == 1
    assert driver.read(0x4074) == 0
    assert driver.read(0x4080) == 1


def test_two_controllers_talk_through_a_cable() -> None:
    one, other = Machine(), Machine(Nic82576("02:00:00:00:00:02"))
    connect(one.nic, other.nic)
    one.up()
    other.up()
    here, there = one.driver.open(), other.driver.open()
    for length in (60, 61, 1000, 1514):
        sent = frame_for(other.driver.mac, length, one.driver.mac)
        here.send(sent, parts=3)
        got = there.receive()
        assert got is not None
        assert got.data == sent


def test_restarted_negotiation_loses_the_link_and_finds_it_again(machine: Machine) -> None:
    machine.up()
    driver = machine.driver
    driver.vectors()
    driver.open()
    driver.phy_write(0, 0x1340)
    assert not driver.read(0x0008) & LINK_UP
    assert machine.messages() == [0x40]
    assert driver.read(0x00C0) & 4
    driver.write(0x1524, 1)
    machine.nic.clock.advance(SECOND)
    assert driver.read(0x0008) & LINK_UP
    assert driver.phy_read(1) & 0x24 == 0x24
    assert machine.messages() == [0x40]


def test_no_partner_is_no_link() -> None:
    machine = Machine()
    machine.nic.attach(None)
    machine.up()
    assert not machine.driver.read(0x0008) & LINK_UP
    rings = machine.driver.open()
    index = rings.send(frame_for(b"\2\0\0\0\0\1"))
    assert rings.done(index)
    assert machine.sink.frames == []


def test_the_register_self_test_passes(machine: Machine) -> None:
    """The masks are those that ethtool's offline test of igb uses."""
    driver = machine.driver
    driver.probe()
    old = [0x100 * queue for queue in range(4)]
    new = [0x40 * queue for queue in range(4, 16)]
    receive = [0x2800 + at for at in old] + [0xC000 + at for at in new]
    transmit = [0x3800 + at for at in old] + [0xE000 + at for at in new]
    rows = [(0x28, 0xFFFF_FFFF), (0x2C, 0xFFFF), (0x30, 0xFFFF), (0x38, 0xFFFF_FFFF)]
    for queues in (receive, transmit):
        rows += [(at, 0xFFFF_FF80) for at in queues] + [(at + 4, 0xFFFF_FFFF) for at in queues]
        rows += [(at + 8, 0x000F_FFF0) for at in queues]
    rows += [(0x2168, 0xFFF0), (0x0170, 0xFFFF), (0x0410, 0x3FFF_FFFF)]
    for queue in receive:
        driver.write(queue + 0x28, 1 << 25)
    rows += [(at + 0x18, 0xFFFF) for at in receive]
    addresses = [0x5400 + 8 * index for index in range(16)]
    addresses += [0x54E0 + 8 * index for index in range(8)]
    rows += [(at, 0xFFFF_FFFF) for at in addresses] + [(at + 4, 0x83FF_FFFF) for at in addresses]
    rows += [(0x5200 + 4 * index, 0xFFFF_FFFF) for index in range(128)]
    for offset, mask in rows:
        for pattern in PATTERNS:
            driver.write(offset, pattern)
            assert driver.read(offset) & mask == pattern & mask, hex(offset)
    for written in (0x003F_FFFB, 0xFFFF_FFFF):
        driver.write(0x0100, 0)
        assert driver.read(0x0100) == 0
        driver.write(0x0100, 0x04CF_B0FE & written)
        assert driver.read(0x0100) & 0x04CF_B0FE == 0x04CF_B0FE & written
    driver.write(0x0400, 0)
    assert driver.read(0x0400) == 0
    before = driver.read(0x0008)
    for value in (0x7FFF_F3FF, 0):
        driver.write(0x0008, value)
        assert (driver.read(0x0008) ^ before) & 0x7FFF_F3FF == 0


@pytest.mark.parametrize("multiple", [True, False])
def test_the_interrupt_self_test_passes(machine: Machine, multiple: bool) -> None:
    machine.up()
    driver = machine.driver
    driver.vectors()
    if multiple:
        driver.write(0x1514, 0xC000_0011)
    driver.write(0x1740, 0x8000)
    driver.write(0x1524, 1)
    driver.write(0x00D8, 0xFFFF_FFFF)
    for bit in range(31):
        mask = 1 << bit & 0x77D4_FBFD
        if not mask or mask == 1 << 30:
            continue
        driver.read(0x00C0)
        driver.write(0x00D8, mask)
        driver.write(0x00C8, mask)
        assert machine.messages() == []
        driver.write(0x00C0, 0xFFFF_FFFF)
        driver.read(0x1580)
        driver.write(0x00D0, mask)
        driver.write(0x00C8, mask)
        assert machine.messages() == [0x40], bit
        assert driver.read(0x00C0) & mask
        driver.read(0x1580)
        driver.write(0x00D8, mask)


def test_the_loopback_self_test_passes(machine: Machine) -> None:
    machine.nic.attach(None)
    machine.up()
    driver = machine.driver
    rings = driver.open()
    driver.phy_write(0, 0x4140)
    driver.write(0x0000, 0x1A41)
    assert driver.read(0x0008) & LINK_UP
    frame = b"\xff" * 512 + b"\xaa" * 10 + b"\xbe\xaa\xaf" + b"\xaa" * 499
    for _ in range(64):
        rings.send(frame)
        got = rings.receive()
        assert got is not None
        assert got.data == frame


def test_a_wrong_phy_address_or_register_is_an_error(machine: Machine) -> None:
    driver = machine.driver
    for value in (2 << 21 | 2 << 16, 1 << 21 | 0x1E << 16):
        driver.write(0x0020, value | 1 << 27)
        assert driver.read(0x0020) >> 28 & 5 == 5


def test_a_phy_reset_is_shown_until_software_has_seen_it(machine: Machine) -> None:
    machine.up()
    driver = machine.driver
    driver.phy_write(4, 0x1234)
    driver.set(0x0000, 1 << 31)
    assert driver.phy_read(4) == 0x0DE1
    assert driver.read(0x0008) & 1 << 10
    driver.write(0x0008, 0xFFFF_FFFF)
    assert driver.read(0x0008) & 1 << 10
    driver.write(0x0008, 0)
    assert not driver.read(0x0008) & 1 << 10
    driver.phy_write(4, 0x1234)
    driver.phy_write(0, 0x9140)
    assert (driver.phy_read(0), driver.phy_read(4)) == (0x1140, 0x0DE1)


def test_a_powered_down_phy_has_no_link(machine: Machine) -> None:
    machine.up()
    driver = machine.driver
    driver.phy_write(0, 0x1940)
    machine.nic.clock.advance(SECOND)
    assert not driver.read(0x0008) & LINK_UP
    driver.phy_write(0, 0x1140)
    machine.nic.clock.advance(SECOND)
    assert driver.read(0x0008) & LINK_UP


def test_the_nvm_is_granted_and_ends(machine: Machine) -> None:
    driver = machine.driver
    driver.write(0x0010, 1 << 6)
    assert driver.read(0x0010) & 1 << 7
    driver.write(0x0010, 0)
    assert not driver.read(0x0010) & 1 << 7
    assert driver.nvm(255) == 0xFFFF
    driver.write(0x0014, 256 << 2 | 1)
    assert not driver.read(0x0014) & 2
    driver.write(0x0014, 1 << 2)
    assert not driver.read(0x0014) & 2


def test_octets_are_counted_in_64_bits(machine: Machine) -> None:
    machine.up()
    rings = machine.driver.open()
    machine.nic.bank.values[GOTCL] = 0xFFFF_FFFF
    rings.send(frame_for(b"\2\0\0\0\0\1"))
    assert machine.nic.bars[0].read(0x4090, 8) == 0x1_0000_0000 + 103
    assert machine.nic.bars[0].read(0x4090, 8) == 0


def test_a_reported_descriptor_keeps_what_is_not_status(machine: Machine) -> None:
    machine.up()
    rings = machine.driver.open()
    rings.send(frame_for(b"\2\0\0\0\0\1"))
    report = int.from_bytes(machine.port.ram.read(rings.tx_ring + 12, 4), "little")
    assert report == 100 << 14 | 1


def test_a_packet_longer_than_its_length_field_can_say_is_dropped(machine: Machine) -> None:
    machine.up()
    rings = machine.driver.open()
    for number in range(5):
        rings.descriptor(0, 0x2230_0000 | 0xFFFF | (0x0900_0000 if number == 4 else 0))
    rings.ring_bell()
    assert rings.done(4)
    assert machine.sink.frames == []
    rings.send(frame_for(b"\2\0\0\0\0\1"))
    assert len(machine.sink.frames) == 1


def test_moderated_interrupts_come_once_an_interval(machine: Machine) -> None:
    machine.up()
    driver, clock = machine.driver, machine.nic.clock
    driver.vectors()
    rings = driver.open()
    driver.write(0x1530, 0)
    driver.write(0x1684, 100 << 2)
    start = clock.now
    times = []
    for _ in range(40):
        rings.send(frame_for(b"\2\0\0\0\0\1"))
        clock.advance(30_000)
        times += [clock.now - start] * len(machine.messages())
    clock.advance(SECOND)
    assert len(times) in range(11, 14)
    assert times[0] == 30_000
    assert all(later - earlier >= 90_000 for earlier, later in pairwise(times))


def test_a_software_reset_forgets_all_but_what_survives(machine: Machine) -> None:
    machine.up()
    driver = machine.driver
    driver.open()
    driver.write(0x5400, 0x1234)
    driver.write(0x1680, 0x648)
    driver.write(0x2404, 0x30)
    driver.reset()
    assert driver.read(0x5818) == 0
    assert driver.read(0xE000 + 0x68) == 0
    assert driver.read(0x5400).to_bytes(4, "little") == driver.mac[:4]
    assert driver.read(0x1680) == 0x648
    assert driver.read(0x2404) == 0x30
    assert driver.read(0x0008) & LINK_UP


@given(st.integers(0, 300), st.integers(0, 3))
def test_any_length_up_to_four_buffers_arrives_whole(extra: int, quarter: int) -> None:
    machine = Machine()
    machine.up()
    rings = machine.driver.open(srrctl=0x0200_0001)
    length = 60 + 1024 * quarter + extra
    frame = frame_for(machine.driver.mac, length)
    machine.nic.receive(frame)
    got = rings.receive()
    assert got is not None
    assert got.data == frame


def test_legacy_descriptors_send_and_receive(machine: Machine) -> None:
    machine.up()
    rings = machine.driver.open(srrctl=2)
    frame = frame_for(machine.driver.mac)
    machine.port.ram.write(rings.tx_buffers, frame)
    rings.descriptor(rings.tx_buffers, len(frame) | 0x0B << 24)
    rings.ring_bell()
    assert machine.sink.frames == [frame]
    assert rings.done(0)
    machine.nic.receive(frame)
    raw = machine.port.ram.read(rings.rx_ring, 16)
    assert int.from_bytes(raw[8:10], "little") == len(frame)
    assert raw[12] & 3 == 3
    assert machine.port.ram.read(rings.rx_buffers, len(frame)) == frame


def test_a_full_ring_counts_what_it_misses(machine: Machine) -> None:
    machine.up()
    driver = machine.driver
    rings = driver.open()
    for _ in range(20):
        machine.nic.receive(frame_for(driver.mac))
    assert driver.read(0x4010) == driver.read(0x40A0) == 20 - 15
    assert driver.read(0xC030) == 0
    driver.set(0xC00C, 1 << 31)
    machine.nic.receive(frame_for(driver.mac))
    assert (driver.read(0x4010), driver.read(0xC030)) == (0, 1)
    assert sum(rings.receive() is not None for _ in range(16)) == 15


@pytest.mark.parametrize(
    "mac", ["", "00:00:00:00:00:00", "01:00:00:00:00:01", "2:0", "02:00:00:00:00:0g"]
)
def test_an_address_that_is_none_is_refused(mac: str) -> None:
    with pytest.raises(ValueError, match="mac"):
        Nic82576(mac)


def test_a_ring_without_end_leaves_others_their_turn(machine: Machine) -> None:
    """The longest ring, each packet of it cut into 300 segments."""
    machine.up()
    driver, ram = machine.driver, machine.port.ram
    rings = driver.open()
    large = ip_packet(bytes(64 * 300), 6, check=False)
    ram.write(0, large)
    low, high = 14 << 9 | 20, 0x2020_0C00 | (64 << 16 | 20 << 8) << 32
    ram.write(rings.tx_ring, low.to_bytes(8, "little") + high.to_bytes(8, "little"))
    rings.tail = 1
    rings.ring_bell()
    count = 65528
    command = (0xA330_0000 | len(large) | (len(large) << 14 | 0x300) << 32) << 64
    ram.write(0, large)
    driver.write(0xE008, 16 * count)
    for at in (0xE000, 0xE010, 0xE018):
        driver.write(at, 0)
    ram.write(0, (command | 0x2000).to_bytes(16, "little") * 200)
    ram.write(0x2000, large)
    driver.write(0xE018, count - 1)
    assert 4096 <= len(machine.sink.frames) <= 4096 + 300
    before = len(machine.sink.frames)
    machine.nic.clock.advance(1000)
    assert before + 3000 < len(machine.sink.frames) <= before + 4396
    driver.write(0xE028, 0)
    machine.nic.clock.advance(SECOND)
    assert len(machine.sink.frames) <= before + 4396
