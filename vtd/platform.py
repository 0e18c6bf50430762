"""A machine: remapping units, the PCI tree whose requests they remap, and the memory they share.

VT-d 3.12 and 8.3: the DMAR table's device scopes decide which unit a function belongs to, and
bridges decide under which source-id its requests arrive there, and whether they do: bus mastering
has to be on in each, and access control has to let them pass. A snapshot leaves out the state of
devices; a fork or a pickled platform has devices of its own.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from devices.bridged_port import BridgedPort
from devices.dma import Completion, DmaPort, Request
from devices.function import CLOSED, PciFunction
from devices.isolation_boundary import IsolationBoundary
from devices.peer import PeerSpace
from devices.source_id import SourceId
from devices.topology import Topology, TopologyError
from pagetables.memory import MemoryState, PhysicalMemory
from pagetables.stores import ProcessorStores, UnsnoopedMemory
from vtd.dmar.platform_data import PlatformData, UnitRegisters
from vtd.dmar.rules import Severity, check
from vtd.dmar.rules.platform import short_of_domain_ids
from vtd.dmar.scopes import Scopes, SystemDevice
from vtd.dmar.table import Table
from vtd.unit.implementation import without_registers
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.state import State
from vtd.unit.unit import RemappingUnit
from vtd.unremapped_port import UnremappedPort


class PlatformError(ValueError):
    """Parts that make no machine: the message names the unit or the device."""


UNITS_AND_TABLE = ("DMAR-U07", "DMAR-K09", "DMAR-K10", "DMAR-K14")
"""Rules that need the table and the registers of the units, and nothing else."""


class RoutedPort(DmaPort):
    """The port of one function of a platform, wherever the topology has its requests arrive.

    A function that is not plugged in any more reaches nothing, as does one that no unit covers if
    the platform does not let those through. ``inside``: of the isolation boundary, if it has one
    (4.4).
    """

    def __init__(self, platform: Platform, function: PciFunction, *, inside: bool = False) -> None:
        self.platform = platform
        self._function = function
        self._inside = inside

    def request(self, request: Request) -> Completion:
        """Take the way as it is now."""
        way = self.way()
        return way.request(request._replace(source_id=way.source_id))

    def way(self) -> DmaPort:
        """The port of the unit, if no bridge stops anything; a gate in front of it otherwise."""
        try:
            way = self.platform.port_of(self._function).way()
        except (PlatformError, TopologyError):
            return CLOSED
        isolated = self._function.boundary is not None and not self._inside
        return IsolationBoundary(way) if isolated else way


class PlatformState(NamedTuple):
    """Everything that changes: memory by frame, and each unit by its register base."""

    memory: MemoryState
    units: dict[int, State]


class Platform:
    """Units by register base, one for each DRHD structure of ``table``.

    PlatformError if a structure has no unit or a unit no structure. ``forwards_peers``: the root
    complex sends requests that remapping has taken to the BAR of a function of the segment there,
    which is its choice (3.17). ``unremapped``: requests of functions that no unit covers go past
    all units (8.3); otherwise there may be no such function. Integrated devices in an SATC have an
    isolation boundary (4.4).
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        topology: Topology,
        table: Table,
        units: Mapping[int, RemappingUnit],
        *,
        forwards_peers: bool = False,
        unremapped: bool = False,
    ) -> None:
        described = {unit.register_base for unit in table.units}
        for base in sorted(described ^ set(units)):
            what = "has no unit" if base in described else "is in no DRHD structure"
            raise PlatformError(f"register base {base:#x} {what}")
        self.memory = memory
        self.topology = topology
        self.units = dict(units)
        self.forwards_peers = forwards_peers
        self.unremapped = unremapped
        self.scopes = Scopes(table, topology)
        self.warnings: list[str] = []
        """What is doubtful about the units, and about the units and the table together."""
        self._attached: list[tuple[RemappingUnit, int]] = []
        """The source-ids whose messages go where the topology says."""

    @classmethod
    def build(
        cls,
        memory: PhysicalMemory,
        topology: Topology,
        table: Table | bytes,
        capabilities: Capabilities | Mapping[int, Capabilities],
        options: Options | None = None,
        *,
        forwards_peers: bool = False,
        unremapped: bool = False,
        stores: ProcessorStores | None = None,
    ) -> Platform:
        """Make the units that ``table`` describes and connect every function of ``topology``.

        ``capabilities`` are those of all units, or of each by register base. PlatformError if they
        contradict themselves or the table, or if some function has no unit and is not let through
        ``unremapped``; what is only doubtful is in ``warnings``. A table as bytes is read first,
        with TableError if it is none. ``stores`` of a processor to ``memory`` are seen by units
        that do not snoop once they are flushed (3.10).
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
            seen = memory if stores is None or known.snoops else UnsnoopedMemory(stores)
            units[base] = RemappingUnit(known, seen, options)
        platform = cls(
            memory, topology, table, units, forwards_peers=forwards_peers, unremapped=unremapped
        )
        platform.connect()
        platform._judge()
        return platform

    def _judge(self) -> None:
        """Hold the units against the table: what is wrong raises, what is doubtful is kept."""
        registers, functions = {}, [self.topology.bdf(each) for each in self._functions()]
        for base, unit in self.units.items():
            known = unit.capabilities
            registers[base] = UnitRegisters(known.cap, known.ecap, int(known.version))
            self.warnings += [f"register base {base:#x}: {each}" for each in known.consequences()]
            self.warnings += [
                f"register base {base:#x}: {each}" for each in without_registers(known)
            ]
        found = check(self.scopes.table, PlatformData(registers=registers), UNITS_AND_TABLE)
        wrong = [
            f"{each.rule}: {each.message}" for each in found if each.severity is Severity.ERROR
        ]
        if wrong:
            raise PlatformError("; ".join(wrong))
        self.warnings += [f"{each.rule}: {each.message}" for each in found]
        for _, message in short_of_domain_ids(self.scopes, functions, registers):
            self.warnings.append(f"DMAR-K15: {message}")

    def reset(self, *, power_good: bool = True) -> None:
        """Reset every unit (11.3) and every function."""
        for unit in self.units.values():
            unit.reset(power_good=power_good)
        for function in list(self._functions()):  # bridges lose their bus numbers
            function.reset()

    def suspend(self) -> None:
        """Take the power of every unit away, as when the machine sleeps; memory keeps its own."""
        for unit in self.units.values():
            unit.suspend()

    def resume(self) -> None:
        """Power comes back: every unit and every function is as after power-on."""
        self.reset()

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
        """Give every function its port; PlatformError if no unit covers one that has to have one.

        What changes later (virtual functions, bus numbers, bridges) is followed without this, until
        another platform takes the functions over.
        """
        for function in () if self.unremapped else self._functions():
            self.unit_of(function)
        for function in self._functions():
            self._join(function)
        changes, follow = self.topology.on_change, self._topology_changed
        changes[:] = [follow, *(each for each in changes if each != follow)]
        for react in changes:
            react()

    def _join(self, function: PciFunction) -> None:
        """Give a function its port, and its device-TLB one of its own if it is in an SATC."""
        isolated = self.scopes.translation_cache(self.topology.bdf(function)) is not None
        function.boundary = RoutedPort(self, function, inside=True) if isolated else None
        function.connect(RoutedPort(self, function))

    def _functions(self) -> Iterator[PciFunction]:
        for segment in {bus.segment for bus in self.topology.roots}:
            yield from self.topology.functions(segment)

    def _topology_changed(self) -> None:
        """Connect functions that are new, and send ATS messages to where functions are now."""
        for unit, source_id in self._attached:
            unit.detach(source_id)
        self._attached.clear()
        for function in self._functions():
            if not isinstance(function.port, RoutedPort):
                self._join(function)
            elif function.port.platform is not self:
                continue
            if function.client is not None:
                with suppress(PlatformError):
                    unit, source_id = self.unit_of(function), self.topology.requester_id(function)
                    unit.attach(source_id, function.client)
                    self._attached.append((unit, source_id))

    def _repr_svg_(self) -> str:
        """In a notebook: the functions as a tree, with the unit of each."""
        from vtd.pictures.tree import Chip, Row, tree_svg  # noqa: PLC0415 - only notebooks need it

        topology, rows = self.topology, []
        functions = (
            each
            for segment in sorted({bus.segment for bus in topology.roots})
            for each in topology.functions(segment)
        )
        for function in sorted(
            functions, key=lambda each: (topology.path(each), topology.bdf(each))
        ):
            bdf = topology.bdf(function)
            owner, sent = self.scopes.owner(bdf), topology.aliases(function)
            chips = [Chip("no unit" if owner is None else f"unit {owner.unit.register_base:#x}")]
            if len(sent) > 1:
                chips.append(Chip(f"arrives as {sent[-1]}"))
            depth = len(topology.path(function)[1]) - 1
            rows.append(Row(depth, str(bdf), type(function).__name__, tuple(chips)))
        return tree_svg(f"{len(self.units)} units, {len(rows)} functions", rows)

    def port_of(self, function: PciFunction) -> DmaPort:
        """A function's port: where its requests arrive, or behind the bridges above it."""
        peers = None
        if self.forwards_peers:
            peers = PeerSpace(self.topology, self.topology.bdf(function).segment)
        port = self._arriving(function, self.topology.requester_id(function), peers)
        forwarded = self.topology.is_forwarded(function)
        return BridgedPort(port, self.topology, function) if forwarded else port

    def port_as(self, function: PciFunction, source_id: SourceId) -> DmaPort:
        """What a function reaches that puts a requester id of its choice into its requests.

        The unit is the one that requests from its place come to; bridges that put in an id of
        theirs do so all the same, and an isolation boundary lets none be put in.
        """
        if function.boundary is not None:
            return function.port.way()
        _, *aliases = self.topology.aliases(function)
        port = self._arriving(function, aliases[-1] if aliases else source_id)
        return BridgedPort(port, self.topology, function, source_id)

    def _arriving(
        self, function: PciFunction, source_id: SourceId, peers: PeerSpace | None = None
    ) -> DmaPort:
        """What requests of a function come to at the root: its unit, or memory itself."""
        if self.unremapped and self.scopes.owner(self.topology.bdf(function)) is None:
            return UnremappedPort(self.memory, source_id)
        return UnitPort(self.unit_of(function), self.memory, source_id, peers)

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
        """Become what :meth:`snapshot` was taken from, on this platform or one built alike.

        PlatformError for the state of other units.
        """
        if state.units.keys() != self.units.keys():
            raise PlatformError("it is the state of other units")
        self.memory.restore(state.memory)
        for base, unit in self.units.items():
            unit.restore(state.units[base])

    def fork(self) -> Platform:
        """A platform in the same state that goes its own way, at the cost of what changed.

        Frames are shared until they are written; units and the whole PCI tree, with the state of
        its devices, are copies; find a device's copy by ``fork.topology.find(bdf)``. The DMAR table
        and mapped regions are the same. Subscribers to the events of a unit stay behind.
        PlatformError if something in the tree can't be copied, such as a function defined in place.
        """
        memory = self.memory.fork()
        units = [unit.fork(memory) for unit in self.units.values()]
        ours = [self.scopes.table, self.memory, *self.units.values()]
        copied = io.BytesIO()
        try:
            _Copier(copied, ours).dump(self)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise PlatformError(f"the PCI tree can't be copied: {error}") from error
        copied.seek(0)
        fork: Platform = _Forker(copied, [self.scopes.table, memory, *units]).load()
        return fork

    def __getstate__(self) -> dict[str, Any]:
        clients = {base: unit.devices.clients for base, unit in self.units.items()}
        return {**self.__dict__, "clients": clients}

    def __setstate__(self, state: dict[str, Any]) -> None:
        clients = state.pop("clients")
        self.__dict__.update(state)
        for base, unit in self.units.items():
            for source_id, client in clients[base].items():
                unit.attach(source_id, client)


class _Copier(pickle.Pickler):
    """Pickles all but some objects, which stand for themselves by number."""

    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._numbers = {id(each): number for number, each in enumerate(kept)}

    def persistent_id(self, value: Any) -> int | None:
        return self._numbers.get(id(value))


class _Forker(pickle.Unpickler):
    """Puts others in the place of the objects that were kept."""

    def __init__(self, file: io.BytesIO, others: list[Any]) -> None:
        super().__init__(file)
        self._others = others

    def persistent_load(self, number: int) -> Any:
        return self._others[number]
