"""The event loop: a socket for each function of a machine, and the clients that connect to it."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from pathlib import Path

from vtd.live.machine import Endpoint, LiveMachine
from vtd.live.session import MAX_BACKLOG, Session
from vtd.live.sockets import Connection, Listener


class Client:
    """One connection and its session."""

    def __init__(self, endpoint: Endpoint, connection: Connection, session: Session) -> None:
        self.endpoint = endpoint
        self.connection = connection
        self.session = session
        self.events = selectors.EVENT_READ
        """What the event loop waits for."""


class Server:
    """Serves ``machine`` on sockets in ``folder``; ``note`` is told what people may want to know.

    Time of the machine passes as ``now`` says, in nanoseconds. OSError if a socket can't be made,
    for one because another server has it. To be closed.
    """

    def __init__(
        self,
        machine: LiveMachine,
        folder: Path,
        now: Callable[[], int],
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.machine = machine
        self.folder = folder
        self._now = now
        self._time = now()
        self._note = note
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, Listener] = {}
        self._clients: list[Client] = []
        try:
            for endpoint in machine.endpoints:
                listener = Listener(self.path(endpoint))
                self._listeners[endpoint.name] = listener
                self._selector.register(listener, selectors.EVENT_READ, endpoint)
        except OSError:
            self.close()
            raise

    def path(self, endpoint: Endpoint) -> Path:
        """The socket of an endpoint."""
        return self.folder / f"{endpoint.name.replace(':', '-')}.sock"

    @property
    def connected(self) -> int:
        """How many endpoints have a client."""
        return len(self._clients)

    def step(self, timeout: float | None = None) -> None:
        """Wait until something happens, ``timeout`` seconds at most, and deal with it."""
        for key, events in self._selector.select(self._until_due(timeout)):
            if isinstance(key.data, Endpoint):
                self._accept(key.data)
            else:
                self._serve(key.data, events)
        self._pass_time()
        self.flush()

    def _until_due(self, timeout: float | None) -> float | None:
        """Seconds until a model wants something done, if that is sooner than ``timeout``."""
        due = self.machine.clock.next_due()
        if due is None:
            return timeout
        self._pass_time()
        seconds = max(due - self.machine.clock.now, 0) / 1e9
        return seconds if timeout is None else min(seconds, timeout)

    def _pass_time(self) -> None:
        """Let the time that has passed pass for the models too."""
        now = self._now()
        self.machine.clock.advance(now - self._time)
        self._time = now

    def flush(self) -> None:
        """Send what waits, of every client: one client's command may have an effect on others."""
        for client in self._clients:
            data = client.session.take()
            if data:
                self._send(client, data)

    def close(self) -> None:
        """Hang up, and leave nothing behind in the folder."""
        for client in list(self._clients):
            self._hang_up(client, None)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self._selector.close()

    def _accept(self, endpoint: Endpoint) -> None:
        connection = self._listeners[endpoint.name].accept()
        if connection is None:
            return
        if endpoint.session is not None:
            connection.close()  # one client at a time
            return
        client = Client(endpoint, connection, self.machine.connect(endpoint))
        self._clients.append(client)
        self._selector.register(connection, client.events, client)

    def _serve(self, client: Client, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(client, b"")
        if not events & selectors.EVENT_READ:
            return
        arrived = client.connection.receive()
        if arrived is None:
            self._hang_up(client, None)
            return
        session = client.session
        session.receive(*arrived)
        data = session.take()
        if data:
            self._send(client, data)
        if session.ended is not None:
            self._hang_up(client, session.ended)

    def _send(self, client: Client, data: bytes) -> None:
        client.connection.send(data)
        unsent = client.connection.unsent
        events = selectors.EVENT_READ if unsent < MAX_BACKLOG else 0
        if unsent:
            events |= selectors.EVENT_WRITE
        if events != client.events:
            client.events = events
            self._selector.modify(client.connection, events, client)

    def _hang_up(self, client: Client, why: str | None) -> None:
        if why is not None:
            self._note(f"{client.endpoint.name}: hung up: {why}")
        self._selector.unregister(client.connection)
        self._clients.remove(client)
        client.connection.close()
        self.machine.disconnect(client.endpoint)
