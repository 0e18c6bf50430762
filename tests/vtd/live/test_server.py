"""A server on real sockets: what clients may do to it, and what is left when they are gone."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vtd.live.client import version
from tests.vtd.live.hostile import HostileClient
from tests.vtd.live.served import served_machine
from vtd.live import messages as m
from vtd.live.server import Server

IDENTIFICATION = m.message(1, m.Command.REGION_READ, 0, m.REGION_ACCESS.pack(0, 7, 4))
BACKLOG = 1 << 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(served_machine(), tmp_path, time.monotonic_ns)
    yield server
    server.close()
    assert not list(tmp_path.iterdir())


def open_descriptors() -> int:
    gc.collect()  # what other tests left in cycles may be closed at any time
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - without one more that is open


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def ask(server: Server, connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    server.serve(0)
    return connection.recv(1 << 16)


def connected(server: Server, number: int = 0) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(str(server.path(server.machine.endpoints[number])))
    server.serve(0)
    assert ask(server, connection, version())
    return connection


def check_next_connection(server: Server) -> None:
    for number in range(len(server.machine.endpoints)):
        with connected(server, number) as connection:
            answer = ask(server, connection, IDENTIFICATION)
            identity = server.machine.endpoints[number].served.function.identity
            assert answer[32:] == identity.vendor_id.to_bytes(2, "little") + (
                identity.device_id.to_bytes(2, "little")
            )
        server.serve(0)
        assert not server.clients


def torment(server: Server, messages: int, seed: int) -> HostileClient:
    paths = [server.path(each) for each in server.machine.endpoints]
    client = HostileClient(server, paths, seed)
    client.run(messages)
    return client


@pytest.mark.parametrize("seed", range(3))
def test_nothing_a_client_sends_keeps_anything_or_the_next_one_out(
    server: Server, seed: int
) -> None:
    check_next_connection(server)
    before = open_descriptors()
    torment(server, 3000, seed)
    assert server.machine.counts()["exits"] > 2000
    assert not server.clients
    assert open_descriptors() == before
    assert not server.machine.platform.memory.regions
    check_next_connection(server)


@pytest.mark.slow
def test_a_million_messages_leave_no_trace(server: Server) -> None:
    torment(server, 20_000, 1)
    before, memory = open_descriptors(), resident()
    client = torment(server, 1_000_000, 2)
    assert client.sent == 1_000_000
    assert open_descriptors() == before
    assert resident() < memory + (16 << 20)
    assert not server.machine.platform.memory.regions
    check_next_connection(server)


def test_the_second_client_of_a_function_is_hung_up_on(server: Server) -> None:
    with connected(server) as first:
        second = socket.socket(socket.AF_UNIX)
        second.connect(str(server.path(server.machine.endpoints[0])))
        server.serve(0)
        assert second.recv(1) == b""
        second.close()
        assert ask(server, first, IDENTIFICATION)


def test_a_client_that_does_not_read_is_not_read_either(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtd.live.server.MAX_BACKLOG", BACKLOG)
    config = m.message(1, m.Command.REGION_READ, 0, m.REGION_ACCESS.pack(0, 7, 256))
    with connected(server) as connection:
        connection.setblocking(False)
        sent = 0
        while True:  # until neither side takes any more
            try:
                sent += connection.send(config * 100)
            except BlockingIOError:
                handled = server.clients[0].session.handled
                server.serve(0)
                if server.clients[0].session.handled == handled:
                    break
        assert sent < 1 << 20
        server.serve(0)
        received = b""
        while len(received) < sent // len(config) * (len(config) + 256):
            try:
                received += connection.recv(1 << 20)
            except BlockingIOError:
                server.serve(0)
        assert {received[32 + at] for at in range(0, 2880, 288)} == {0x86}


def test_time_passes_for_models_while_nobody_sends_anything(server: Server) -> None:
    rung: list[int] = []
    clock = server.machine.clock
    clock.after(20_000_000, lambda: rung.append(clock.now))
    server.serve(0.2)
    assert len(rung) == 1
    assert rung[0] >= 20_000_000
    assert clock.now >= 200_000_000


def test_what_one_client_causes_is_told_to_another(server: Server) -> None:
    chipset, edu = connected(server, 0), connected(server, 2)
    ask(server, edu, m.message(1, m.Command.RESET, 0))
    for offset, value in ((0x44, 0xFEE0_2000), (0x4C, 0x51), (0x40, 1 << 16), (0x04, 4)):
        access = m.REGION_ACCESS.pack(offset, 7, 4) + value.to_bytes(4, "little")
        ask(server, edu, m.message(1, m.Command.REGION_WRITE, 0, access))
    for offset, value in ((0x20, 0x80), (0x08, 3)):
        access = m.REGION_ACCESS.pack(offset, 0, 4) + value.to_bytes(4, "little")
        ask(server, edu, m.message(1, m.Command.REGION_WRITE, 0, access))
    message = chipset.recv(1000)
    assert m.Header.parse(message).command == m.Command.DMA_WRITE
    assert message[16:24] == (0xFEE0_2000).to_bytes(8, "little")
    chipset.close()
    edu.close()
    server.serve(0)
    server.serve(0)
    assert server.machine.counts()["interrupts"] == 1
