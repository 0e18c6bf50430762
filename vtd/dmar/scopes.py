"""Device scopes over a PCI topology: which unit, regions and properties belong to a device.

Models VT-d 8.3, 8.3.1 and the implications in 8.3.2 to 8.3.5: an explicit entry comes before a
sub-hierarchy, that before the INCLUDE_PCI_ALL unit of the segment; virtual functions follow their
physical function. ARI functions of a device are found through the function that is listed. What the
units do with the requests is not modelled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from devices.source_id import Bdf, SourceId
from vtd.dmar.bridges import BridgeLookup, Bridges, bridges_above
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.records import (
    Andd,
    Atsr,
    DeviceScope,
    Drhd,
    Rmrr,
    Satc,
    ScopedStructure,
    Sidp,
    SidpFlags,
    padded_name,
)
from vtd.dmar.table import Table


class Reason(Enum):
    """Why a unit owns a device, strongest first."""

    EXPLICIT = "listed by itself"
    SUB_HIERARCHY = "below a listed bridge"
    INCLUDE_PCI_ALL = "left over, INCLUDE_PCI_ALL"


@dataclass(frozen=True)
class Owner:
    """The unit of a device, and why."""

    unit: Drhd
    reason: Reason
    entry: DeviceScope | None
    """The scope entry that decided, None for INCLUDE_PCI_ALL."""
    device: Bdf
    """The function that was looked up: of a virtual function the physical one."""


class SystemDevice(NamedTuple):
    """An I/O APIC, HPET block or namespace device: its source-id and its unit."""

    source_id: SourceId | None
    """None if the path leads over bridges that the topology does not have."""
    unit: Drhd
    entry: DeviceScope


class Scopes:
    """The device scopes of a table, resolved over a topology.

    Without a topology the bridges are unknown, and so is what depends on them: see
    :meth:`undecided`.
    """

    def __init__(self, table: Table, topology: BridgeLookup | None = None) -> None:
        self.table = table
        self.topology: BridgeLookup = topology or Bridges()

    def undecided(self, bdf: Bdf, kind: type[ScopedStructure]) -> bool:
        """Whether bridges that are not known could put a function into the scope of a structure.

        So it is if an entry names a bridge or a way over bridges, and the bus of the function is
        neither a root bus nor behind a known bridge.
        """
        segment = self.device(bdf).segment
        entries = [(each, entry) for each, entry in self.table.entries if each.segment == segment]
        return self.hidden(bdf) and any(
            isinstance(each, kind)
            and (entry.type == DeviceScope.PCI_SUB_HIERARCHY or len(entry.path) > 1)
            for each, entry in entries
        )

    def hidden(self, bdf: Bdf) -> bool:
        """Whether a function may be behind bridges that are not known."""
        device = self.device(bdf)
        bus = device.source_id.bus
        if isinstance(self.topology, PciTree):
            hidden = self.topology.may_be_below_a_bridge(device)
        else:
            hidden = bus != 0 and self.topology.bridge_above(device) is None
        return hidden and not any(
            each.segment == device.segment and entry.is_pci and entry.start_bus == bus
            for each, entry in self.table.entries
        )

    def device(self, bdf: Bdf) -> Bdf:
        """The function whose place counts: of a virtual function the physical one (8.3.3)."""
        return self.topology.physical_function(bdf) or bdf

    def resolve(self, segment: int, entry: DeviceScope) -> Bdf | None:
        """The function an entry names, walking its path over the bridges (8.3.1).

        None if a bridge on the way is not known, a number in the path is no PCI address, or the
        type of the entry is reserved.
        """
        if entry.type not in DeviceScope.NAMES:
            return None
        bus: int | None = entry.start_bus
        bdf = None
        for position, (device, function) in enumerate(entry.path):
            if position:
                bus = self.topology.secondary_bus(bdf) if bdf else None
            if bus is None or device > 31 or function > 7:
                return None
            bdf = Bdf(segment, SourceId.of(bus, device, function))
        return bdf

    def _listed(self, *types: int) -> dict[Bdf, tuple[Drhd, DeviceScope]]:
        """Functions that entries of these types name, with their unit; the first entry counts."""
        listed: dict[Bdf, tuple[Drhd, DeviceScope]] = {}
        for unit in self.table.units:
            for entry in unit.scopes:
                bdf = self.resolve(unit.segment, entry) if entry.type in types else None
                if bdf is not None:
                    listed.setdefault(bdf, (unit, entry))
        return listed

    @cached_property
    def _devices(self) -> dict[Bdf, tuple[Drhd, DeviceScope]]:
        """Devices listed by themselves; an endpoint before a source-id that only looks like it."""
        source_ids = self._listed(
            DeviceScope.IOAPIC, DeviceScope.MSI_CAPABLE_HPET, DeviceScope.ACPI_NAMESPACE_DEVICE
        )
        return source_ids | self._listed(DeviceScope.PCI_ENDPOINT)

    @cached_property
    def _bridges(self) -> dict[Bdf, tuple[Drhd, DeviceScope]]:
        return self._listed(DeviceScope.PCI_SUB_HIERARCHY)

    @cached_property
    def _include_all(self) -> dict[int, Drhd]:
        units = [unit for unit in self.table.units if unit.flags.include_pci_all]
        return {unit.segment: unit for unit in reversed(units)}

    def bridges_above(self, bdf: Bdf) -> list[Bdf]:
        """The bridges above a function, nearest first."""
        return bridges_above(self.topology, bdf)

    def owner(self, bdf: Bdf) -> Owner | None:
        """The unit that remaps the requests of a function; None if no unit covers it."""
        device = self.device(bdf)
        if device in self._devices:
            unit, entry = self._devices[device]
            return Owner(unit, Reason.EXPLICIT, entry, device)
        for bridge in (device, *self.bridges_above(device)):
            if bridge in self._bridges:
                unit, entry = self._bridges[bridge]
                return Owner(unit, Reason.SUB_HIERARCHY, entry, device)
        everything = self._include_all.get(device.segment)
        return Owner(everything, Reason.INCLUDE_PCI_ALL, None, device) if everything else None

    def _names(self, structure: ScopedStructure, segment: int, functions: set[Bdf]) -> bool:
        """Whether an entry of the structure names one of the functions."""
        return any(self.resolve(segment, entry) in functions for entry in structure.scopes)

    def includes(self, segment: int, entry: DeviceScope, bdf: Bdf) -> bool:
        """Whether an entry has a function in its scope, by itself or below a bridge (8.3.1)."""
        named = self.resolve(segment, entry)
        if entry.type == DeviceScope.PCI_SUB_HIERARCHY:
            return named in (bdf, *self.bridges_above(bdf))
        return named == bdf

    def regions(self, bdf: Bdf) -> list[Rmrr]:
        """The reserved memory regions a function needs, by itself or below a bridge (8.4)."""
        device = self.device(bdf)
        return [
            each
            for each in self.table.all(Rmrr)
            if any(self.includes(each.segment, entry, device) for entry in each.scopes)
        ]

    def root_port_ats(self, bdf: Bdf) -> Atsr | None:
        """The ATSR that lets a function behind a root port use ATS (8.5)."""
        device = self.device(bdf)
        above = set(self.bridges_above(device))
        for each in self.table.all(Atsr):
            if each.segment != device.segment or not above:
                continue
            if each.flags.all_ports or self._names(each, each.segment, above):
                return each
        return None

    def translation_cache(self, bdf: Bdf) -> Satc | None:
        """The SATC that an integrated function is in (8.8)."""
        device = self.device(bdf)
        for each in self.table.all(Satc):
            if each.segment == device.segment and self._names(each, each.segment, {device}):
                return each
        return None

    def properties(self, bdf: Bdf) -> SidpFlags | None:
        """The properties that an SIDP gives an integrated function (8.9)."""
        device = self.device(bdf)
        for each in self.table.all(Sidp):
            for entry in each.scopes:
                if self.resolve(each.segment, entry) == device:
                    return entry.sidp
        return None

    def _system_devices(self, type: int, number: int) -> list[SystemDevice]:
        found = []
        for unit in self.table.units:
            for entry in unit.scopes:
                if entry.type == type and entry.enumeration_id == number:
                    bdf = self.resolve(unit.segment, entry)
                    found.append(SystemDevice(bdf.source_id if bdf else None, unit, entry))
        return found

    def io_apic(self, number: int) -> SystemDevice | None:
        """The I/O APIC with this id of the MADT (8.3.1.1); of several entries the first counts."""
        return next(iter(self._system_devices(DeviceScope.IOAPIC, number)), None)

    def hpet(self, number: int) -> list[SystemDevice]:
        """The source-ids of the HPET block with this number (8.3.1.2); some have one per timer."""
        return self._system_devices(DeviceScope.MSI_CAPABLE_HPET, number)

    def namespace_device(self, name: str) -> list[SystemDevice]:
        """The source-ids of an ACPI name-space device by its object name (8.3.1.3)."""
        return [
            device
            for each in self.table.all(Andd)
            if padded_name(each.object_name) == padded_name(name)
            for device in self._system_devices(
                DeviceScope.ACPI_NAMESPACE_DEVICE, each.device_number
            )
        ]
