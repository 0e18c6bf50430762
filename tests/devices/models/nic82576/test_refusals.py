"""Each DMA of the controller refused: what is lost, and that the rest goes on."""

from dataclasses import dataclass, field

import pytest

from devices.dma import READ, REFUSED, WRITE, Completion, Request
from devices.models.nic82576.controller import Nic82576
from devices.network.link import Sink
from tests.devices.models.nic82576.drivers import MiniIgb
from tests.devices.models.nic82576.machines import SECOND, Machine, frame_for
from tests.support.ports import RecordingPort

FRAME = frame_for(b"\2\0\0\0\0\1")


@dataclass
class Refusals:
    """Which accesses of which addresses are refused."""

    access: int = 0
    where: range = field(default_factory=lambda: range(0))


class RefusingPort(RecordingPort):
    """Refuses what ``refusals`` says."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = Refusals()

    def request(self, request: Request) -> Completion:
        refusals = self.refusals
        if request.access == refusals.access and request.address in refusals.where:
            return REFUSED
        return super().request(request)


class Refused(Machine):
    """A machine that is up, behind a port that can refuse."""

    def __init__(self) -> None:
        self.nic = Nic82576()
        self.port: RefusingPort = RefusingPort()
        self.nic.connect(self.port)
        self.sink = Sink()
        self.nic.attach(self.sink)
        self.driver = MiniIgb(self.nic, self.port.ram)
        self.driver.probe()
        self.nic.clock.advance(SECOND)
        self.driver.vectors()
        self.rings = self.driver.open()
        self.driver.write(0x1530, 0)

    def refuse(self, access: int, start: int, length: int) -> None:
        self.port.refusals = Refusals(access, range(start, start + length))

    def allow(self) -> None:
        self.port.refusals = Refusals()


@pytest.fixture
def machine() -> Refused:
    return Refused()


def test_a_packet_that_cant_be_read_is_dropped_and_its_descriptors_are_done(
    machine: Refused,
) -> None:
    machine.refuse(READ, machine.rings.tx_buffers + 50, 1)
    last = machine.rings.send(FRAME, parts=2)
    assert machine.sink.frames == []
    machine.allow()
    after = machine.rings.send(FRAME)
    assert machine.sink.frames == [FRAME]
    assert machine.rings.done(last)
    assert machine.rings.done(after)


def test_a_transmit_descriptor_that_cant_be_read_stops_the_queue_until_the_next_tail(
    machine: Refused,
) -> None:
    machine.refuse(READ, machine.rings.tx_ring, 16)
    index = machine.rings.send(FRAME)
    assert machine.sink.frames == []
    assert machine.driver.read(0xE010) == 0
    assert not machine.rings.done(index)
    machine.allow()
    machine.rings.ring_bell()
    assert machine.sink.frames == [FRAME]
    assert machine.rings.done(index)


def test_a_report_that_cant_be_written_is_lost(machine: Refused) -> None:
    machine.refuse(WRITE, machine.rings.tx_ring, 16)
    index = machine.rings.send(FRAME)
    assert machine.sink.frames == [FRAME]
    assert not machine.rings.done(index)
    assert machine.driver.read(0xE010) == 1


def test_a_receive_descriptor_that_cant_be_read_drops_the_packet(machine: Refused) -> None:
    frame = frame_for(machine.driver.mac)
    machine.refuse(READ, machine.rings.rx_ring, 16)
    machine.nic.receive(frame)
    assert machine.rings.receive() is None
    assert machine.driver.read(0x4010) == 1
    machine.allow()
    machine.nic.receive(frame)
    got = machine.rings.receive()
    assert got is not None
    assert got.data == frame


def test_a_second_descriptor_that_cant_be_read_takes_none_of_the_buffers(machine: Refused) -> None:
    machine.driver.write(0xC00C, 0x0200_0001)
    machine.refuse(READ, machine.rings.rx_ring + 16, 16)
    machine.nic.receive(frame_for(machine.driver.mac, 1514))
    assert machine.driver.read(0xC010) == 0
    assert machine.port.ram.read(machine.rings.rx_buffers, 2048) == bytes(2048)


def test_received_data_that_cant_be_written_is_lost_but_reported(machine: Refused) -> None:
    """A posted write: the controller learns nothing."""
    machine.refuse(WRITE, machine.rings.rx_buffers, 2048)
    machine.nic.receive(frame_for(machine.driver.mac))
    got = machine.rings.receive()
    assert got is not None
    assert got.data == bytes(100)


def test_an_interrupt_that_cant_be_sent_is_lost(machine: Refused) -> None:
    machine.refuse(WRITE, 0xFEE0_0000, 0x10_0000)
    machine.rings.send(FRAME)
    assert machine.messages() == []
    machine.allow()
    machine.rings.send(FRAME)
    assert machine.messages() == [0x41]


def test_without_bus_mastering_nothing_leaves(machine: Refused) -> None:
    machine.nic.config.write(4, 2, 2)
    machine.rings.send(FRAME)
    machine.nic.receive(frame_for(machine.driver.mac))
    assert machine.sink.frames == []
    assert machine.messages() == []
    assert machine.rings.receive() is None


def test_a_disabled_master_starts_no_request(machine: Refused) -> None:
    machine.driver.set(0x0000, 1 << 2)
    machine.rings.send(FRAME)
    machine.nic.receive(frame_for(machine.driver.mac))
    assert machine.sink.frames == []
    assert machine.rings.receive() is None


def test_the_head_is_reported_where_software_wants_it(machine: Refused) -> None:
    machine.driver.write(0xE03C, 0)
    machine.driver.write(0xE038, 0x9_0000 | 3)
    for number in range(3):
        machine.rings.send(FRAME)
        assert machine.port.ram.read(0x9_0000, 4) == (number + 1).to_bytes(4, "little")
