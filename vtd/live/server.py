"""The event loop: a socket for each function of a machine, and the clients that connect to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll

from vtd.live.machine import Endpoint, LiveMachine
from vtd.live.session import Session
from vtd.live.sockets import Connection, Listener

READABLE = EPOLLIN | EPOLLHUP | EPOLLERR
"""There is something to read, if only that the client has gone."""
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
        self._now = now
        self._time = now()
        self._epoll = epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        """What to do with events, by file descriptor."""
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

    def step(self, timeout: float | None = None) -> None:
        """Wait until something happens, ``timeout`` seconds at most, and deal with it."""
        ready = self._epoll.poll(self._until_due(timeout))
        now = self._now()
        self._clock.advance(now - self._time)
        self._time = now
        for number, events in ready:
            handler = self._handlers.get(number)  # none if it went while others were served
            if handler is not None:
                handler(events)
        if self.machine.messages_wait:
            self._send_messages()

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

    def forget(self, number: int) -> None:
        """Wait for nothing more of a descriptor."""
        self._epoll.unregister(number)
        del self._handlers[number]

    def _until_due(self, timeout: float | None) -> float | None:
        """Seconds until a model wants something done, if that is sooner than ``timeout``."""
        due = self._clock.next_due()
        if due is None:
            return timeout
        seconds = max(due - self._clock.now - self._now() + self._time, 0) / 1e9
        return seconds if timeout is None else min(seconds, timeout)

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


class Client:
    """One connection and its session."""

    def __init__(self, server: Server, endpoint: Endpoint, connection: Connection) -> None:
        self.session: Session = server.machine.connect(endpoint)
        self._server = server
        self._endpoint = endpoint
        self._connection = connection
        self._number = connection.fileno()
        self._events = EPOLLIN
        server.watch(self._number, self._serve)

    def send(self, data: bytes) -> None:
        """Send as much as the client takes, the rest later; read no more if that is too much."""
        unsent = self._connection.send(data)
        if unsent or self._events != EPOLLIN:
            events = EPOLLIN if unsent < MAX_BACKLOG else 0
            self._events = events | EPOLLOUT if unsent else events
            self._server.change(self._number, self._events)

    def hang_up(self, why: str | None = None) -> None:
        """End the connection."""
        server = self._server
        if why is not None:
            server.machine.note(f"{self._endpoint.name}: hung up: {why}")
        server.forget(self._number)
        server.clients.remove(self)
        self._connection.close()
        server.machine.disconnect(self._endpoint)

    def _serve(self, events: int) -> None:
        if events & EPOLLOUT:
            self.send(b"")
        if not events & READABLE:
            return
        arrived = self._connection.receive()
        if arrived is None:
            self.hang_up()
            return
        session = self.session
        answer = session.receive(*arrived)
        if answer:
            self.send(answer)
        if session.ended is not None:
            self.hang_up(session.ended)
