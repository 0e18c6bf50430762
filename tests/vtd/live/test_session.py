"""A session by value: the stream is cut, commands are answered in order, and nothing is kept."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.live.client import Client, FakeDescriptor, command, sent_messages, version
from tests.vtd.live.served import EDU, served_machine
from vtd.live import messages as m
from vtd.live.machine import Endpoint, LiveMachine
from vtd.live.session import Session

FRAME = 4096


def endpoint_of(machine: LiveMachine, name: str) -> Endpoint:
    return next(each for each in machine.endpoints if each.name == name)


@dataclass
class Connected(Client):
    """A client of a session."""

    session: Session


def connected(name: str = EDU) -> tuple[LiveMachine, Connected]:
    machine = served_machine()
    client = Connected(machine.connect(endpoint_of(machine, name)))
    client.agree()
    return machine, client


def identification(session: Session) -> bytes:
    """The bytes of a command that reads the identification of the edu device."""
    body = m.RegionAccess.build({"offset": 0, "region": 0, "count": 4})
    return command(m.Command.REGION_READ, body)


def test_the_version_names_what_both_sides_can() -> None:
    machine = served_machine()
    session = machine.connect(machine.endpoints[0])
    offered = version(max_msg_fds=8, max_data_xfer_size=1 << 20, migration={"pgsize": 4096})
    (reply,) = sent_messages(session.receive(offered))
    said = m.Version.parse(reply.body)
    assert (said.major, said.minor) == (0, 0)
    assert said.data.endswith(b"\0")
    capabilities = json.loads(said.data.rstrip(b"\0"))["capabilities"]
    assert capabilities == {"max_msg_fds": 16, "max_data_xfer_size": 1 << 20}


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b'{"capabilities": 3}', b"\xff\xfe", b"[" * 100_000],
    ids=["cut", "list", "number", "no text", "deep"],
)
def test_a_version_that_says_nothing_is_refused(data: bytes) -> None:
    machine = served_machine()
    session = machine.connect(machine.endpoints[0])
    body = m.Version.build({"major": 0, "minor": 0, "data": data})
    (reply,) = sent_messages(session.receive(command(m.Command.VERSION, body)))
    assert (reply.flags, reply.error, reply.body) == (m.REPLY | m.ERROR, errno.EINVAL, b"")


def test_nothing_is_done_before_a_version_is_agreed_on_and_that_once() -> None:
    machine = served_machine()
    session = machine.connect(machine.endpoints[0])
    answers = b"".join(session.receive(command(number, bytes(16))) for number in range(2, 20))
    assert [each.error for each in sent_messages(answers)] == [errno.EINVAL] * 18
    other = m.Version.build({"major": 1, "minor": 0, "data": b""})
    answers = session.receive(command(m.Command.VERSION, other) + version() + version())
    assert [each.error for each in sent_messages(answers)] == [errno.EINVAL, 0, errno.EINVAL]


def test_how_the_stream_is_cut_does_not_matter() -> None:
    _, client = connected()
    session = client.session

    @given(st.integers(1, 4), st.lists(st.integers(1, 100)))
    def check(count: int, cuts: list[int]) -> None:
        stream = identification(session) * count
        answers = b""
        for size in (*cuts, len(stream)):
            answers += session.receive(stream[:size])
            stream = stream[size:]
        replies = sent_messages(answers)
        assert [each.body[16:].hex() for each in replies] == ["ed000001"] * count

    check()


def test_descriptors_belong_to_the_message_that_begins_last() -> None:
    machine, client = connected()
    session = client.session
    fd = os.memfd_create("ram")
    os.ftruncate(fd, FRAME)
    body = m.DmaMap.build({"argsz": 32, "flags": 3, "offset": 0, "address": 0, "size": FRAME})
    mapping, reading = command(m.Command.DMA_MAP, body), identification(session)
    for pieces in ([reading + mapping], [reading + mapping[:20], mapping[20:] + reading]):
        descriptor = FakeDescriptor(fd)
        answers = b""
        for number, piece in enumerate(pieces):
            answers += session.receive(piece, [] if number else [descriptor])
        assert [each.error for each in sent_messages(answers)] == [0] * (len(pieces) + 1)
        assert len(machine.platform.memory.regions) == 1
        assert descriptor.closed == 1
        assert client.unmap(0, FRAME) == 0
    os.close(fd)


def test_descriptors_that_nobody_wants_are_closed() -> None:
    machine, client = connected()
    unwanted = [FakeDescriptor() for _ in range(4)]
    client.ask(m.RegionAccess.build({"offset": 0, "region": 0, "count": 4}), 9, unwanted[:2])
    assert client.ask(b"cut", m.Command.DMA_MAP, unwanted[2:3]).error == errno.EINVAL
    client.session.receive(b"half", unwanted[3:])
    machine.disconnect(endpoint_of(machine, EDU))
    assert [each.closed for each in unwanted] == [1, 1, 1, 1]


@pytest.mark.parametrize("size", [0, 15, m.MAX_MESSAGE + 1, 0xFFFF_FFFF])
def test_a_size_that_can_not_be_ends_the_connection_after_what_came_before(size: int) -> None:
    _, client = connected()
    header = m.Header.build({"id": 1, "command": 9, "size": size, "flags": 0, "error": 0})
    answers = client.session.receive(identification(client.session) + header + b"more")
    assert len(sent_messages(answers)) == 1
    assert client.session.ended == f"a message of {size} bytes"


def test_a_flood_of_descriptors_ends_the_connection() -> None:
    machine, client = connected()
    flood = [FakeDescriptor() for _ in range(17)]
    client.session.receive(b"\0", flood)
    assert client.session.ended == "too many file descriptors with one message"
    machine.disconnect(endpoint_of(machine, EDU))
    assert all(each.closed for each in flood)


def test_commands_without_reply_get_none_not_even_an_error() -> None:
    _, client = connected()
    body = m.RegionAccess.build({"offset": 4, "region": 0, "count": 4})
    write = command(m.Command.REGION_WRITE, body + b"\1\2\3\4", flags=m.NO_REPLY)
    assert client.session.receive(write + command(99, flags=m.NO_REPLY)) == b""
    assert client.read(0, 4, 4) == bytes(0xFF - each for each in (1, 2, 3, 4))


@pytest.mark.parametrize("number", [0, 6, 11, 12, 14, 16, 0xFFFF])
def test_commands_that_nobody_knows_are_not_supported(number: int) -> None:
    _, client = connected()
    assert client.ask(b"", number).error == errno.EOPNOTSUPP


def test_replies_of_the_client_are_passed_over() -> None:
    _, client = connected()
    assert client.session.receive(command(m.Command.DMA_WRITE, flags=m.REPLY)) == b""


@pytest.mark.parametrize(
    ("number", "length"), [(2, 32), (3, 24), (4, 16), (5, 32), (7, 16), (9, 16), (13, 0)]
)
def test_bodies_have_exactly_the_length_of_their_layout(number: int, length: int) -> None:
    _, client = connected()
    for other in {length - 1, length + 1, 0, 200} - {length, -1}:
        assert client.ask(bytes(other), number).error == errno.EINVAL


def test_a_device_says_what_it_has() -> None:
    _, client = connected()
    info = m.DeviceInfo.parse(client.ask(bytes(16), m.Command.GET_INFO).body)
    assert info.flags == m.DeviceFlag.RESET | m.DeviceFlag.PCI
    sizes = []
    for index in range(info.num_regions):
        asked = m.RegionInfo.build(
            {"argsz": 32, "flags": 0, "index": index, "cap_offset": 0, "size": 0, "offset": 0}
        )
        region = m.RegionInfo.parse(client.ask(asked, m.Command.GET_REGION_INFO).body)
        assert bool(region.flags) == bool(region.size)
        sizes.append(region.size)
    assert sizes == [0x10_0000, 0, 0, 0, 0, 0, 0, 256, 0]
    for index, count in enumerate((1, 0, 0)):
        asked = m.IrqInfo.build({"argsz": 16, "flags": 0, "index": index, "count": 0})
        assert m.IrqInfo.parse(client.ask(asked, m.Command.GET_IRQ_INFO).body).count == count
    assert client.ask(bytes(8) + b"\x09" + bytes(23), m.Command.GET_REGION_INFO).error
    assert client.ask(bytes(8) + b"\x03" + bytes(7), m.Command.GET_IRQ_INFO).error


def test_several_writes_in_one_message_are_carried_out_in_order() -> None:
    _, client = connected()
    writes = [
        {"offset": 4, "region": 0, "count": 4, "data": bytes(8)},
        {"offset": 8, "region": 0, "count": 4, "data": b"\4" + bytes(7)},
    ]
    body = m.WriteMulti.build({"count": 2, "writes": writes})
    assert client.ask(body, m.Command.REGION_WRITE_MULTI).body == (2).to_bytes(8, "little")
    assert client.read(0, 8, 4) == (24).to_bytes(4, "little")  # 4!
    for lie in (0, 1, 3, 1 << 60):
        lying = lie.to_bytes(8, "little") + body[8:]
        assert client.ask(lying, m.Command.REGION_WRITE_MULTI).error == errno.EINVAL


@pytest.mark.parametrize(
    ("region", "offset", "count"),
    [
        *((0, 0, 3), (0, 0, 0), (0, 0, 16), (0, 0x10_0000, 4), (0, (1 << 64) - 4, 4), (1, 0, 4)),
        *((6, 0, 4), (7, 256, 1), (7, 0, 257), (7, 0, 0), (8, 0, 4), (9, 0, 4), (1 << 31, 0, 4)),
    ],
)
def test_accesses_outside_of_regions_are_refused(region: int, offset: int, count: int) -> None:
    _, client = connected()
    assert client.read(region, offset, count) == errno.EINVAL
    if count:
        assert client.write(region, offset, bytes(count)) == errno.EINVAL


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def test_messages_of_interrupts_leave_through_the_chipset_after_the_reply_to_their_cause() -> None:
    machine, edu = connected()
    chipset = Connected(machine.connect(machine.endpoints[0]))
    chipset.session.send(0xFEE0_0000, 0x30)  # nobody has agreed on anything yet
    assert chipset.session.take() == b""
    chipset.agree()
    edu.ask(b"", m.Command.RESET)
    for offset, value in ((0x44, 0xFEE0_2000), (0x4C, 0x51), (0x40, 1 << 16), (0x04, 4)):
        assert edu.write(7, offset, number(value)) == 0  # MSI, bus mastering
    edu.write(0, 0x20, number(0x80))
    edu.write(0, 0x08, number(3))  # a factorial, and its interrupt
    delivered = sent_messages(chipset.session.take())
    assert [(each.command, each.flags) for each in delivered] == [(12, m.NO_REPLY)]
    assert delivered[0].body == b"".join(
        each.to_bytes(size, "little") for each, size in ((0xFEE0_2000, 8), (4, 8), (0x51, 4))
    )
    for offset, value in ((0x18, 1 << 24), (0x18, 1 << 25), (0x3C, 0x41), (0x40, 0xFEE0_1000)):
        assert chipset.write(0, offset, number(value)) == 0  # SIRTP, IRE, event data and address
    edu.write(0, 0x08, number(3))  # blocked now: compatibility format
    assert chipset.session.take() == b""
    chipset.write(0, 0x38, number(0))  # unmask the fault event: its message comes after the reply
    assert [each.body for each in chipset.unasked] == [
        b"".join(
            each.to_bytes(size, "little") for each, size in ((0xFEE0_1000, 8), (4, 8), (0x41, 4))
        )
    ]
