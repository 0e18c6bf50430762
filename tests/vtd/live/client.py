"""The client's side of vfio-user, for tests: messages out, replies and commands in, by value."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vtd.live import messages as m
from vtd.live.requests import Descriptor


class Sent(NamedTuple):
    """One message of the server, taken apart."""

    number: int
    command: int
    flags: int
    error: int
    body: bytes


@dataclass
class FakeDescriptor:
    """A file descriptor that remembers what became of it; ``number`` may be a real one."""

    number: int = -1
    closed: int = 0
    signals: int = 0

    def signal(self) -> None:
        self.signals += 1

    def close(self) -> None:
        self.closed += 1


def sent_messages(data: bytes) -> list[Sent]:
    """The stream of the server, cut by the sizes in it."""
    found = []
    while data:
        header = m.Header.parse(data)
        body = data[16 : header.size]
        found.append(Sent(header.id, header.command, header.flags, header.error, body))
        data = data[header.size :]
    return found


def command(number: int, body: bytes = b"", *, flags: int = 0, identifier: int = 7) -> bytes:
    """A whole command of the client."""
    header = {"id": identifier, "command": number, "size": 16 + len(body), "flags": flags}
    return bytes(m.Header.build({**header, "error": 0})) + body


def version(**capabilities: Any) -> bytes:
    """The first message of every client."""
    data = json.dumps({"capabilities": capabilities}).encode() + b"\0"
    return command(m.Command.VERSION, m.Version.build({"major": 0, "minor": 0, "data": data}))


class Server(Protocol):
    """A session, or the socket of a server."""

    def receive(self, data: bytes, descriptors: Sequence[Descriptor] = (), /) -> bytes: ...


class SocketServer:
    """The socket of a server, which answers a message with the next one that it sends."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(20)
        self._socket.connect(str(path))

    def receive(self, data: bytes, descriptors: Sequence[Descriptor] = (), /) -> bytes:
        """Send, and wait for a message."""
        socket.send_fds(self._socket, [data], [each.number for each in descriptors])
        header = self._exactly(16)
        return header + self._exactly(m.HEADER.unpack(header)[2] - 16)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += (more := self._socket.recv(length - len(data)))
            if not more:
                raise ConnectionError("the server hung up")
        return data


@dataclass
class Client:
    """Talks to a server: one command in, what it causes out."""

    session: Server
    unasked: list[Sent] = field(default_factory=list)
    """Commands of the server so far."""

    def agree(self) -> None:
        """Agree on a version."""
        assert self.ask(version()[16:], m.Command.VERSION).error == 0

    def ask(self, body: bytes, number: int, descriptors: Sequence[Descriptor] = ()) -> Sent:
        """The one reply to a command."""
        reply, *others = sent_messages(self.session.receive(command(number, body), descriptors))
        assert (reply.flags & m.TYPE, reply.command) == (m.REPLY, number)
        self.unasked += others
        return reply

    def read(self, region: int, offset: int, count: int) -> bytes | int:
        """Bytes of a region, or the error number."""
        body = m.RegionAccess.build({"offset": offset, "region": region, "count": count})
        reply = self.ask(body, m.Command.REGION_READ)
        return reply.error or reply.body[16:]

    def write(self, region: int, offset: int, data: bytes) -> int:
        """Write bytes of a region; the error number or 0."""
        body = m.RegionAccess.build({"offset": offset, "region": region, "count": len(data)})
        return self.ask(body + data, m.Command.REGION_WRITE).error

    def map(self, start: int, size: int, fd: int, offset: int = 0, flags: int = 3) -> int:
        """Map memory; the error number or 0."""
        body = m.DmaMap.build(
            {"argsz": 32, "flags": flags, "offset": offset, "address": start, "size": size}
        )
        return self.ask(body, m.Command.DMA_MAP, [FakeDescriptor(fd)]).error

    def unmap(self, start: int, size: int) -> int:
        """Unmap memory; the error number or 0."""
        body = m.DmaUnmap.build({"argsz": 24, "flags": 0, "address": start, "size": size})
        return self.ask(body, m.Command.DMA_UNMAP).error

    def set_irqs(
        self,
        flags: int,
        *,
        index: int = 0,
        start: int = 0,
        count: int = 1,
        descriptors: Sequence[Descriptor] = (),
        data: bytes = b"",
    ) -> int:
        """Set interrupts; the error number or 0."""
        body = m.IrqSet.build(
            {"argsz": 20, "flags": flags, "index": index, "start": start, "count": count}
            | {"data": data}
        )
        return self.ask(body, m.Command.SET_IRQS, descriptors).error
