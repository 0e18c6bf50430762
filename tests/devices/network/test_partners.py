"""Partners at the other end of the cable."""

import socket
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from devices.clock import Clock
from devices.models.nic82576.controller import Nic82576
from devices.network.capture import CapturedFrame, read_capture, write_pcap
from devices.network.host_links import POLL_NANOSECONDS, HostLinkError, open_datagrams, open_tap
from devices.network.link import Sink
from devices.network.partner_names import KINDS, CaptureFile
from devices.network.partners import Generator, Responder, replay
from tests.devices.models.nic82576.machines import SECOND, Machine, frame_for
from tests.devices.network.packets import slow_sum
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.machine.reading import MachineError

HOST = bytes((10, 0, 0, 1))
GUEST = bytes((10, 0, 0, 2))
MAC = b"\2\0\0\0\0\x05"


class Recorder:
    """Keeps what arrives, and when."""

    def __init__(self, clock: Clock) -> None:
        self.frames: list[CapturedFrame] = []
        self._clock = clock

    def receive(self, frame: bytes) -> None:
        self.frames.append(CapturedFrame(self._clock.now, frame))


def test_a_capture_arrives_at_its_own_pace() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    frames = [CapturedFrame(5000, b"a"), CapturedFrame(5700, b"b"), CapturedFrame(5600, b"c")]
    replay(frames, recorder, clock)
    clock.advance(10_000)
    assert recorder.frames == [
        CapturedFrame(0, b"a"),
        CapturedFrame(600, b"c"),
        CapturedFrame(700, b"b"),
    ]


def test_a_generator_sends_numbered_frames() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    generator = Generator(recorder, clock, destination=MAC, count=20, length=100, nanoseconds=500)
    generator.start()
    clock.advance(100_000)
    assert [int.from_bytes(frame.data[14:18], "big") for frame in recorder.frames] == list(
        range(20)
    )
    assert {len(frame.data) for frame in recorder.frames} == {100}
    assert {later.time - one.time for one, later in pairwise(recorder.frames)} == {500}


def test_a_responder_answers_arp_and_ping() -> None:
    sink = Sink()
    responder = Responder(sink, address=HOST)
    request = b"\xff" * 6 + MAC + b"\x08\x06\0\1\x08\0\6\4\0\1" + MAC + GUEST + bytes(6) + HOST
    responder.receive(request)
    (answer,) = sink.frames
    assert answer[:12] == MAC + responder.mac
    assert answer[20:] == b"\0\2" + responder.mac + HOST + MAC + GUEST
    echo = bytearray(struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"payload")
    echo[2:4] = struct.pack("!H", slow_sum(bytes(echo)) ^ 0xFFFF)
    network = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 1, 0, 64, 1, 0) + GUEST + HOST
    )
    network[10:12] = struct.pack("!H", slow_sum(bytes(network)) ^ 0xFFFF)
    ping = responder.mac + MAC + b"\x08\0" + network + echo
    responder.receive(ping + bytes(20))
    reply = sink.frames[1]
    assert reply[:14] == MAC + responder.mac + b"\x08\0"
    assert reply[26:34] == HOST + GUEST
    assert reply[34] == 0
    assert reply[38:] == echo[4:]
    assert slow_sum(reply[14:34]) == slow_sum(reply[34:]) == 0xFFFF
    others = [
        ping.replace(HOST, GUEST),
        ping[:-1] + b"!",
        ping[:40],
        request.replace(HOST, GUEST),
        MAC + ping[6:],
        b"",
    ]
    for frame in others:
        responder.receive(frame)
    assert len(sink.frames) == 2


def test_datagrams_go_both_ways_and_a_missing_peer_loses_them(tmp_path: Path) -> None:
    clock = Clock()
    here, there = tmp_path / "here", tmp_path / "there"
    sinks = Sink(), Sink()
    one = open_datagrams(here, there, sinks[0], clock)
    one.receive(b"nobody is there")
    other = open_datagrams(there, here, sinks[1], clock)
    assert here.stat().st_mode & 0o777 == 0o600
    one.receive(b"to the other")
    other.receive(b"and back")
    clock.advance(2_000_000)
    assert (sinks[0].frames, sinks[1].frames) == ([b"and back"], [b"to the other"])
    with pytest.raises(HostLinkError, match="here"):
        open_datagrams(here, there, sinks[0], clock)
    one.close()
    other.close()
    one.close()
    assert not here.exists()
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(here))
    left.close()
    open_datagrams(here, there, sinks[0], Clock()).close()
    here.write_text("no socket")
    with pytest.raises(HostLinkError, match="here: Address already in use"):
        open_datagrams(here, there, sinks[0], clock)
    clock.advance(5_000_000)
    assert clock.next_due() is None


def test_frames_wait_for_a_busy_peer(tmp_path: Path) -> None:
    ours, theirs = Clock(), Clock()
    sink = Sink()
    one = open_datagrams(tmp_path / "one", tmp_path / "other", Sink(), ours)
    other = open_datagrams(tmp_path / "other", tmp_path / "one", sink, theirs)
    frames = [number.to_bytes(4, "big") * 300 for number in range(2000)]
    for frame in frames:
        one.receive(frame)
    for _ in range(1000):
        theirs.advance(POLL_NANOSECONDS)
        ours.advance(POLL_NANOSECONDS)
    assert sink.frames == frames
    one.close()
    other.close()


