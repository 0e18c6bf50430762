"""Virtual functions, driven as igbvf drives them: mailbox, interrupts, resets, switching."""

import zlib

import pytest

from devices.models.nic82576.controller import Nic82576
from devices.source_id import SourceId
from devices.topology import Topology
from tests.devices.models.nic82576.drivers import LINK_UP, MiniIgbvf, Rings
from tests.devices.models.nic82576.machines import (
    OUTSIDE,
    Machine,
    VirtualMachines,
    frame_for,
    vf_mac,
)
from tests.devices.network.packets import ip_packet

LOOPBACK = 1 << 31


@pytest.fixture
def machine() -> VirtualMachines:
    machine = VirtualMachines()
    machine.start_guests()
    return machine


def test_igbvf_resets_gets_its_address_and_traffic(machine: VirtualMachines) -> None:
    guest, rings, port = machine.guests[0], machine.guest_rings[0], machine.ports[0]
    assert guest.mac == vf_mac(0)
    assert guest.read(0x0008) & LINK_UP
    port.messages.clear()
    index = rings.send(frame_for(OUTSIDE, source=guest.mac))
    assert rings.done(index)
    assert machine.sink.frames == [frame_for(OUTSIDE, source=guest.mac)]
    machine.nic.receive(frame_for(guest.mac))
    got = rings.receive()
    assert got is not None
    assert got.data == frame_for(guest.mac)
    assert [data for _, data in port.messages] == [0x50, 0x51]
    assert guest.read(0x0F10) == guest.read(0x0F14) == 1
    assert guest.read(0x0F10) == 1


def test_every_queue_uses_the_memory_of_its_own_function(machine: VirtualMachines) -> None:
    blank = machine.port.ram.read(0x1_0000, 0x2000)
    for guest, rings in zip(machine.guests, machine.guest_rings, strict=True):
        machine.nic.receive(frame_for(guest.mac))
        got = rings.receive()
        assert got is not None
        assert got.data == frame_for(guest.mac)
    assert machine.port.ram.read(0x1_0000, 0x2000) == blank


def test_without_a_physical_driver_the_mailbox_stays_in_reset() -> None:
    machine = Machine()
    machine.driver.probe()
    machine.nic.config.write(0x170, 2, 1)
    machine.nic.config.write(0x168, 2, 9)
    assert not MiniIgbvf(machine.nic.sriov.functions[0], machine.port.ram, 0, None).reset()


def test_a_message_goes_over_and_its_answer_comes_back(machine: VirtualMachines) -> None:
    guest = machine.guests[1]
    machine.messages()
    machine.driver.read(0x00C0)
    machine.driver.write(0x1524, 1)
    machine.ports[1].messages.clear()
    guest.write(0x1524, 7)
    assert guest.ask(5, 1600)[0] == 0xA000_0005
    assert machine.driver.read(0x5AD4) & 0x1_3FFF == 0x1_0000 | 1600
    assert machine.agent.seen[-1] == (1, 5)
    assert 0x40 in machine.messages()
    assert 0x62 in [data for _, data in machine.ports[1].messages]
    assert guest.ask(9)[0] == 0x6000_0009


def test_only_one_side_holds_the_lock(machine: VirtualMachines) -> None:
    guest, driver = machine.guests[0], machine.driver
    guest.write(0x0C40, 4)
    driver.write(0x0C00, 8)
    assert driver.read(0x0C00) & 0xC == 4
    guest.write(0x0C40, 0)
    driver.write(0x0C00, 8)
    guest.write(0x0C40, 4)
    assert guest.read(0x0C40) & 0xC == 8
    driver.write(0x0C00, 0)
    guest.write(0x0C40, 4)
    guest.write(0x0C40, 5)
    assert driver.read(0x0C80) & 1
    driver.write(0x0C00, 16)
    assert driver.read(0x0C00) & 4 == 0
    assert not driver.read(0x0C80) & 1


@pytest.mark.parametrize("how", ["register", "function level"])
def test_a_reset_stops_its_queues_and_tells_the_other_side(
    machine: VirtualMachines, how: str
) -> None:
    guest, driver = machine.guests[1], machine.driver
    if how == "register":
        guest.write(0x0000, 1 << 26)
    else:
        guest.function.config.write(0xA8, 2, 0x8000)
    assert driver.read(0x0C88) == 2
    assert not driver.read(0x0C8C) & 2
    assert not driver.read(0x0C90) & 2
    assert not guest.read(0x2828) & 1 << 25
    assert not guest.read(0x3828) & 1 << 25
    assert guest.read(0x1524) == 0
    machine.nic.receive(frame_for(guest.mac))
    assert machine.guest_rings[1].receive() is None
    driver.write(0x0C88, 2)
    assert driver.read(0x0C88) == 0


