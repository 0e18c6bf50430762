"""From a machine description to a machine: functions plugged in, units made, everything connected.

What can't be built is named with the key that says so. Bridges have bus numbers, bus mastering and
access control afterwards, as firmware and an operating system leave them; functions have what the
description says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from devices.capabilities import AcsCapabilities, AcsControl
from devices.clock import Clock
from devices.config_space import ConfigSpaceError
from devices.function import BME, Identity, PciFunction
from devices.models.inert import Inert
from devices.source_id import Bdf, SourceId
from devices.sriov import NumVfs, Sriov, SriovControl, SriovError, VirtualFunction
from devices.topology import Bridge, Topology, TopologyError
from pagetables.memory import MemoryLayoutError, PhysicalMemory
from pagetables.stores import ProcessorStores
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.table import Table
from vtd.machine.description import (
    ISOLATING,
    DescribedBridge,
    DescribedDeviceTlb,
    DescribedFunction,
    DescribedRegion,
    DescribedUnit,
    DescribedVmd,
    Machine,
    parse_slot,
)
from vtd.machine.firmware import make_table, platform_data
from vtd.machine.models import Models, make_function
from vtd.machine.placing import Part, parts_in_order
from vtd.machine.reading import Problems
from vtd.machine.units import SizedUnit, describe_units
from vtd.platform import Platform
from vtd.unit.options import Options

BRIDGE_CLASS, VMD_CLASS = 0x060400, 0x010400


class Assembly(NamedTuple):
    """A machine that runs."""

    machine: Machine
    platform: Platform
    functions: Mapping[str, PciFunction]
    """Functions and bridges by name, or by place where they have none."""
    units: tuple[SizedUnit, ...]
    table: Table
    """The DMAR table, generated."""
    surroundings: PlatformData
    """What can be known beside the table; some rules need it."""
    clock: Clock
    """The time of all device models."""
    stores: ProcessorStores | None = None
    """Memory as processors use it, if their stores wait."""


def assemble(
    machine: Machine,
    options: Options | None = None,
    *,
    memory: PhysicalMemory | None = None,
    clock: Clock | None = None,
    models: Models | None = None,
    stores_wait: bool = False,
    file: str = "",
) -> Assembly:
    """Build a machine; MachineError names everything that keeps it from being built.

    ``memory`` given is used with what is in it, beside the ranges of the description. ``options``
    are those of all units, ``models`` further device models. Requests of functions that no unit
    covers go past all units, as on a real machine. ``stores_wait``: what software stores in
    ``stores`` is seen by units that do not snoop once it is flushed.
    """
    problems = Problems(file)
    memory = memory or PhysicalMemory()
    clock = clock or Clock()
    parts = parts_in_order(machine, problems)
    units = describe_units(machine, problems)
    _add_memory(machine, memory, problems)
    made = {part.name: _made(part, memory, models or {}, problems) for part in parts}
    problems.check()
    functions = {name: function for name, function in made.items() if function is not None}
    for part in parts:
        try:
            functions[part.name].clock = clock
        except ValueError as error:  # of a link that is for the machine, not for one function
            problems.add(part.where, "parameters", str(error))
    topology = Topology()
    hosts = {vmd.domain: functions[vmd.name] for vmd in machine.vmds}
    for part in parts:
        _plug(part, functions, topology, hosts)
    _number(parts, functions, topology, problems)
    _check_devices(machine, functions, topology, units, problems)
    problems.check()
    table = make_table(machine, topology, units, functions)
    capabilities = {each.unit.base: each.capabilities for each in units}
    stores = ProcessorStores(memory) if stores_wait else None
    platform = Platform.build(
        memory, topology, table, capabilities, options, unremapped=True, stores=stores
    )
    for part in parts:
        _switch_on(part, functions[part.name])
    surroundings = platform_data(topology, units)
    return Assembly(machine, platform, functions, tuple(units), table, surroundings, clock, stores)


def _add_memory(machine: Machine, memory: PhysicalMemory, problems: Problems) -> None:
    for each in machine.memory:
        try:
            memory.add_region(each.start, each.size, read_only=each.read_only)
        except MemoryLayoutError as error:
            problems.add(each.where, "", str(error))


def _made(
    part: Part, memory: PhysicalMemory, models: Models, problems: Problems
) -> PciFunction | None:
    if isinstance(part.made_of, DescribedFunction):
        function = make_function(part.made_of, memory, models, problems)
        if function is not None:
            _virtualize(part.made_of, function, problems)
            _put_device_tlbs(part.made_of, function, problems)
        return function
    if isinstance(part.made_of, DescribedVmd):
        return Inert(device_id=part.made_of.device_id, class_code=VMD_CLASS)
    return _bridge(part.made_of, problems)


def _bridge(described: DescribedBridge, problems: Problems) -> Bridge:
    identity = Identity(described.vendor_id, described.device_id, BRIDGE_CLASS)
    bridge = Bridge(identity, described.kind.port_type)
    if described.acs:
        if described.kind.port_type is None:
            problems.add(described.where, "acs", "a conventional bridge has no such capability")
        bridge.add_acs(AcsCapabilities.of(**dict.fromkeys(described.acs, 1)))
    for name in described.acs_enabled or ():
        if name not in described.acs:
            problems.add(described.where, "acs_enabled", f"{name} is not in acs")
    return bridge


def _virtualize(described: DescribedFunction, function: PciFunction, problems: Problems) -> None:
    """Give a function the virtual functions that the description asks for."""
    asked = described.sriov
    if asked is not None and function.sriov is not None:
        text = f"{described.model} has its own; see its parameters"
        problems.add(described.where, "sriov", text)
    elif asked is not None:
        try:
            Sriov(
                function,
                total_vfs=asked.total,
                first_offset=asked.first_offset,
                stride=asked.stride,
                vf_device_id=asked.device_id,
            )
        except (SriovError, ConfigSpaceError) as error:
            problems.add(described.where, "sriov", str(error))
    total = 0 if function.sriov is None else function.sriov.total.value.count
    if described.vfs > total:
        problems.add(described.where, "vfs", f"{described.vfs} of {total} virtual functions")


def _put_device_tlbs(
    described: DescribedFunction, function: PciFunction, problems: Problems
) -> None:
    try:
        if described.ats is not None:
            described.ats.put(function)
    except ValueError as error:
        problems.add(described.where, "ats", str(error))
    if described.vf_ats is not None:
        if function.sriov is None:
            problems.add(described.where, "vf_ats", "there are no virtual functions")
        else:
            make = function.sriov.make
            function.sriov.make = partial(_made_with_device_tlb, make, described.vf_ats)


def _made_with_device_tlb(
    make: Callable[[Sriov, int], VirtualFunction],
    tlb: DescribedDeviceTlb,
    sriov: Sriov,
    index: int,
) -> VirtualFunction:
    function = make(sriov, index)
    tlb.put(function)
    return function


def _plug(
    part: Part,
    functions: Mapping[str, PciFunction],
    topology: Topology,
    hosts: Mapping[int, PciFunction],
) -> None:
    """Plug a part in; ``hosts`` are VMD endpoints by their domain."""
    at = part.at
    if isinstance(at.bus, str):
        bridge = functions[at.bus]
        assert isinstance(bridge, Bridge)  # as placing checked
        bus = topology.bus_behind(bridge)
    else:
        known = {(bus.segment, bus.number): bus for bus in topology.roots}
        bus = known.get(at.bus) or topology.add_root_bus(*at.bus, host=hosts.get(at.bus[0]))
    function = functions[part.name]
    topology.add(function, bus, at.device, at.function)
    if function.sriov is not None:
        topology.add_sriov(function.sriov)


def _number(
    parts: list[Part],
    functions: Mapping[str, PciFunction],
    topology: Topology,
    problems: Problems,
) -> None:
    """Assign bus numbers; no two functions, virtual ones included, may have one id."""
    given = {}
    for part in parts:
        bridge, buses = functions[part.name], None
        if isinstance(part.made_of, DescribedBridge):
            buses = part.made_of.buses
        if buses is not None and isinstance(bridge, Bridge):
            given[bridge] = range(buses.first, buses.last + 1)
    try:
        topology.assign_bus_numbers(given)
    except TopologyError as error:
        part = next(each for each in parts if functions[each.name] is error.function)
        problems.add(part.where, "sriov" if part.kind is None else "buses", str(error))
        return
    taken: dict[Bdf, str] = {}
    for part in parts:
        bdf = topology.bdf(functions[part.name])
        other = taken.setdefault(bdf, part.name)
        if other != part.name:
            problems.add(part.where, "at", f"its bus number makes it {bdf}, as {other} is")
    _number_virtual(parts, functions, topology, taken, problems)


def _number_virtual(
    parts: list[Part],
    functions: Mapping[str, PciFunction],
    topology: Topology,
    taken: dict[Bdf, str],
    problems: Problems,
) -> None:
    """Each virtual function has an id of its own, on a bus that leads there if it is on."""
    for part in parts:
        function = functions[part.name]
        above = next(topology.bridges_above(function), None)
        last = 0xFF if above is None else above.buses.value.subordinate
        ids = _virtual_ids(function, topology)
        enabled = part.made_of.vfs if isinstance(part.made_of, DescribedFunction) else 0
        if enabled and ids[enabled - 1] >> 8 > last:
            name = next(name for name, each in functions.items() if each is above)
            text = f"virtual functions need bus {ids[enabled - 1] >> 8:#x}, the last one behind"
            problems.add(part.where, "vfs", f"{text} {name} is {last:#x}")
            continue
        segment = topology.bdf(function).segment
        for bdf in [Bdf(segment, SourceId(each)) for each in ids if each >> 8 <= last]:
            if bdf in taken:
                text = f"a virtual function would be {bdf}, as {taken[bdf]} is"
                problems.add(part.where, "sriov", text)
                break
            taken[bdf] = f"one of {part.name}"


def _virtual_ids(function: PciFunction, topology: Topology) -> list[int]:
    """The ids that virtual functions of a function have, or would have."""
    if function.sriov is None:
        return []
    own = topology.bdf(function).source_id
    return [own + offset for offset in function.sriov.offsets]


def _check_devices(
    machine: Machine,
    functions: Mapping[str, PciFunction],
    topology: Topology,
    units: list[SizedUnit],
    problems: Problems,
) -> None:
    """Whether the devices of units and regions are there, in their segment."""
    named: tuple[DescribedUnit | DescribedRegion, ...] = (*machine.units, *machine.regions)
    for each in named:
        for name in each.devices:
            function = find(functions, name)
            if function is None:
                problems.add(each.where, "devices", f"there is no {name}")
            elif topology.bdf(function).segment != each.segment:
                text = f"{name} is not in segment {each.segment:04x}"
                problems.add(each.where, "devices", text)
    for unit in machine.units:
        for device in (*unit.io_apics, *unit.hpets):
            if isinstance(device.at.bus, str) or device.at.bus[0] != unit.segment:
                problems.add(device.where, "at", "not on a root bus of the unit's segment")
    width = units[0].capabilities.host_address_width
    for region in machine.regions:
        if region.start + region.size > 1 << width:
            problems.add(region.where, "size", f"reaches beyond {width} address bits")


def find(functions: Mapping[str, PciFunction], name: str) -> PciFunction | None:
    """The function of a name, or at a place on a root bus or behind a bridge."""
    try:
        return functions.get(name) or functions.get(str(parse_slot(name)))
    except ValueError:
        return None


def _switch_on(part: Part, function: PciFunction) -> None:
    """What firmware and an operating system have done to a function before it is used."""
    made_of = part.made_of
    if isinstance(made_of, DescribedFunction):
        sriov = function.sriov
        if sriov is not None and made_of.vfs:
            function.config.write(sriov.count.offset, 2, NumVfs.of(count=made_of.vfs))
            on = SriovControl.of(vf_enable=1, vf_mse=1)
            function.config.write(sriov.control.offset, 2, on)
        masters = (function, *(sriov.functions if sriov else ()))
    elif isinstance(made_of, DescribedVmd):
        masters = (function,)
    else:
        enabled = made_of.acs_enabled
        if function.acs is not None:
            bits = enabled if enabled is not None else set(made_of.acs) & set(ISOLATING)
            function.acs.control.value = AcsControl.of(**dict.fromkeys(bits, 1))
        masters = (function,)
    for each in masters if made_of.bus_master else ():
        each.config.write(4, 2, each.command.value | BME)
