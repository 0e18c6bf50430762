"""The DMAR table that firmware of a machine would write, and what our rules say about it.

VT-d chapter 8. Root ports with functions below that have a device-TLB get an ATSR structure (8.5).
Affinity, namespace devices and integrated translation caches are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from devices.capabilities import ExtendedCapabilityId, PortType
from devices.function import PciFunction
from devices.sriov import VirtualFunction
from devices.topology import Bridge, Topology
from vtd.dmar.pci_tree import LAST_SEGMENT, Acs, PciTree, SrIov
from vtd.dmar.pci_tree import PciFunction as ListedFunction
from vtd.dmar.platform_data import PlatformData, UnitRegisters
from vtd.dmar.records import (
    Atsr,
    DeviceScope,
    Drhd,
    DrhdFlags,
    DrhdSize,
    Header,
    HeaderFlags,
    Rmrr,
    Structure,
)
from vtd.dmar.table import Table
from vtd.machine.description import DescribedSystemDevice, Machine, parse_slot
from vtd.machine.units import SizedUnit

OEM = {
    "oem_id": b"VTD   ",
    "oem_table_id": b"MACHINE ",
    "oem_revision": 1,
    "creator_id": b"VTD ",
    "creator_revision": 1,
}

Functions = Mapping[str, PciFunction]
"""Functions by the name or place that a description gives them."""


def make_table(
    machine: Machine, topology: Topology, units: list[SizedUnit], functions: Functions
) -> Table:
    """The table; units with INCLUDE_PCI_ALL come last (8.3)."""

    def scope(name: str) -> DeviceScope:
        return _scope(topology, functions.get(name) or functions[str(parse_slot(name))])

    structures: list[Structure] = []
    for unit, _, window in sorted(units, key=lambda each: each.unit.include_all):
        structures.append(
            Drhd(
                flags=DrhdFlags.of(include_pci_all=unit.include_all),
                size=DrhdSize.of(n=(window >> 12).bit_length() - 1),
                segment=unit.segment,
                register_base=unit.base,
                scopes=(
                    *map(scope, unit.devices),
                    *(_system_scope(DeviceScope.IOAPIC, each) for each in unit.io_apics),
                    *(_system_scope(DeviceScope.MSI_CAPABLE_HPET, each) for each in unit.hpets),
                ),
            )
        )
    structures += [
        Rmrr(
            segment=region.segment,
            base=region.start,
            limit=region.start + region.size - 1,
            scopes=tuple(map(scope, region.devices)),
        )
        for region in machine.regions
    ]
    structures += _root_ports(topology)
    flags = HeaderFlags.of(
        intr_remap=all(each.capabilities.ecap.ir for each in units),
        x2apic_opt_out=machine.x2apic_opt_out,
        dma_ctrl_platform_opt_in=machine.dma_protection_opt_in,
    )
    width = units[0].capabilities.host_address_width
    header = Header(host_address_width=width - 1, flags=flags, **OEM)  # type: ignore[arg-type]
    return Table(header, tuple(structures)).sealed()


def _scope(topology: Topology, function: PciFunction) -> DeviceScope:
    bridge = isinstance(function, Bridge)
    kind = DeviceScope.PCI_SUB_HIERARCHY if bridge else DeviceScope.PCI_ENDPOINT
    bus, path = topology.path(function)
    return DeviceScope.of(kind, path, start_bus=bus)


def _system_scope(kind: int, device: DescribedSystemDevice) -> DeviceScope:
    bus, number, function = device.at
    assert not isinstance(bus, str)  # as assembly checked
    path = ((number, function),)
    return DeviceScope.of(kind, path, start_bus=bus[1], enumeration_id=device.id)


def _root_ports(topology: Topology) -> Iterator[Atsr]:
    """Root ports under which device-TLBs are allowed, by segment."""
    for segment in _segments(topology):
        if segment > LAST_SEGMENT:  # no table can name it
            continue
        ports: dict[PciFunction, None] = {}
        for function in topology.functions(segment):
            if _has(function, ExtendedCapabilityId.ATS):
                above = list(topology.bridges_above(function))
                if above and above[-1].port_type is PortType.ROOT_PORT:
                    ports[above[-1]] = None
        if ports:
            scopes = tuple(_scope(topology, port) for port in ports)
            yield Atsr(segment=segment, scopes=scopes)


def _segments(topology: Topology) -> list[int]:
    return sorted({bus.segment for bus in topology.roots})


def _has(function: PciFunction, capability: ExtendedCapabilityId) -> bool:
    return function.config.find_extended_capability(capability) is not None


def platform_data(topology: Topology, units: list[SizedUnit]) -> PlatformData:
    """What a tool that looks at the running machine would know beside the table."""
    functions = (
        _listed(topology, each)
        for segment in _segments(topology)
        for each in topology.functions(segment)
    )
    registers = {
        unit.base: UnitRegisters(known.cap, known.ecap, int(known.version))
        for unit, known, _ in units
    }
    io_apics = frozenset(each.id for unit, _, _ in units for each in unit.io_apics)
    hpets = frozenset(each.id for unit, _, _ in units for each in unit.hpets)
    return PlatformData(io_apics=io_apics, hpets=hpets, pci=PciTree(functions), registers=registers)


def _listed(topology: Topology, function: PciFunction) -> ListedFunction:
    identity = function.identity
    bridge = function if isinstance(function, Bridge) else None
    bdf = topology.bdf(function)
    physical = function.sriov.physical if isinstance(function, VirtualFunction) else None
    acs = function.acs
    own = None if physical else function.sriov
    return ListedFunction(
        bdf,
        class_code=identity.class_code >> 8,
        secondary_bus=bridge.secondary if bridge else None,
        subordinate_bus=bridge.buses.value.subordinate if bridge else None,
        express_type=None if function.pcie is None else function.pcie.port_type,
        physical_function=topology.bdf(physical) if physical else None,
        host=topology.physical_function(bdf) if bdf.segment > LAST_SEGMENT else None,
        sriov=None
        if own is None
        else SrIov(
            own.routing.value.first_offset,
            own.routing.value.stride,
            len(own.functions),
            own.total.value.count,
        ),
        acs=None if acs is None else Acs(acs.capabilities.value, acs.control.value),
        vendor_id=identity.vendor_id,
        device_id=identity.device_id,
    )