def test_a_tap_is_had_or_it_is_said_why_not() -> None:
    clock = Clock()
    try:
        link = open_tap("vtdtest0", Sink(), clock)
    except HostLinkError as error:
        assert str(error).startswith("tap vtdtest0: ")
        pytest.skip(str(error))
    assert "vtdtest0" in {name for _, name in socket.if_nameindex()}
    link.receive(frame_for(MAC))
    clock.advance(5_000_000)
    link.close()
    assert "vtdtest0" not in {name for _, name in socket.if_nameindex()}


@pytest.mark.parametrize("name", ["", "a name that is too long"])
def test_a_name_that_no_interface_can_have_is_refused(name: str) -> None:
    with pytest.raises(HostLinkError, match="1 to 15 bytes"):
        open_tap(name, Sink(), Clock())


def test_a_controller_has_the_partner_that_it_is_given(tmp_path: Path) -> None:
    capture = tmp_path / "in.pcap"
    capture.write_bytes(write_pcap([CapturedFrame(0, frame_for(b"\xff" * 6))]))
    machine = Machine(Nic82576(link=f"record:{tmp_path / 'out.pcap'}"), attach=False)
    machine.nic.clock = Clock()
    machine.up()
    rings = machine.driver.open()
    rings.send(frame_for(MAC))
    assert read_capture((tmp_path / "out.pcap").read_bytes()) == [
        CapturedFrame(SECOND, frame_for(MAC))
    ]
    machine = Machine(Nic82576(link="respond:10.0.0.1"), attach=False)
    machine.up()
    rings = machine.driver.open()
    source = machine.driver.mac
    question = b"\x08\x06\0\1\x08\0\6\4\0\1" + source + GUEST + bytes(6) + HOST
    rings.send(b"\xff" * 6 + source + question)
    got = rings.receive()
    assert got is not None
    assert got.data[28:32] == HOST
    machine = Machine(Nic82576(link=f"replay:{capture}"), attach=False)
    assert machine.nic.clock.next_due() == 0


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("string", "link: 'string' is none of sink, respond"),
        ("respond:10.0.0", "link respond: "),
        ("replay:nowhere.pcap", "link replay: nowhere.pcap: No such file"),
        ("record:/nowhere/out.pcap", "link record: /nowhere/out.pcap: No such file"),
        ("socket:one", "link socket: two paths"),
        ("socket:/nowhere/a,/nowhere/b", "link socket: /nowhere/a: "),
        ("tap:", "link tap: "),
    ],
)
def test_a_partner_that_cant_be_had_is_named(link: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nic82576(link=link)


def test_a_damaged_capture_is_named_with_its_place(tmp_path: Path) -> None:
    capture = tmp_path / "cut.pcap"
    capture.write_bytes(write_pcap([CapturedFrame(0, bytes(60))])[:-1])
    with pytest.raises(ValueError, match=r"cut.pcap: byte 0x18: frame 1 has 60 bytes"):
        Nic82576(link=f"replay:{capture}")


def test_a_recording_of_before_is_there_until_something_arrives(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    file = CaptureFile(out, Clock())
    assert read_capture(out.read_bytes()) == []
    for _ in range(2):
        file.receive(frame_for(MAC))
    later = CaptureFile(out, Clock())
    assert len(read_capture(out.read_bytes())) == 2
    later.receive(frame_for(MAC))
    assert len(read_capture(out.read_bytes())) == 1


def test_a_capture_that_cant_be_written_any_more_is_left(tmp_path: Path) -> None:
    file = CaptureFile(tmp_path / "out.pcap", Clock())
    (tmp_path / "out.pcap").unlink()
    (tmp_path / "out.pcap").mkdir()
    for _ in range(2):
        file.receive(frame_for(MAC))
    assert file.error is not None


def test_a_cable_joins_the_two_functions_of_a_machine_that_name_it() -> None:
    unit = '[[unit]]\nbase = 0xfed90000\nprofile = "qemu"\ninclude_all = true\n'
    ports = [
        f'[[function]]\nname = "{name}"\nat = "00:0{at}.0"\nmodel = "nic82576"\n'
        f'parameters = {{ mac = "02:00:00:00:00:0{at}", total_vfs = 1, link = "cable:{cable}" }}\n'
        for name, at, cable in (("a", 1, "x"), ("b", 2, "x"), ("c", 3, "y"))
    ]
    for _ in range(2):  # another machine has cables of its own
        functions = assemble(read_machine(unit + "".join(ports))).functions
        a, b, c = (functions[name] for name in "abc")
        assert isinstance(a, Nic82576)
        assert isinstance(b, Nic82576)
        assert isinstance(c, Nic82576)
        a.clock.advance(1_000_000_000)
        b.bars[0].write(0x0100, 4, 0x0400_801A)
        for sender in (a, c, b):
            assert sender.partner is not None
            sender.partner.receive(frame_for(b"\xff" * 6))
        assert [each.bars[0].read(0x40D0, 4) for each in (a, b, c)] == [0, 1, 0]
    with pytest.raises(MachineError, match="'x' has two ends already"):
        assemble(read_machine(unit + "".join(ports).replace("cable:y", "cable:x")))


def test_every_kind_says_what_it_is() -> None:
    assert all(make.__doc__ for make in KINDS.values())
