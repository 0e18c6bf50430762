"""A platform as clients see it: its functions and its chipset, and the way of their interrupts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from devices.clock import Clock
from devices.models.nvme.function import Nvme
from pagetables.memory import BusError
from vtd.layouts.registers import GlobalStatus
from vtd.live.chipset import Chipset, ServedChipset
from vtd.live.function import ServedFunction
from vtd.live.guest_memory import GuestMemory
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

BIOS_START, BIOS_SIZE = 0xF_0000, 0x1_0000
MP_POINTER = b"_MP_"
"""How the pointer to the table of the MultiProcessor Specification begins, at 16-byte steps."""


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

    ``eventfds``: clients signal the MSI and MSI-X vectors of functions, which then pass no
    remapping. ``note`` is told what people may want to know. The platform's memory becomes what the
    clients map; regions that it has are taken away. LiveError if no client can have such a machine.
    """

    def __init__(
        self,
        platform: Platform,
        clock: Clock,
        *,
        eventfds: bool = False,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.platform = platform
        self.clock = clock
        self.note = note
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
        self.messages_wait = False
        """Whether a session has something to send that no command of its client asked for."""
        self._counts = dict.fromkeys(("exits", "faults", "interrupts", "lost"), 0)
        memory = platform.memory
        for region in memory.regions:
            memory.remove_range(region.start, region.end)
        for function in platform.topology.functions():
            if function.sriov is not None:
                function.sriov.keep_enabled()
        self.guest_memory = GuestMemory(memory)
        self.chipset = Chipset(platform.units)
        self.chipset.on_placed = self._placed
        self.chipset.on_probed = self._probed
        self._chipset = Endpoint("chipset", ServedChipset(self.chipset))
        topology = platform.topology
        self.endpoints = [
            self._chipset,
            *(
                Endpoint(str(topology.bdf(each)), ServedFunction(each, eventfds=eventfds))
                for each in topology.functions()
                if each.header_type == 0 and not each.driven
            ),
        ]
        for unit in platform.units.values():
            unit.subscribe(self._happened)

    def connect(self, endpoint: Endpoint) -> Session:
        """A new connection to an endpoint that has none."""
        served = endpoint.served
        session = Session(served, self.guest_memory.client(), served.interrupts())
        endpoint.session = session
        return session

    def disconnect(self, endpoint: Endpoint) -> None:
        """The client of an endpoint is gone."""
        session = endpoint.session
        if session is not None:
            self._counts["exits"] += session.handled
            session.close()
        endpoint.session = None
        endpoint.served.disconnected()

    def lose_power(self) -> None:
        """The power fails and comes back while nobody is connected.

        Disks keep what they promise to, units nothing.
        """
        for unit in self.platform.units.values():
            unit.reset(power_good=True)
        for each in self.endpoints:
            function = each.served.function
            if isinstance(function, Nvme):
                function.lose_power()
            else:
                function.reset()

    def described(self) -> list[dict[str, str]]:
        """The functions, for readers of a recording."""
        return [
            {"bdf": each.name, "model": type(each.served.function).__name__.lower()}
            for each in self.endpoints
            if each is not self._chipset
        ]

    def bridges(self) -> dict[str, int]:
        """The bus behind each bridge, for a replay of a recording."""
        bridges = self.platform.topology.bridge_map()
        return {str(bdf): bus for bdf, bus in bridges.items()}

    def left_on(self) -> list[int]:
        """Units, by the address of their registers, that translate DMA.

        An operating system that shuts down switches that off; interrupts Linux lets be remapped.
        """
        units = self.platform.units.items()
        return [base for base, unit in units if unit.registers[GlobalStatus].tes]

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

    def _placed(self, address: int) -> None:
        if address != self.chipset.base:
            self.note(
                f"firmware put the registers of the units at {address:#x}, the DMAR table has them "
                f"from {self.chipset.base:#x} on: change their bases in the machine"
            )

    def _probed(self) -> None:
        """Firmware is done with its tables: take the pointer to its MP table away.

        The table is from before ACPI. A guest whose MADT has no I/O APIC, so that all interrupts
        are remapped, would find one there.
        """
        memory = self.platform.memory
        with suppress(BusError):
            data = memory.read(BIOS_START, BIOS_SIZE)
            for offset in range(0, BIOS_SIZE, 16):
                if data.startswith(MP_POINTER, offset):
                    memory.write(BIOS_START + offset, bytes(len(MP_POINTER)))

    def _happened(self, event: Event) -> None:
        match event:
            case InterruptDelivered(_, Interrupt() as interrupt):
                self._counts["interrupts"] += 1
                self._send(*interrupt.message())
            case RequestBlocked() | InterruptBlocked():
                self._counts["faults"] += 1
            case MessageSent(message):
                self._counts["interrupts"] += 1
                self._send(*message)
            case InterruptDelivered(_, Posted(notification=Interrupt() as notification)):
                self._counts["interrupts"] += 1
                self._send(*notification.message())

    def _send(self, address: int, data: int) -> None:
        if self._chipset.session is None:
            self._counts["lost"] += 1
        else:
            self._chipset.session.send(address, data)
            self.messages_wait = True
