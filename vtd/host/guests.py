"""Guests on a host that runs: their memory, address spaces behind each unit, and interrupts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from devices.function import PciFunction
from devices.interrupt_programming import remappable_message
from pagetables.memory import PhysicalMemory
from vtd.host.plan import Guest, Policy
from vtd.host.virtual_processor import VirtualProcessor
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor
from vtd.software.domain import Domain


class Backed(NamedTuple):
    """A range of guest memory and where the host has it."""

    guest: int
    host: int
    size: int

    def host_address(self, address: int) -> int | None:
        """Where a guest physical address is; None outside."""
        inside = self.guest <= address < self.guest + self.size
        return self.host + address - self.guest if inside else None


@dataclass
class RunningGuest:
    """A guest with what the host gave it."""

    description: Guest
    memory: tuple[Backed, ...]
    domains: dict[object, Domain] = field(default_factory=dict)
    """Its address spaces, by unit and kind."""
    descriptors: tuple[int, ...] = ()
    """Posted-interrupt descriptors of its processors."""
    processor: VirtualProcessor | None = None
    """One that runs it, once somebody asked for it."""
    regions: list[tuple[int, int]] = field(default_factory=list)
    """Reserved regions that are mapped one to one for its devices: start and size."""

    @property
    def name(self) -> str:
        return self.description.name

    def host_address(self, address: int) -> int | None:
        """Where a guest physical address is; None if the guest has no memory there."""
        found = (each.host_address(address) for each in self.memory)
        return next((each for each in found if each is not None), None)

    def reached(self) -> Iterator[tuple[int, int, int]]:
        """What its devices may reach: device address, size, address of the host.

        The composition of its own maps and of where the host has its memory, and the reserved
        regions of its devices.
        """
        yield from ((start, size, start) for start, size in self.regions)
        for device, physical, size in self.description.own_maps():
            for part in self.memory:
                first, last = (
                    max(physical, part.guest),
                    min(physical + size, part.guest + part.size),
                )
                if first < last:
                    yield device + first - physical, last - first, part.host + first - part.guest

    def reached_at(self, address: int) -> int | None:
        """Where a device address leads; None if its devices may not reach it."""
        for device, size, host in self.reached():
            if device <= address < device + size:
                return host + address - device
        return None

    def posted(self, memory: PhysicalMemory) -> list[int]:
        """Vectors that wait in the descriptors of its processors."""
        found = []
        for address in self.descriptors:
            descriptor = PostedInterruptDescriptor.unpack(memory.read(address, 64))
            found += [vector for vector in range(256) if descriptor.pir >> vector & 1]
        return found


class Passed(NamedTuple):
    """A function that a guest has, and how its interrupts come."""

    name: str
    guest: RunningGuest
    function: PciFunction
    unit: int | None
    """Base of the registers of its unit; None without one."""
    policy: Policy
    domain: Domain | None
    """The address space that it uses; None without a unit."""
    handle: int | None
    """Its interrupt-remapping entry; None without interrupt remapping."""
    pasid: int | None = None
    """The PASID that leads to the same address space; None if its policy has none."""

    def send(self, handle: int) -> object:
        """What its message for an interrupt-remapping entry becomes; None where it is blocked."""
        address, data = remappable_message(handle)
        return self.function.bus_master.write(address, data.to_bytes(4, "little")).interrupt
