"""The event loop: a socket for each function of a machine, and the clients that connect to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from socket import socket

from vtd.live.machine import Endpoint, LiveMachine
from vtd.live.session import Session
from vtd.live.sockets import ANCILLARY, CHUNK, Listener, received

READABLE = EPOLLIN | EPOLLHUP | EPOLLERR
"""There is something to read, if only that the client has gone."""
SHORT = 1e-4
"""Seconds that are not slept: the operating system would make a millisecond of them."""
EVENTS = 16
"""Of how many descriptors one look tells; the next look tells of the others."""
MAX_BACKLOG = 1 << 21
"""Bytes that wait to be sent from which on nothing more is read."""


class Server:
    """Serves ``machine`` on sockets in ``folder``.

    Time of the machine passes as ``now`` says, in nanoseconds. OSError if a socket can't be made,
    for one because another server has it. To be closed.
    """

    def __init__(self, machine: LiveMachine, folder: Path, now: Callable[[], int]) -> None:
        self.machine = machine
        self.folder = folder
        self._clock = machine.clock
        self.now = now
        self._time = now()
        self._epoll = epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        """What to do with events, by file descriptor."""
        self._changed = False
        """Whether a client has come or gone."""
        self._listeners: list[Listener] = []
        self.clients: list[Client] = []
        try:
            for endpoint in machine.endpoints:
                listener = Listener(self.path(endpoint))
                self._listeners.append(listener)
                self.watch(listener.fileno(), partial(self._accept, endpoint, listener))
        except OSError:
            self.close()
            raise

    def path(self, endpoint: Endpoint) -> Path:
        """The socket of an endpoint."""
        return self.folder / f"{endpoint.name.replace(':', '-')}.sock"

    def serve(self, seconds: float | None = None) -> None:
        """Deal with what happens until a client comes or goes, or so much time has passed."""
        poll, handlers, clock, now = self._epoll.poll, self._handlers, self._clock, self.now
        end = None if seconds is None else now() + int(seconds * 1e9)
        self._changed = False
        while not self._changed:
            due, until = clock.next_due(), end
            if due is not None:
                due += self._time - clock.now
                until = due if end is None or due < end else end
            if until is None:
                ready = poll(None, EVENTS)
            else:
                left = (until - now()) / 1e9
                ready = poll(left if left >= SHORT else 0, EVENTS)
            time = now()
            clock.advance(time - self._time)
            self._time = time
            for number, events in ready:
                handlers[number](events)
            if self.machine.messages_wait:
                self._send_messages()
            if end is not None and time >= end:
                return

    def close(self) -> None:
        """Hang up, and leave nothing behind in the folder."""
        for client in list(self.clients):
            client.hang_up()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._epoll.close()

    def watch(self, number: int, handler: Callable[[int], None]) -> None:
        """Have ``handler`` called when a descriptor can be read."""
        self._epoll.register(number, EPOLLIN)
        self._handlers[number] = handler

    def change(self, number: int, events: int) -> None:
        """Wait for other events of a descriptor."""
        self._epoll.modify(number, events)

    def forget(self, client: Client) -> None:
        """A client has gone."""
        self._epoll.unregister(client.number)
        self._handlers[client.number] = _nothing  # perhaps there are events of it yet
        self.clients.remove(client)
        self._changed = True

    def _send_messages(self) -> None:
        """Send what one client's command, or time, had to be told to another client."""
        self.machine.messages_wait = False
        for client in self.clients:
            data = client.session.take()
            if data:
                client.send(data)

    def _accept(self, endpoint: Endpoint, listener: Listener, _: int) -> None:
        connection = listener.accept()
        if connection is None:
            return
        if endpoint.session is not None:
            connection.close()  # one client at a time
            return
        self.clients.append(Client(self, endpoint, connection))
        self._changed = True


def _nothing(_: int) -> None:
    """What happens to a client that has gone is nothing."""


class Client:
    """One connection and its session."""

    def __init__(self, server: Server, endpoint: Endpoint, connection: socket) -> None:
        connection.setblocking(False)
        self.session: Session = server.machine.connect(endpoint)
        self.number = connection.fileno()
        self._server = server
        self._endpoint = endpoint
        self._connection = connection
        self._receive, self._send = connection.recvmsg, connection.send
        self._answer = self.session.receive
        self._unsent = b""
        server.watch(self.number, self._serve)

    def send(self, data: bytes) -> None:
        """Send as much as the client takes, the rest later; read no more if that is too much."""
        waiting = bool(self._unsent)
        if waiting:
            data = self._unsent + data
        try:
            self._unsent = data[self._send(data) :]
        except BlockingIOError:
            self._unsent = data
        except OSError:  # reading will tell that the client is gone
            self._unsent = b""
        if self._unsent or waiting:
            readable = EPOLLIN if len(self._unsent) < MAX_BACKLOG else 0
            self._server.change(self.number, readable | EPOLLOUT if self._unsent else EPOLLIN)

    def hang_up(self, why: str | None = None) -> None:
        """End the connection."""
        server = self._server
        if why is not None:
            server.machine.note(f"{self._endpoint.name}: hung up: {why}")
        server.forget(self)
        self._connection.close()
        server.machine.disconnect(self._endpoint)

    def _serve(self, events: int) -> None:
        if events != EPOLLIN:
            if events & EPOLLOUT:
                self.send(b"")
            if not events & READABLE:
                return
        try:
            data, ancillary, _, _ = self._receive(CHUNK, ANCILLARY)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self.hang_up()
            return
        answer = self._answer(data, received(ancillary) if ancillary else ())
        if answer:
            self.send(answer)
        if self.session.ended is not None:
            self.hang_up(self.session.ended)
