"""A machine description out of what a real machine shows: PCI tree, DMAR table, registers.

Functions become stand-ins with their identity, unless a device model has that identity. What a
description can't say, or the listing does not show, is left out and told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from devices.models.nic82576.registers import POOLS
from devices.models.nvme.function import MAX_VIRTUAL_FUNCTIONS
from devices.source_id import Bdf
from vtd.dmar.pci_tree import LAST_SEGMENT, Acs, PciFunction, PciTree, PciTreeError, SrIov
from vtd.dmar.platform_data import UnitRegisters
from vtd.dmar.records import DeviceScope, Drhd, Rmrr, ScopedStructure
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table
from vtd.machine.description import (
    BridgeKind,
    BusRange,
    DescribedBridge,
    DescribedFunction,
    DescribedRegion,
    DescribedSriov,
    DescribedSystemDevice,
    DescribedUnit,
    DescribedVmd,
    Machine,
    Slot,
)

KINDS = {
    4: BridgeKind.ROOT_PORT,
    5: BridgeKind.UPSTREAM_PORT,
    6: BridgeKind.DOWNSTREAM_PORT,
    7: BridgeKind.PCIE_TO_PCI,
    8: BridgeKind.PCI_TO_PCIE,
    None: BridgeKind.PCI_TO_PCI,
}
"""Kinds of bridges by the type in their express capability."""
MODELS = {
    (0x1234, 0x11E8): "edu",
    (0x8086, 0x0B25): "dsa",
    (0x8086, 0x10C9): "nic82576",
    (0x8086, 0x2021): "ioat",
    (0x1B36, 0x0005): "testdev",
    (0x1B36, 0x0010): "nvme",
}
"""Device models by vendor and device id."""
BASE = 0xFED9_0000
PROFILE = "xeon"
"""Where a unit is put, and what it can do, if the machine does not tell."""


@dataclass
class ListedMachine:
    """A description, and what about it was not to be known or could not be said."""

    machine: Machine
    notes: list[str] = field(default_factory=list)


def describe_listing(
    tree: PciTree,
    table: Table | None = None,
    registers: Mapping[int, UnitRegisters] | None = None,
) -> ListedMachine:
    """The description of a listed machine; PciTreeError if the tree has no place for something."""
    describer = _Describer(tree, table, registers or {})
    return ListedMachine(describer.machine(), describer.notes)


class _Describer:
    def __init__(
        self, tree: PciTree, table: Table | None, registers: Mapping[int, UnitRegisters]
    ) -> None:
        self.tree = tree
        self.table = table
        self.registers = registers
        self.notes: list[str] = []
        self.names = {
            bdf: _name(each)
            for bdf, each in tree.functions.items()
            if bdf.segment > LAST_SEGMENT or tree.physical_function(bdf) is None
        }

    def machine(self) -> Machine:
        functions = [self.tree.functions[bdf] for bdf in sorted(self.names)]
        hosts = {host for each in functions if (host := self._host(each)) is not None}
        bridges = tuple(self._bridge(each) for each in functions if each.is_bridge)
        return Machine(
            address_bits=self.table.header.address_bits if self.table else None,
            units=tuple(self._units()),
            regions=tuple(self._regions()),
            bridges=bridges,
            vmds=tuple(self._vmd(host) for host in sorted(hosts)),
            functions=tuple(
                self._function(each)
                for each in functions
                if not each.is_bridge and each.bdf not in hosts
            ),
        )

    def _host(self, function: PciFunction) -> Bdf | None:
        """The VMD endpoint of the domain that a function is in."""
        if function.bdf.segment <= LAST_SEGMENT:
            return None
        host = function.host or self.tree.vmd_hosts.get(function.bdf.segment)
        if host is None:
            raise PciTreeError(f"{function.bdf}: the VMD endpoint of its domain is not known")
        return host

    def _slot(self, bdf: Bdf) -> Slot:
        above = self.tree.bridge_above(bdf)
        source_id = bdf.source_id
        bus = (bdf.segment, source_id.bus) if above is None else self.names[above]
        return Slot(bus, source_id.device, source_id.function)

    def _bridge(self, bridge: PciFunction) -> DescribedBridge:
        if bridge.secondary_bus is None:
            raise PciTreeError(f"{bridge.bdf}: the bus behind it is not known")
        kind = KINDS.get(bridge.express_type)
        if kind is None or not bridge.express_known:
            self.notes.append(f"{bridge.bdf}: not a known kind of bridge, taken for pci_to_pci")
        acs = bridge.acs or Acs(0, 0)
        able = _acs_bits(acs.capability)
        return DescribedBridge(
            name=self.names[bridge.bdf],
            at=self._slot(bridge.bdf),
            kind=kind or BridgeKind.PCI_TO_PCI,
            acs=able,
            acs_enabled=tuple(each for each in _acs_bits(acs.control) if each in able)
            if able
            else None,
            buses=BusRange(
                bridge.secondary_bus, max(bridge.secondary_bus, bridge.subordinate_bus or 0)
            ),
            vendor_id=bridge.vendor_id or 0,
            device_id=bridge.device_id or 0,
        )

    def _function(self, function: PciFunction) -> DescribedFunction:
        sriov = function.sriov if function.sriov and function.sriov.total else None
        identity = function.vendor_id or 0, function.device_id or 0
        model, parameters = MODELS.get(identity), dict[str, Any]()
        if model is not None and sriov is not None:
            own = _virtual_functions(model, sriov)
            if own is None:
                self.notes.append(f"{function.bdf}: {model} can't have such virtual functions")
                model = None
            parameters = own or {}
        described = None
        if model is None:
            parameters = {
                "vendor_id": identity[0],
                "device_id": identity[1],
                "class_code": (function.class_code or 0) << 8,
            }
            if sriov is not None and sriov.offset:
                described = DescribedSriov(
                    total=sriov.total, first_offset=sriov.offset, stride=max(sriov.stride, 1)
                )
            elif function.express_known and function.express_type is None:
                parameters["express"] = False
        return DescribedFunction(
            name=self.names[function.bdf],
            at=self._slot(function.bdf),
            model=model or "inert",
            parameters=parameters,
            sriov=described,
            vfs=sriov.number if sriov is not None and (described or model) else 0,
        )

    def _vmd(self, host: Bdf) -> DescribedVmd:
        domains = [bdf.segment for bdf in self.names if bdf.segment > LAST_SEGMENT]
        domain = next(
            each
            for each in sorted(set(domains))
            if any(
                self._host(function) == host
                for bdf, function in self.tree.functions.items()
                if bdf.segment == each
            )
        )
        endpoint = self.tree.functions.get(host)
        return DescribedVmd(
            name=self.names.get(host, "vmd"),
            at=self._slot(host),
            domain=domain,
            device_id=(endpoint.device_id if endpoint else None) or 0x28C0,
        )

    def _units(self) -> Iterator[DescribedUnit]:
        if self.table is None:
            self.notes.append(f"no DMAR table: one unit a segment, as profile {PROFILE} has it")
            for number, segment in enumerate(sorted(self.tree.segments)):
                base = BASE + 0x10000 * number
                yield DescribedUnit(base=base, profile=PROFILE, segment=segment, include_all=True)
            return
        for unit in self.table.units:
            yield self._unit(unit)

    def _unit(self, unit: Drhd) -> DescribedUnit:
        known = self.registers.get(unit.register_base)
        if known is None:
            self.notes.append(f"unit at {unit.register_base:#x}: no registers, profile {PROFILE}")
        return DescribedUnit(
            base=unit.register_base,
            profile="" if known else PROFILE,
            version=known.ver if known else None,
            cap=int(known.cap) if known else None,
            ecap=int(known.ecap) if known else None,
            segment=unit.segment,
            include_all=bool(unit.flags.include_pci_all),
            devices=tuple(self._devices(unit)),
            io_apics=tuple(self._system_devices(unit, DeviceScope.IOAPIC)),
            hpets=tuple(self._system_devices(unit, DeviceScope.MSI_CAPABLE_HPET)),
        )

    def _system_devices(self, unit: Drhd, kind: int) -> Iterator[DescribedSystemDevice]:
        for entry in unit.scopes:
            if entry.type != kind:
                continue
            if len(entry.path) == 1:
                slot = Slot((unit.segment, entry.start_bus), *entry.path[0])
                yield DescribedSystemDevice(id=entry.enumeration_id, at=slot)
            else:
                self.notes.append(f"unit at {unit.register_base:#x}: left out: {entry}")

    def _regions(self) -> Iterator[DescribedRegion]:
        for region in self.table.all(Rmrr) if self.table else ():
            devices = tuple(self._devices(region))
            if devices:
                yield DescribedRegion(
                    start=region.base,
                    size=region.end - region.base,
                    devices=devices,
                    segment=region.segment,
                )

    def _devices(self, structure: ScopedStructure) -> Iterator[str]:
        """Names of the PCI functions in a scope; those that are not listed are told."""
        assert self.table is not None
        scopes = Scopes(self.table, self.tree)
        for entry in structure.scopes:
            if not entry.is_pci:
                continue
            bdf = scopes.resolve(structure.segment, entry)
            if bdf in self.names:
                yield self.names[bdf]
            else:
                self.notes.append(f"{structure.name}: not listed, left out: {entry}")


def _name(function: PciFunction) -> str:
    prefix = "bridge" if function.is_bridge else "function"
    return f"{prefix}-{function.bdf}".replace(":", "-")


def _acs_bits(value: int) -> tuple[str, ...]:
    names = ("sv", "tb", "rr", "cr", "uf", "ec", "dt")
    return tuple(name for bit, name in enumerate(names) if value >> bit & 1)


def _virtual_functions(model: str, sriov: SrIov) -> dict[str, Any] | None:
    """The parameters by which a model has its virtual functions there; None if it can't."""
    if model == "nic82576" and sriov.offset and sriov.stride and sriov.total <= POOLS:
        return {
            "total_vfs": sriov.total,
            "first_vf_offset": sriov.offset,
            "vf_stride": sriov.stride,
        }
    if (
        model == "nvme"
        and sriov.offset == sriov.stride == 1
        and sriov.total <= MAX_VIRTUAL_FUNCTIONS
    ):
        return {"vfs": sriov.total}
    return None