def test_a_reset_of_the_physical_function_holds_all_others(machine: VirtualMachines) -> None:
    machine.driver.reset()
    assert machine.guests[0].read(0x0C40) & 0xC0 == 0x40
    machine.driver.set(0x0018, 1 << 14)
    assert machine.guests[0].read(0x0C40) & 0xC0 == 0x80
    assert machine.guests[0].read(0x0C40) & 0xC0 == 0


def test_frames_between_guests_are_switched_and_stay_inside(machine: VirtualMachines) -> None:
    one, other = machine.guest_rings
    frame = frame_for(vf_mac(1), source=vf_mac(0))
    one.send(frame)
    assert machine.sink.frames == [frame]
    assert other.receive() is None
    machine.driver.write(0x3500, LOOPBACK)
    one.send(frame)
    assert machine.sink.frames == [frame]
    got = other.receive()
    assert got is not None
    assert got.data == frame


def test_a_broadcast_of_a_guest_reaches_all_but_itself(machine: VirtualMachines) -> None:
    machine.driver.write(0x3500, LOOPBACK)
    frame = frame_for(b"\xff" * 6, source=vf_mac(0))
    machine.guest_rings[0].send(frame)
    assert machine.sink.frames == [frame]
    assert machine.guest_rings[0].receive() is None
    for rings in (machine.guest_rings[1], machine.rings):
        got = rings.receive()
        assert got is not None
        assert got.data == frame
    machine.driver.write(0x3500, LOOPBACK | 1 << 16)
    machine.guest_rings[0].send(frame)
    assert machine.guest_rings[0].receive() is not None


def test_a_group_address_in_the_table_still_goes_to_the_wire(machine: VirtualMachines) -> None:
    machine.driver.write(0x3500, LOOPBACK)
    group = bytes((1, 0, 0x5E, 0, 0, 9))
    machine.driver.write(0x5408, int.from_bytes(group[:4], "little"))
    machine.driver.write(0x540C, int.from_bytes(group[4:], "little") | 1 << 31 | 1 << 19)
    frame = frame_for(group, source=vf_mac(0))
    machine.guest_rings[0].send(frame)
    assert machine.sink.frames == [frame]
    got = machine.guest_rings[1].receive()
    assert got is not None
    assert got.data == frame


def test_copies_for_several_pools_lose_their_tag_where_all_shall(
    machine: VirtualMachines,
) -> None:
    """RPLOLR decides for copies, VMOLR for a frame of one pool."""
    driver = machine.driver
    driver.set(0x5AD0, 1 << 30)
    plain = frame_for(b"\xff" * 6)
    tagged = plain[:12] + b"\x81\0\0\x05" + plain[12:]
    machine.nic.receive(tagged)
    assert [rings.receive().data for rings in machine.guest_rings] == [tagged, tagged]  # type: ignore[union-attr]
    driver.set(0x5AF0, 1 << 30)
    machine.nic.receive(tagged)
    assert [rings.receive().data for rings in machine.guest_rings] == [plain, plain]  # type: ignore[union-attr]
    for index, wanted in enumerate((plain, tagged)):
        one = vf_mac(index) + tagged[6:]
        machine.nic.receive(one)
        got = machine.guest_rings[index].receive()
        assert got is not None
        assert got.data == vf_mac(index) + wanted[6:]


def test_rss_moves_a_frame_to_the_second_queue_of_its_pool(machine: VirtualMachines) -> None:
    driver, guest = machine.driver, machine.guests[0]
    driver.write(0x5818, 0x00FF_0005)
    second = Rings(guest.bar, guest.ram, 0x5_0000, 0x2900, 0x3900)
    second.start()
    frame = ip_packet(bytes(20), 6, mac=guest.mac)
    for entry, per_pool, queue in ((0, 1, 0), (1, 1, 1), (1, 0, 0), (2, 1, 0), (3, 1, 1)):
        for at in range(32):
            driver.write(0x5C00 + 4 * at, 0x0101_0101 * entry)
        driver.write(0x5AD0, driver.read(0x5AD0) & ~(1 << 17) | per_pool << 17)
        machine.nic.receive(frame)
        taken = [rings.receive() for rings in (machine.guest_rings[0], second)]
        assert [got is not None for got in taken] == [queue == 0, queue == 1]


