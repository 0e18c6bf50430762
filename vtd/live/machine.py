"""A platform as clients see it: its functions and its chipset, and the way of their interrupts."""

from __future__ import annotations

from dataclasses import dataclass

from devices.clock import Clock
from vtd.live.chipset import Chipset, ServedChipset
from vtd.live.function import ServedFunction
from vtd.live.guest_memory import GuestMemory
from vtd.live.interrupts import Interrupts
from vtd.live.messages import Irq
from vtd.live.session import Session
from vtd.platform import Platform
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.reporting.events import (
    Event,
    InterruptBlocked,
    InterruptDelivered,
    MessageSent,
    RequestBlocked,
)


class LiveError(ValueError):
    """A machine that can't be served: the message says what about it."""


@dataclass
class Endpoint:
    """One function and who is connected to it."""

    name: str
    served: ServedFunction
    session: Session | None = None


class LiveMachine:
    """The functions of ``platform``, and the chipset function, to be served.

    The platform's memory becomes what the clients map; regions that it has are taken away.
    LiveError if its tree is none that a client can have.
    """

    def __init__(self, platform: Platform, clock: Clock) -> None:
        self.platform = platform
        self.clock = clock
        for bus in platform.topology.roots:
            if (bus.segment, bus.number) != (0, 0):
                where = f"{bus.segment:04x}:{bus.number:02x}"
                raise LiveError(f"root bus {where}: a served machine has one, 0000:00")
        taken = {bus >> 3 for each in platform.topology.roots for bus in each.functions}
        free = [device for device in range(3, 31) if device not in taken]
        if not free:
            raise LiveError("root bus 0000:00: no device number is free for the chipset function")
        self.chipset_device = free[0]
        """Its device number on the root bus."""
        self._counts = dict.fromkeys(("exits", "faults", "interrupts", "lost"), 0)
        memory = platform.memory
        for region in memory.regions:
            memory.remove_range(region.start, region.end)
        self.guest_memory = GuestMemory(memory)
        self.chipset = Chipset(platform.units)
        self._chipset = Endpoint("chipset", ServedChipset(self.chipset))
        topology = platform.topology
        self.endpoints = [
            self._chipset,
            *(
                Endpoint(str(topology.bdf(each)), ServedFunction(each))
                for each in topology.functions()
                if each.header_type == 0
            ),
        ]
        for unit in platform.units.values():
            unit.subscribe(self._happened)

    def connect(self, endpoint: Endpoint) -> Session:
        """A new connection to an endpoint that has none."""
        function = endpoint.served.function
        interrupts = Interrupts({Irq.INTX: 1 if function.identity.interrupt_pin else 0})
        function.on_intx = interrupts.set_level
        session = Session(endpoint.served, self.guest_memory.client(), interrupts)
        endpoint.session = session
        return session

    def disconnect(self, endpoint: Endpoint) -> None:
        """The client of an endpoint is gone."""
        session = endpoint.session
        if session is not None:
            self._counts["exits"] += session.handled
            session.close()
        endpoint.session = None
        endpoint.served.function.on_intx = None
        endpoint.served.disconnected()

    def described(self) -> list[dict[str, str]]:
        """The functions, for readers of a recording."""
        return [
            {"bdf": each.name, "model": type(each.served.function).__name__.lower()}
            for each in self.endpoints
            if each is not self._chipset
        ]

    def counts(self) -> dict[str, int]:
        """What has been going on since the beginning.

        ``exits`` are messages of clients, ``requests`` those that asked an IOTLB, ``hits`` where
        it had an answer, ``faults`` blocked requests and interrupts, ``interrupts`` messages that
        left, ``lost`` those that nobody was connected to deliver.
        """
        handled = sum(each.session.handled for each in self.endpoints if each.session is not None)
        counters = [unit.caches.iotlb.counters for unit in self.platform.units.values()]
        hits = sum(each.hits for each in counters)
        return {
            **self._counts,
            "exits": self._counts["exits"] + handled,
            "requests": hits + sum(each.misses for each in counters),
            "hits": hits,
        }

    def _happened(self, event: Event) -> None:
        match event:
            case MessageSent(message):
                self._counts["interrupts"] += 1
                self._send(*message)
            case RequestBlocked() | InterruptBlocked():
                self._counts["faults"] += 1
            case InterruptDelivered(_, Interrupt() as interrupt):
                self._counts["interrupts"] += 1
                self._send(*interrupt.message())
            case InterruptDelivered(_, Posted(notification=Interrupt() as notification)):
                self._counts["interrupts"] += 1
                self._send(*notification.message())

    def _send(self, address: int, data: int) -> None:
        if self._chipset.session is None:
            self._counts["lost"] += 1
        else:
            self._chipset.session.send(address, data)
