"""A client that sends whatever it likes: every command, cut, padded, lying and out of order.

What comes back is checked as far as anything can be said of it: whole messages, a reply for each
command that was understood to be one, errors without a body.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.vtd.live.client import sent_messages, version
from vtd.live import messages as m
from vtd.live.server import Server

FRAME = 4096
RAM = 16 * FRAME
NUMBERS = (0, 1, 3, 4, 8, 0x10, 0x18, 0x20, 0x80, FRAME, RAM, 1 << 20, 1 << 31, (1 << 32) - 1)
LARGE = (*NUMBERS, 1 << 52, (1 << 52) - FRAME, 1 << 63, (1 << 64) - FRAME, (1 << 64) - 1)


class HostileClient:
    """One connection after the other to the sockets of ``server``, which runs in between."""

    def __init__(self, server: Server, paths: list[Path], seed: int) -> None:
        self.sent = 0
        self.connections = 0
        self._server = server
        self._paths = paths
        self._random = random.Random(seed)

    def run(self, messages: int) -> None:
        """Send so many messages, over as many connections as that takes."""
        end = self.sent + messages
        while self.sent < end:
            self._connect(min(self._random.choice((1, 5, 50, 500)), end - self.sent))

    def _connect(self, messages: int) -> None:
        self.connections += 1
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._random.choice(self._paths)))
            connection.setblocking(False)
            received = b""
            stream = [self._message() for _ in range(messages)]
            if self._random.random() < 0.9:
                stream.insert(0, version())
            if self._random.random() < 0.5:
                stream[-self._random.randrange(1, 4) :] = [self._no_message()]
            for data in stream:
                self._send(connection, data)
                self._server.serve(0)
                with suppress(BlockingIOError, ConnectionError):
                    received += connection.recv(1 << 20)
            self.sent += messages
            check_answers(received)
        self._server.serve(0)
        self._server.serve(0)

    def _message(self) -> bytes:
        """A message that has the size that it says; perhaps it is of no use otherwise."""
        command = self._random.choice((*m.Command, *m.Command, 0, 16, 17, 0xFFFF))
        body = self._body(command)
        roll = self._random.random()
        if roll < 0.1:
            body = body[: self._random.randrange(len(body) + 1)]
        elif roll < 0.2:
            body += self._random.randbytes(self._random.randrange(40))
        flags = self._random.choice((0, 0, 0, 0, 0, 0, m.NO_REPLY, m.REPLY, 2, 0xFFFF_FFFF))
        return m.HEADER.pack(7, command, 16 + len(body), flags, 0) + body

    def _no_message(self) -> bytes:
        """What no message can be told apart in: cut, of another size than it says, or nonsense."""
        data = self._message()
        match self._random.randrange(3):
            case 0:
                return data[: self._random.randrange(1, len(data))]
            case 1:
                size = self._random.choice((*NUMBERS, len(data) + 1, len(data) - 1))
                return data[:4] + size.to_bytes(4, "little") + data[8:]
            case _:
                return self._random.randbytes(self._random.randrange(1, 200))

    def _body(self, command: int) -> bytes:
        make: dict[int, Callable[[], bytes]] = {
            m.Command.VERSION: lambda: version(max_msg_fds=1)[16:],
            m.Command.REGION_READ: lambda: self._access(write=False),
            m.Command.REGION_WRITE: lambda: self._access(write=True),
            m.Command.REGION_WRITE_MULTI: self._writes,
            m.Command.DMA_MAP: self._map,
            m.Command.DMA_UNMAP: self._unmap,
            m.Command.SET_IRQS: self._irqs,
            m.Command.GET_REGION_INFO: lambda: bytes(8) + number(self._region()) + bytes(20),
            m.Command.GET_IRQ_INFO: lambda: bytes(8) + number(self._random.randrange(5)) + bytes(4),
        }
        any_body = self._random.randbytes(self._random.choice((0, 16, 16, 32, 32)))
        return make.get(command, lambda: any_body)()

    def _access(self, *, write: bool) -> bytes:
        length = self._random.choice((1, 2, 4, 4, 8, 8, 0, 3, 256))
        said = length if self._random.random() < 0.95 else self._number()
        access = m.REGION_ACCESS.pack(self._offset(), self._region(), said & 0xFFFF_FFFF)
        return access + (self._random.randbytes(length) if write else b"")

    def _writes(self) -> bytes:
        count = self._random.randrange(4)
        writes = b"".join(
            m.REGION_ACCESS.pack(self._offset(), self._region(), self._random.randrange(10))
            + self._random.randbytes(8)
            for _ in range(count)
        )
        said = count if self._random.random() < 0.9 else self._large()
        return said.to_bytes(8, "little") + writes

    def _map(self) -> bytes:
        start, size = self._frames(), self._frames()
        offset = start if self._random.random() < 0.9 else self._large()
        flags = self._random.choice((3, 3, 3, 1, 2, 0xFFFF_FFFF))
        values = {"argsz": 32, "flags": flags, "offset": offset, "address": start}
        return bytes(m.DmaMap.build({**values, "size": size}))

    def _unmap(self) -> bytes:
        values = {"argsz": 24, "flags": 0, "address": self._frames()}
        return bytes(m.DmaUnmap.build({**values, "size": self._frames()}))

    def _irqs(self) -> bytes:
        count = self._random.choice((0, 1, 1, 2, 16, (1 << 32) - 1))
        flags = 1 << self._random.randrange(3) | 8 << self._random.randrange(3)
        if self._random.random() < 0.1:
            flags = self._number()
        values = {"argsz": 20, "flags": flags, "index": self._random.choice((0, 0, 1, 2, 3, 99))}
        start = self._random.choice((0, 0, 0, 1, (1 << 32) - 1))
        data = self._random.randbytes(count if flags & 2 and count < 20 else 0)
        return bytes(m.IrqSet.build({**values, "start": start, "count": count, "data": data}))

    def _frames(self) -> int:
        """An address or a size, mostly one that could be."""
        if self._random.random() < 0.9:
            return self._random.randrange(RAM // FRAME) * FRAME
        return self._large()

    def _offset(self) -> int:
        if self._random.random() < 0.6:
            return self._random.randrange(0x400) & -4
        return self._random.choice((*LARGE, 0x2000, 0x4_0000, 0x1000))

    def _region(self) -> int:
        return self._random.choice((0, 0, 0, 0, 7, 7, 1, 6, 8, 9, (1 << 32) - 1))

    def _number(self) -> int:
        return self._random.choice(NUMBERS)

    def _large(self) -> int:
        return self._random.choice(LARGE)

    def _send(self, connection: socket.socket, data: bytes) -> None:
        """Send, with file descriptors of any kind, and close them on this side at once."""
        opened = [self._descriptor() for _ in range(self._random.choice(FEW))]
        with suppress(OSError):
            if opened:
                socket.send_fds(connection, [data or b"\0"], opened)
            elif self._random.random() < 0.02:
                for byte in data[:64]:
                    connection.send(bytes([byte]))
            else:
                connection.send(data)
        for each in opened:
            os.close(each)

    def _descriptor(self) -> int:
        kind = self._random.randrange(5)
        if kind < 2:
            fd = os.memfd_create("ram")
            os.ftruncate(fd, RAM if kind else FRAME)
            return fd
        if kind == 2:
            return os.eventfd(0, os.EFD_NONBLOCK)
        if kind == 3:
            return os.open("/", os.O_RDONLY)
        read_end, write_end = os.pipe()
        os.close(read_end)
        return write_end


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


FEW = (0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 16)
"""How many descriptors come with a message."""


def check_answers(received: bytes) -> None:
    """Whole messages, of which errors have no body, and what was not asked for is an interrupt."""
    for sent in sent_messages(received):
        if sent.flags & m.TYPE == m.REPLY:
            assert not sent.flags & ~(m.TYPE | m.ERROR)
            assert bool(sent.error) == bool(sent.flags & m.ERROR)
            assert not (sent.error and sent.body)
        else:
            assert (sent.command, sent.flags, len(sent.body)) == (m.Command.DMA_WRITE, 16, 20)