def test_status_tells_how_many_there_are(machine: VirtualMachines) -> None:
    assert machine.driver.read(0x0008) >> 14 & 0x1F == 2 | 1 << 4
    machine.nic.config.write(0x168, 2, 0)
    assert machine.driver.read(0x0008) >> 14 & 0x1F == 0


def test_a_spoofed_address_is_dropped_and_reported(machine: VirtualMachines) -> None:
    driver = machine.driver
    driver.write(0x3500, 1)
    rings = machine.guest_rings[0]
    index = rings.send(frame_for(OUTSIDE, source=vf_mac(1)))
    assert machine.sink.frames == []
    assert rings.done(index)
    assert driver.read(0x3554) == 1
    assert driver.read(0x3554) == 0
    assert driver.read(0x00C0) & 1 << 28
    rings.send(frame_for(OUTSIDE, source=vf_mac(0)))
    assert len(machine.sink.frames) == 1


def test_a_spoofed_vlan_is_dropped(machine: VirtualMachines) -> None:
    driver, guest = machine.driver, machine.guests[0]
    driver.write(0x3500, 0x100)
    assert guest.ask(4 | 1 << 16, 5)[0] == 0xA001_0004
    frame = frame_for(OUTSIDE, source=guest.mac)
    for vlan, sent in ((5, 1), (6, 1), (5, 2)):
        tag = b"\x81\0" + vlan.to_bytes(2, "big")
        machine.guest_rings[0].send(frame[:12] + tag + frame[12:])
        assert len(machine.sink.frames) == sent


def test_a_port_vlan_is_put_in_for_a_guest(machine: VirtualMachines) -> None:
    machine.driver.write(0x3700, 1 << 30 | 0x2007)
    frame = frame_for(OUTSIDE, source=vf_mac(0))
    machine.guest_rings[0].send(frame)
    assert machine.sink.frames == [frame[:12] + b"\x81\0\x20\x07" + frame[12:]]
    machine.driver.write(0x3700, 1 << 31)
    machine.guest_rings[0].send(machine.sink.frames[0])
    assert machine.sink.frames[1] == frame


@pytest.mark.parametrize("length", range(1, 24))
@pytest.mark.parametrize("check", [True, False])
def test_short_frames_with_a_tag_that_is_cut_harm_nobody(
    machine: VirtualMachines, length: int, check: bool
) -> None:
    """All that looks at a tag is on: a length of less than header and tag has none."""
    driver, rings, port = machine.driver, machine.guest_rings[0], machine.ports[0]
    driver.write(0x3500, 0xFFFF | LOOPBACK)
    driver.write(0x3700, 1 << 31)
    driver.write(0x0400, 2)
    frame = (b"\xff" * 6 + vf_mac(0) + b"\x81\0\0\x05" + bytes(20))[:length]
    data = frame if check else frame + zlib.crc32(frame).to_bytes(4, "little")
    port.ram.write(rings.tx_buffers, data)
    command = 0x2930_0000 | check << 25
    rings.descriptor(rings.tx_buffers, command | len(data) | len(data) << 46)
    rings.ring_bell()
    assert rings.done(rings.tail - 1)
    plain = frame[:12] + frame[16:] if length >= 18 else frame
    assert machine.sink.frames == [plain] * (length >= 14)


@pytest.mark.parametrize(
    ("nic", "first", "stride"),
    [
        (Nic82576(), "01:10.0", 2),
        (Nic82576(first_vf_offset=0x180, ari=False), "02:10.0", 2),
        (Nic82576(first_vf_offset=1, vf_stride=1, total_vfs=7), "01:00.1", 1),
    ],
)
def test_requester_ids_are_where_the_parameters_place_them(
    nic: Nic82576, first: str, stride: int
) -> None:
    topology = Topology()
    topology.add(nic, topology.add_root_bus(number=1), 0)
    topology.add_sriov(nic.sriov)
    nic.config.write(0x170, 2, 7)
    nic.config.write(0x168, 2, 9)
    ids = [topology.bdf(function).source_id for function in nic.sriov.functions]
    start = SourceId.parse(first)
    assert ids == [SourceId(start + stride * index) for index in range(7)]


def test_eight_functions_have_vectors_of_their_own() -> None:
    machine = VirtualMachines(8)
    machine.start_guests()
    for index, (guest, port) in enumerate(zip(machine.guests, machine.ports, strict=True)):
        port.messages.clear()
        guest.write(0x1520, 7)
        base = 0x50 + 16 * index
        assert sorted(data for _, data in port.messages) == [base, base + 1, base + 2]
    for guest in machine.guests:
        guest.write(0x1528, 7)
        assert guest.read(0x1524) == 0
