"""The controller that drives its physical function itself, for guests that only have the others."""

import pytest

from devices.models.nic82576.controller import Nic82576
from devices.network.link import Sink
from tests.devices.models.nic82576.drivers import LINK_UP, MiniIgbvf, PfAgent, Rings
from tests.devices.models.nic82576.machines import OUTSIDE, SECOND, frame_for
from tests.support.ports import RecordingPort

GROUP = bytes((1, 0, 0x5E, 0, 0, 7))


class Nobody(PfAgent):
    """The model answers by itself."""

    def __init__(self) -> None:
        pass

    def service(self) -> None:
        pass


class Driven:
    """A driven controller and the drivers of two virtual functions."""

    def __init__(self) -> None:
        self.nic = Nic82576("02:00:00:00:01:fe", driven=True)
        self.sink = Sink()
        self.nic.attach(self.sink)
        self.nic.config.write(0x170, 2, 2)
        self.nic.config.write(0x168, 2, 9)
        self.nic.clock.advance(SECOND)
        self.guests, self.rings = [], []
        for function in self.nic.sriov.functions:
            port = RecordingPort()
            function.connect(port)
            guest = MiniIgbvf(function, port.ram, 0x1_0000, Nobody())
            assert guest.reset()
            self.guests.append(guest)
            self.rings.append(guest.open())


@pytest.fixture
def driven() -> Driven:
    return Driven()


def take(rings: Rings) -> bytes | None:
    got = rings.receive()
    return None if got is None else got.data


def test_each_virtual_function_has_an_address_and_the_link(driven: Driven) -> None:
    assert [guest.mac.hex() for guest in driven.guests] == ["0200000001ff", "020000000200"]
    assert driven.guests[0].read(0x0008) & LINK_UP


def test_they_reach_each_other_and_the_wire(driven: Driven) -> None:
    one, other = driven.guests
    frame = frame_for(other.mac, source=one.mac)
    driven.rings[0].send(frame)
    assert (take(driven.rings[1]), driven.sink.frames) == (frame, [])
    frame = frame_for(OUTSIDE, source=one.mac)
    driven.rings[0].send(frame)
    assert driven.sink.frames == [frame]
    driven.nic.receive(frame_for(one.mac))
    driven.nic.receive(frame_for(OUTSIDE))
    assert take(driven.rings[0]) == frame_for(one.mac)
    assert take(driven.rings[0]) is take(driven.rings[1]) is None


def test_a_new_address_takes_the_place_of_the_old(driven: Driven) -> None:
    guest, old = driven.guests[0], driven.guests[0].mac
    assert guest.ask(2, 0x0000_0002, 0x0900)[0] == 0xA000_0002
    driven.nic.receive(frame_for(old))
    driven.nic.receive(frame_for(b"\2\0\0\0\0\x09"))
    assert take(driven.rings[0]) == frame_for(b"\2\0\0\0\0\x09")
    assert take(driven.rings[0]) is None


def test_multicast_by_hash_and_altogether(driven: Driven) -> None:
    driven.nic.receive(frame_for(GROUP))
    assert take(driven.rings[0]) is None
    bits = (GROUP[5] << 8 | GROUP[4]) >> 4
    assert driven.guests[0].ask(3 | 1 << 16, bits)[0] == 0xA001_0003
    assert driven.guests[1].ask(6 | 2 << 16)[0] == 0xA002_0006
    driven.nic.receive(frame_for(GROUP))
    assert take(driven.rings[0]) == take(driven.rings[1]) == frame_for(GROUP)


def test_vlans_are_joined_and_left(driven: Driven) -> None:
    guest, rings = driven.guests[0], driven.rings[0]
    plain = frame_for(guest.mac)
    tagged = plain[:12] + b"\x81\0\0\x05" + plain[12:]
    driven.nic.receive(tagged)
    assert take(rings) is None
    assert guest.ask(4 | 1 << 16, 5)[0] == 0xA001_0004
    driven.nic.receive(tagged)
    assert take(rings) == tagged
    assert guest.ask(4, 5)[0] == 0xA000_0004
    driven.nic.receive(tagged)
    driven.nic.receive(plain)
    assert take(rings) == plain


def test_more_vlans_than_the_table_has_are_refused(driven: Driven) -> None:
    answers = [driven.guests[0].ask(4 | 1 << 16, vlan)[0] for vlan in range(1, 33)]
    assert answers == [0xA001_0004] * 31 + [0x6001_0004]


def test_long_frames_after_they_were_asked_for(driven: Driven) -> None:
    guest = driven.guests[0]
    long = frame_for(guest.mac, 1900)
    driven.nic.receive(long)
    assert take(driven.rings[0]) is None
    assert guest.ask(5, 2000)[0] == 0xA000_0005
    driven.nic.receive(long)
    assert take(driven.rings[0]) == long
    assert guest.ask(5, 0x4000)[0] == 0x6000_0005


@pytest.mark.parametrize("word", [9, 0, 2 | 2 << 16, 3 | 31 << 16, 6 | 1 << 16, 4 | 2 << 16])
def test_what_it_doesnt_know_is_refused(driven: Driven, word: int) -> None:
    assert driven.guests[0].ask(word)[0] == word | 0x6000_0000


def test_before_a_reset_message_nothing_is_granted(driven: Driven) -> None:
    guest = driven.guests[1]
    guest.write(0x0000, 1 << 26)
    assert guest.ask(5, 1600)[0] == 0x4000_0005
    assert guest.reset()
    assert guest.ask(5, 1600)[0] == 0xA000_0005
