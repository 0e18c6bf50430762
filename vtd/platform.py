"""A machine: remapping units, the PCI tree whose requests they remap, and the memory they share.

VT-d 3.12 and 8.3: the DMAR table's device scopes decide which unit a function belongs to, and
bridges decide under which source-id its requests arrive there, and whether they do: bus mastering
has to be on in each, and access control has to let them pass. Left out: the state of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from devices.bridged_port import BridgedPort
from devices.function import PciFunction
from devices.topology import Topology
from pagetables.memory import PhysicalMemory
from vtd.dmar.scopes import Scopes, SystemDevice
from vtd.dmar.table import Table
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.state import State
from vtd.unit.unit import RemappingUnit


class PlatformError(ValueError):
    """Parts that make no machine: the message names the unit or the device."""


class PlatformState(NamedTuple):
    """Everything that changes: memory by frame, and each unit by its register base."""

    memory: dict[int, bytes]
    units: dict[int, State]


class Platform:
    """Units by register base, one for each DRHD structure of ``table``.

    PlatformError if a structure has no unit or a unit no structure.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        topology: Topology,
        table: Table,
        units: Mapping[int, RemappingUnit],
    ) -> None:
        described = {unit.register_base for unit in table.units}
        for base in sorted(described ^ set(units)):
            what = "has no unit" if base in described else "is in no DRHD structure"
            raise PlatformError(f"register base {base:#x} {what}")
        self.memory = memory
        self.topology = topology
        self.units = dict(units)
        self.scopes = Scopes(table, topology)

    @classmethod
    def build(
        cls,
        memory: PhysicalMemory,
        topology: Topology,
        table: Table | bytes,
        capabilities: Capabilities | Mapping[int, Capabilities],
        options: Options | None = None,
    ) -> Platform:
        """Make the units that ``table`` describes and connect every function of ``topology``.

        ``capabilities`` are those of all units, or of each by register base. PlatformError if they
        contradict themselves, or if some function has no unit. A table as bytes is read first, with
        TableError if it is none.
        """
        if isinstance(table, bytes):
            table = Table.parse(table)
        units = {}
        for each in table.units:
            base = each.register_base
            known = capabilities
            if not isinstance(known, Capabilities):
                if base not in known:
                    raise PlatformError(f"register base {base:#x}: no capabilities given")
                known = known[base]
            contradictions = known.check()
            if contradictions:
                raise PlatformError(f"register base {base:#x}: {'; '.join(contradictions)}")
            units[base] = RemappingUnit(known, memory, options)
        platform = cls(memory, topology, table, units)
        platform.connect()
        return platform

    def unit_of(self, function: PciFunction) -> RemappingUnit:
        """The unit that remaps a function's requests; PlatformError if none covers it."""
        bdf = self.topology.bdf(function)
        owner = self.scopes.owner(bdf)
        if owner is None:
            raise PlatformError(
                f"{bdf}: no unit covers it: no device scope names it or a bridge above, and "
                f"segment {bdf.segment:04x} has no unit with INCLUDE_PCI_ALL"
            )
        return self.units[owner.unit.register_base]

    def connect(self) -> None:
        """Give every function its port: again after bus numbers or virtual functions changed."""
        for segment in {bus.segment for bus in self.topology.roots}:
            for function in self.topology.functions(segment):
                self._connect(function)

    def _connect(self, function: PciFunction) -> None:
        unit, source_id = self.unit_of(function), self.topology.requester_id(function)
        port = UnitPort(unit, self.memory, source_id)
        behind = next(self.topology.bridges_above(function), None) is not None
        function.connect(BridgedPort(port, self.topology, function) if behind else port)
        if function.client is not None:
            unit.attach(source_id, function.client)

    def io_apic_port(self, number: int) -> UnitPort:
        """The port of the I/O APIC with this id (8.3.1.1); PlatformError if no unit lists it."""
        found = self.scopes.io_apic(number)
        return self._system_port(f"I/O APIC {number}", [] if found is None else [found])[0]

    def hpet_ports(self, number: int) -> list[UnitPort]:
        """The ports of an HPET block (8.3.1.2), one for each of its source-ids."""
        return self._system_port(f"HPET {number}", self.scopes.hpet(number))

    def namespace_ports(self, name: str) -> list[UnitPort]:
        """The ports of an ACPI name-space device (8.3.1.3)."""
        return self._system_port(name, self.scopes.namespace_device(name))

    def _system_port(self, name: str, found: list[SystemDevice]) -> list[UnitPort]:
        ports = [
            UnitPort(self.units[each.unit.register_base], self.memory, each.source_id)
            for each in found
            if each.source_id is not None
        ]
        if not ports:
            raise PlatformError(f"{name}: no device scope gives it a source-id")
        return ports

    def snapshot(self) -> PlatformState:
        """Memory and all units as one value; mapped regions belong to others and are left out."""
        units = {base: unit.snapshot() for base, unit in self.units.items()}
        return PlatformState(self.memory.snapshot(), units)

    def restore(self, state: PlatformState) -> None:
        """Become what :meth:`snapshot` was taken from, on this platform or one built alike."""
        self.memory.restore(state.memory)
        for base, unit in self.units.items():
            unit.restore(state.units[base])
