"""Which unit a device belongs to, and that a platform's state is one value with the same future."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.ats import AtsAgent, put_device_tlb
from devices.bridged_port import BridgedPort
from devices.capabilities import AcsCapabilities, ExtendedCapabilityId, PortType
from devices.config_space import BusNumbers
from devices.dma import (
    READ,
    WRITE,
    AddressType,
    Completion,
    CompletionStatus,
    DmaPort,
    InvalidationRequest,
    PageGroupResponse,
    Request,
)
from devices.function import Identity, PciFunction
from devices.models.edu import Edu
from devices.source_id import SourceId
from devices.sriov import Sriov, VirtualFunction
from devices.topology import Bridge, Topology
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import second_stage_geometry
from pagetables.memory import BusError, PhysicalMemory
from vtd.dmar.description import build
from vtd.dmar.table import Table, TableError
from vtd.layouts.descriptors import DeviceTlbInvalidateDescriptor
from vtd.layouts.entries import AddressWidth, ContextEntry, RootEntry
from vtd.layouts.registers import (
    ContextCommand,
    GlobalCommand,
    GlobalStatus,
    IotlbInvalidate,
    RootTableAddress,
)
from vtd.platform import Platform, PlatformError, RoutedPort
from vtd.software.domain import SECOND_STAGE
from vtd.software.driver import Driver
from vtd.software.registers import start, write
from vtd.unit.caching.cache import Replacement, Shape
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, CachePolicy
from vtd.unit.interrupts.outcome import Interrupt
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.reporting.events import Event, RequestBlocked
from vtd.unit.unit import RemappingUnit

GRAPHICS, OTHERS = 0xFED9_0000, 0xFED9_1000
TWO_UNITS = f"""
[header]
address_bits = 48

[[structure]]
type = "DRHD"
register_base = {GRAPHICS:#x}
[[structure.scope]]
type = 1
path = ["2.0"]

[[structure]]
type = "DRHD"
flags = 1
register_base = {OTHERS:#x}
[[structure.scope]]
type = 3
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
[[structure.scope]]
type = 4
start_bus = 0
path = ["1e.6"]
"""
ROOT, CONTEXT, TABLES, DATA = 0x1000, 0x2000, 0x10_0000, 0x20_0000
QEMU = PROFILES["qemu"]
UR = CompletionStatus.UNSUPPORTED_REQUEST


def table(text: str = TWO_UNITS) -> Table:
    return build(text)


def machine(options: Options | None = None) -> tuple[Platform, PciFunction, PciFunction]:
    """Two units; a graphics device at 00:02.0 and another at 00:03.0."""
    memory = PhysicalMemory()
    memory.add_region(0, 16 << 20)
    topology = Topology()
    bus = topology.add_root_bus()
    graphics, other = Edu(), Edu()
    topology.add(graphics, bus, 2)
    topology.add(other, bus, 3)
    return Platform.build(memory, topology, table(), QEMU, options), graphics, other


def source_id(function: PciFunction) -> int:
    way = function.port.way()
    at_root = way.root_port if isinstance(way, BridgedPort) else way
    assert isinstance(at_root, UnitPort)
    return at_root.source_id


@pytest.mark.section("3.3")
def test_the_device_scope_decides_which_unit_a_device_has() -> None:
    platform, graphics, other = machine()
    assert platform.unit_of(graphics) is platform.units[GRAPHICS]
    assert platform.unit_of(other) is platform.units[OTHERS]
    assert source_id(graphics) == 0x10
    assert source_id(other) == 0x18


def test_a_fault_is_recorded_by_the_unit_of_the_device_and_by_no_other() -> None:
    platform, graphics, _ = machine()
    for unit in platform.units.values():
        start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT)
    graphics.command.value = graphics.command.value.replace(bme=True)
    assert not graphics.dma.read(0x5000, 4).ok
    assert platform.units[GRAPHICS].read_register(0x34, 4) == 2
    assert platform.units[OTHERS].read_register(0x34, 4) == 0


def test_a_platform_that_wakes_up_has_every_unit_and_function_as_after_power_on() -> None:
    platform, graphics, _ = machine()
    fresh = platform.snapshot()
    for unit in platform.units.values():
        start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT)
    graphics.command.value = graphics.command.value.replace(bme=True)
    platform.suspend()
    assert all(unit.read_register(0x1C, 4) == 0xFFFF_FFFF for unit in platform.units.values())
    platform.resume()
    assert platform.snapshot() == fresh
    assert not graphics.command.value.bme


def test_sticky_fields_outlast_a_reset_of_the_platform_without_loss_of_power() -> None:
    platform, graphics, _ = machine()
    unit = platform.units[GRAPHICS]
    start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT)
    graphics.command.value = graphics.command.value.replace(bme=True)
    assert not graphics.dma.read(0x5000, 4).ok
    platform.reset(power_good=False)
    assert (unit.read_register(0x34, 4), unit.read_register(0x1C, 4)) == (2, 0)


def test_a_root_port_lets_pass_what_it_is_programmed_for() -> None:
    platform, _, _ = machine()
    topology = platform.topology
    port = Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.ROOT_PORT)
    acs = port.add_acs(AcsCapabilities(0x5F))
    topology.add(port, topology.roots[0], 0x1C)
    topology.assign_bus_numbers()
    behind = Edu()
    topology.add(behind, topology.bus_behind(port), 0)
    platform.connect()
    assert behind.port.read(DATA, 4).status is CompletionStatus.UNSUPPORTED_REQUEST
    port.config.write(4, 2, 4)  # bus master enable
    assert behind.port.read(DATA, 4).ok
    acs.control.value = acs.control.value.replace(sv=1, tb=1)
    assert behind.port.write(DATA, b"dma!").ok
    assert behind.port.read_translated(DATA, 4).status is CompletionStatus.COMPLETER_ABORT
    port.buses.value = port.buses.value.replace(secondary=2, subordinate=2)
    platform.connect()
    port.buses.value = port.buses.value.replace(secondary=3, subordinate=3)
    assert behind.port.read(DATA, 4).ok  # its requests carry the number that its bus has now


def test_requests_behind_a_bridge_to_conventional_pci_carry_the_id_of_its_bus() -> None:
    platform, _, _ = machine()
    topology = platform.topology
    bridge = Bridge(Identity(0x8086, 0x244E, 0x060400), PortType.PCIE_TO_PCI_BRIDGE)
    topology.add(bridge, topology.roots[0], 0x1C)
    topology.assign_bus_numbers()
    behind = Edu()
    topology.add(behind, topology.bus_behind(bridge), 5)
    platform.connect()
    assert platform.unit_of(behind) is platform.units[OTHERS]
    assert source_id(behind) == bridge.secondary << 8
    bridge.buses.value = BusNumbers.of(primary=0, secondary=9, subordinate=9)
    platform.connect()
    assert source_id(behind) == 0x900


class Client:
    """A device-TLB that remembers what it is sent."""

    def __init__(self) -> None:
        self.sent: list[InvalidationRequest] = []

    def invalidate(self, request: InvalidationRequest) -> None:
        self.sent.append(request)

    def page_response(self, response: PageGroupResponse) -> None:
        raise AssertionError(response)


def virtual(sriov: Sriov, index: int) -> VirtualFunction:
    """A virtual function with a device-TLB."""
    function = VirtualFunction(sriov, index)
    function.client = Client()
    return function


class Machine:
    """A platform whose requests all end as faults that show where they arrived.

    A device at the root, a root port with one device behind it, and a physical function there.
    """

    def __init__(self) -> None:
        self.platform, _, self.direct = machine()
        self.topology = self.platform.topology
        self.bridge = Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.ROOT_PORT)
        self.acs = self.bridge.add_acs(AcsCapabilities(0x5F))
        self.topology.add(self.bridge, self.topology.roots[0], 0x1C)
        self.topology.assign_bus_numbers()
        bus = self.topology.bus_behind(self.bridge)
        self.behind, physical = Edu(), PciFunction(Identity(0x1234, 0x11E9, 0x00FF00))
        self.sriov = Sriov(
            physical, total_vfs=3, first_offset=0x10, stride=1, vf_device_id=1, make=virtual
        )
        for function in (self.direct, self.behind, physical):
            function.client = Client()
        self.topology.add(self.behind, bus, 0)
        self.topology.add(physical, bus, 1)
        self.topology.add_sriov(self.sriov)
        self.virtual: list[PciFunction] = []
        """Every virtual function that there ever was."""
        self.arrived: list[tuple[int, int]] = []
        self.platform.connect()  # the first device had no device-TLB when it was plugged in
        for base, unit in self.platform.units.items():
            start(unit, GlobalStatus.of(rtps=True, tes=True), ROOT)
            unit.subscribe(partial(self._note, base))

    def _note(self, base: int, event: Event) -> None:
        if isinstance(event, RequestBlocked):
            self.arrived.append((base, event.request.source_id))

    @property
    def functions(self) -> list[PciFunction]:
        """All of them, plugged in or not any more."""
        return [self.direct, self.behind, self.sriov.physical, *self.virtual]

    def enable_vfs(self, count: int) -> None:
        """Take away the virtual functions that there are and make others."""
        config, sriov = self.sriov.physical.config, self.sriov
        config.write(sriov.control.offset, 2, 0)
        config.write(sriov.count.offset, 2, count)
        if count:
            config.write(sriov.control.offset, 2, 1)
        self.virtual += sriov.functions

    def renumber(self, secondary: int) -> None:
        """Program the bridge with another bus number."""
        buses = self.bridge.buses
        buses.value = buses.value.replace(secondary=secondary, subordinate=secondary)

    def send(self, port: DmaPort, kind: AddressType) -> tuple[CompletionStatus, Any]:
        """The outcome of a request, and where it arrived: register base and source-id."""
        self.arrived.clear()
        completion = port.request(Request(0xFFFF, DATA, READ, 8, address_type=kind))
        return completion.status, list(self.arrived)

    def expected(self, function: PciFunction, kind: AddressType) -> tuple[CompletionStatus, Any]:
        """The same, as the tree is now, through ports that are made anew."""
        gone = function in self.virtual and function not in self.sriov.functions
        if gone or not function.command.value.bme:
            return CompletionStatus.UNSUPPORTED_REQUEST, []
        return self.send(self.platform.port_of(function), kind)


changes = st.one_of(
    st.tuples(st.just("function"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("function"), st.integers(0, 5), st.just(True)),
    st.tuples(st.just("bridge"), st.sampled_from([True, True, False])),
    st.tuples(st.just("acs"), st.booleans(), st.booleans()),
    st.tuples(st.just("renumber"), st.integers(1, 9)),
    st.tuples(st.just("vfs"), st.integers(0, 3)),
    st.tuples(st.just("reset")),
)


def change_way(m: Machine, change: Any) -> None:
    """What software does to the way of requests."""
    match change:
        case ("function", number, on):
            functions = m.functions
            functions[number % len(functions)].config.write(4, 2, 4 * on)
        case ("bridge", on):
            m.bridge.config.write(4, 2, 4 * on)
        case ("acs", validation, blocking):
            m.acs.control.value = m.acs.control.value.replace(sv=validation, tb=blocking)
        case ("renumber", number):
            m.renumber(number)
        case ("vfs", count):
            m.enable_vfs(count)
        case _:
            m.sriov.physical.reset()


@given(st.lists(changes, max_size=25))
def test_every_change_of_the_way_takes_effect_at_the_next_request(program: list[Any]) -> None:
    m = Machine()
    for change in program:
        change_way(m, change)
        for function in m.functions:
            for kind in AddressType:
                expected = m.expected(function, kind)
                assert m.send(function.dma, kind) == expected
                assert m.send(function.dma, kind) == expected  # now that the way is known


def test_a_virtual_function_that_is_disabled_reaches_nothing() -> None:
    m = Machine()
    m.bridge.config.write(4, 2, 4)
    m.enable_vfs(2)
    first, second = m.sriov.functions
    for function in (first, second):
        function.config.write(4, 2, 4)
    assert m.send(first.dma, AddressType.UNTRANSLATED) == (UR, [(OTHERS, 0x0118)])
    assert m.send(second.port, AddressType.UNTRANSLATED) == (UR, [(OTHERS, 0x0119)])
    m.enable_vfs(0)
    for function in (first, second):
        for port in (function.dma, function.port):
            assert m.send(port, AddressType.UNTRANSLATED) == (UR, [])


def test_a_bridge_that_is_added_later_carries_what_is_plugged_in_behind_it() -> None:
    m = Machine()
    port = Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.ROOT_PORT)
    m.topology.add(port, m.topology.roots[0], 0x1D)
    port.buses.value = BusNumbers.of(primary=0, secondary=7, subordinate=7)
    late = Edu()
    m.topology.add(late, m.topology.bus_behind(port), 2)
    late.config.write(4, 2, 4)
    assert m.send(late.dma, AddressType.UNTRANSLATED) == (UR, [])
    port.config.write(4, 2, 4)
    assert m.send(late.dma, AddressType.UNTRANSLATED) == (UR, [(OTHERS, 0x0710)])


def test_the_way_leads_past_bridges_that_stop_nothing() -> None:
    m = Machine()
    assert isinstance(m.direct.port.way(), UnitPort)
    assert isinstance(m.behind.port.way(), BridgedPort)
    m.bridge.config.write(4, 2, 4)
    assert isinstance(m.behind.port.way(), UnitPort)
    m.acs.control.value = m.acs.control.value.replace(tb=1)
    assert isinstance(m.behind.port.way(), BridgedPort)


def test_a_function_that_no_unit_covers_reaches_nothing() -> None:
    m = Machine()
    stranger = Edu()
    m.topology.add(stranger, m.topology.add_root_bus(segment=1), 4)
    stranger.config.write(4, 2, 4)
    assert m.send(stranger.dma, AddressType.UNTRANSLATED) == (UR, [])
    with pytest.raises(PlatformError, match=r"0001:00:04\.0: no unit covers it"):
        m.platform.connect()


def test_messages_for_a_device_tlb_reach_the_device() -> None:
    platform, graphics, _ = machine()
    client = graphics.client = Client()
    platform.connect()
    descriptor = DeviceTlbInvalidateDescriptor.of(sid=0x10, addr=0x7000)
    platform.units[OTHERS].devices.invalidate(descriptor)
    assert client.sent == []
    platform.units[GRAPHICS].devices.invalidate(descriptor)
    assert [request.address for request in client.sent] == [0x7000]


@given(st.lists(changes, max_size=12))
def test_messages_follow_the_source_ids_of_device_tlbs(program: list[Any]) -> None:
    m = Machine()
    for change in program:
        change_way(m, change)
        for function in (m.direct, m.behind, m.sriov.physical, *m.sriov.functions):
            source_id = m.topology.requester_id(function)
            descriptor = DeviceTlbInvalidateDescriptor.of(sid=source_id, addr=0x7000)
            devices = m.platform.unit_of(function).devices
            devices.invalidate(descriptor)
            clients = {each: each.client for each in m.functions}
            told = [
                each
                for each, client in clients.items()
                if isinstance(client, Client) and client.sent
            ]
            assert told == [function]
            assert isinstance(function.client, Client)
            for sent in function.client.sent:
                devices.complete(source_id, 1 << sent.itag, 1)
            function.client.sent.clear()


def test_system_devices_have_the_source_ids_of_their_scopes() -> None:
    platform, _, _ = machine()
    assert platform.io_apic_port(2).source_id == 0xF0F8
    assert [port.source_id for port in platform.hpet_ports(0)] == [0xF6]
    for broken in (
        lambda: platform.io_apic_port(1),
        lambda: platform.hpet_ports(1),
        lambda: platform.namespace_ports("\\_SB.UART"),
    ):
        with pytest.raises(PlatformError, match="no device scope"):
            broken()


def test_a_table_may_be_given_as_bytes() -> None:
    topology = Topology()
    topology.add(Edu(), topology.add_root_bus(), 4)
    platform = Platform.build(PhysicalMemory(), topology, table().pack(), QEMU)
    assert platform.scopes.table == table()
    assert set(platform.units) == {GRAPHICS, OTHERS}
    with pytest.raises(TableError, match="0 bytes given"):
        Platform.build(PhysicalMemory(), topology, b"", QEMU)


def test_a_device_that_no_unit_covers_is_named() -> None:
    topology = Topology()
    topology.add(Edu(), topology.add_root_bus(segment=1), 4)
    with pytest.raises(PlatformError, match=r"0001:00:04\.0: no unit covers it"):
        Platform.build(PhysicalMemory(), topology, table(), QEMU)


@given(
    st.integers(0, 0xFFF) | st.integers(0xFEE0_0000, 0xFEE0_1000),
    st.binary(max_size=8),
    st.sampled_from(AddressType),
)
def test_a_function_that_no_unit_covers_may_go_past_all_units(
    address: int, data: bytes, kind: AddressType
) -> None:
    memory, topology, stranger = PhysicalMemory(), Topology(), Edu()
    memory.add_region(0, 0x1000)
    topology.add(stranger, topology.add_root_bus(segment=1), 4)
    platform = Platform.build(memory, topology, table(), QEMU, unremapped=True)
    start(platform.units[OTHERS], GlobalStatus.of(rtps=True, tes=True, ires=True), ROOT)
    stranger.command.value = stranger.command.value.replace(bme=True)
    request = Request(0, address, WRITE, len(data), address_type=kind, payload=data)
    answer = stranger.port.request(request)
    if address >= 0xFEE0_0000:
        interrupts = len(data) == 4 and not address & 3 and kind is AddressType.UNTRANSLATED
        assert isinstance(answer.interrupt, Interrupt) == answer.ok == interrupts
    elif answer.ok:
        assert memory.read(address, len(data)) == data
    else:
        assert kind & 1 or address + len(data) > 0x1000
    assert not platform.units[OTHERS].read_register(0x34, 4)
    spoofed = platform.port_as(stranger, SourceId(0x10)).write(8, b"as another")
    assert spoofed.ok
    with pytest.raises(PlatformError, match=r"0001:00:04\.0: no unit covers it"):
        platform.unit_of(stranger)


def test_units_and_structures_have_to_agree() -> None:
    memory, topology = PhysicalMemory(), Topology()
    unit = RemappingUnit(QEMU, memory)
    with pytest.raises(PlatformError, match="0xfed91000 has no unit"):
        Platform(memory, topology, table(), {GRAPHICS: unit})
    units = {GRAPHICS: unit, OTHERS: unit, 0x1000: unit}
    with pytest.raises(PlatformError, match="0x1000 is in no DRHD"):
        Platform(memory, topology, table(), units)
    with pytest.raises(PlatformError, match="0xfed91000: no capabilities"):
        Platform.build(memory, topology, table(), {GRAPHICS: QEMU})


def test_capabilities_that_contradict_themselves_are_refused() -> None:
    wrong = Capabilities.of(0x10, QEMU.cap, QEMU.ecap & ~2, 48)
    with pytest.raises(PlatformError, match="IR is set without QI"):
        Platform.build(PhysicalMemory(), Topology(), table(), wrong)


# State: what happens after restoring is what happened before.

Action = tuple[str, Any]

addresses = st.integers(0, 11).map(lambda page: 0x40_0000 + page * 0x1000)
actions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "write", "admit read", "admit write"]), addresses),
        st.tuples(st.just("map"), addresses),
        st.tuples(st.just("unmap"), addresses),
        st.tuples(st.just("protect"), addresses),
        st.tuples(st.just("invalidate"), st.sampled_from(["context", "global", "page"])),
        st.tuples(st.just("switch"), st.booleans()),
        st.tuples(st.just("clear fault"), st.none()),
    ),
    max_size=25,
)
small = Shape(ways=2, sets=2, replacement=Replacement.RANDOM, seed=3)
policies = st.sampled_from(
    [KEEPS_STALE, AGGRESSIVE, CachePolicy(small, small, small, small, small)]
)


class Software:
    """The tables of one domain, and a device that uses them."""

    def __init__(self, platform: Platform, device: PciFunction) -> None:
        self.platform = platform
        self.unit = platform.unit_of(device)
        self.device = device
        self.iotlb = self.unit.capabilities.iotlb_offset + 8
        memory, implementation = platform.memory, self.unit.capabilities.implementation
        self.tables = TableBuilder(
            memory,
            second_stage_geometry(4, implementation),
            FramePool(TABLES, DATA),
            largest=12,
        )
        entry = ContextEntry.of(
            p=True, ssptptr=self.tables.root << 12, aw=AddressWidth.AGAW_48, did=5
        )
        memory.write(ROOT, RootEntry.of(p=True, ctp=CONTEXT).pack())
        memory.write(CONTEXT + source_id(device) * 16, entry.pack())
        self.tables.map(0x40_0000, DATA, 0xC000)
        device.command.value = device.command.value.replace(bme=True)
        start(self.unit, GlobalStatus.of(rtps=True, tes=True), ROOT)

    def do(self, action: Action) -> Any:
        """Carry out an action; what the device or the software sees of it."""
        match action:
            case ("read", address):
                return self.device.dma.read(address, 16)
            case ("write", address):
                return self.device.dma.write(address, address.to_bytes(8, "little"))
            case ("admit read", address):
                return self.unit.admit(Request(source_id(self.device), address, READ))
            case ("admit write", address):
                return self.unit.admit(Request(source_id(self.device), address, WRITE))
            case ("clear fault", _):
                self.unit.write_register(0x22C, 4, 1 << 31)
            case ("invalidate", "context"):
                write(self.unit, ContextCommand.of(icc=True, cirg=1))
            case ("invalidate", what):
                self.unit.write_register(self.iotlb - 8, 8, 0x40_0000)
                granularity = 1 if what == "global" else 3
                command = IotlbInvalidate.of(ivt=True, iirg=granularity, did=5)
                self.unit.write_register(self.iotlb, 8, command)
            case ("switch", on):
                write(self.unit, RootTableAddress(ROOT))
                write(self.unit, GlobalCommand.of(te=on))
            case (change, address):
                self.change(change, address)
        return self.unit.read_register(0x34, 4)

    def change(self, change: str, address: int) -> None:
        """Change a leaf entry in place, so that no state is in the builder."""
        page = address - 0x40_0000
        frame = self.leaf_table()
        rights = {"map": 3, "protect": 1, "unmap": 0}[change]
        entry = (DATA + page) | rights if rights else 0
        self.platform.memory.write(frame + (page >> 12) * 8, entry.to_bytes(8, "little"))

    def leaf_table(self) -> int:
        memory, frame = self.platform.memory, self.tables.root << 12
        for index in (0, 0, 2):
            frame = memory.read_record(frame + index * 8, 8) & ~0xFFF
        return frame


@given(before=actions, after=actions, policy=policies)
def test_restoring_a_snapshot_gives_the_same_future(
    before: list[Action], after: list[Action], policy: CachePolicy
) -> None:
    platform, graphics, _ = machine(Options(caches=policy))
    software = Software(platform, graphics)
    for action in before:
        software.do(action)
    state = platform.snapshot()
    future = [software.do(action) for action in after]
    end = platform.snapshot()
    platform.restore(state)
    assert platform.snapshot() == state
    assert [software.do(action) for action in after] == future
    assert platform.snapshot() == end


@given(before=actions, after=actions, policy=policies)
def test_a_platform_built_alike_can_take_over(
    before: list[Action], after: list[Action], policy: CachePolicy
) -> None:
    first, second = (Software(*machine(Options(caches=policy))[:2]) for _ in range(2))
    for action in before:
        first.do(action)
    second.platform.restore(first.platform.snapshot())
    assert [second.do(action) for action in after] == [first.do(action) for action in after]
    assert second.platform.snapshot() == first.platform.snapshot()


def test_the_state_of_other_units_is_refused_and_changes_nothing() -> None:
    platform, *_ = machine()
    other = Platform.build(
        PhysicalMemory(),
        Topology(),
        build("[[structure]]\ntype = 'DRHD'\nflags = 1\nregister_base = 0xfed00000"),
        PROFILES["qemu"],
    )
    before = platform.snapshot()
    with pytest.raises(PlatformError, match="other units"):
        platform.restore(other.snapshot())
    assert platform.snapshot() == before


def moved(software: Software, platform: Platform) -> Software:
    """The same software on a copy of its platform, with the copy of its device."""
    device = platform.topology.find(software.platform.topology.bdf(software.device))
    assert device is not None
    other = copy.copy(software)
    other.platform, other.device, other.unit = platform, device, platform.unit_of(device)
    return other


def pickled(platform: Platform) -> Platform:
    again: Platform = pickle.loads(pickle.dumps(platform))
    return again


@given(
    before=actions, after=actions, policy=policies, make=st.sampled_from([Platform.fork, pickled])
)
def test_forks_and_pickled_platforms_have_the_same_future_and_go_their_own_way(
    before: list[Action],
    after: list[Action],
    policy: CachePolicy,
    make: Callable[[Platform], Platform],
) -> None:
    platform, graphics, _ = machine(Options(caches=policy))
    software = Software(platform, graphics)
    for action in before:
        software.do(action)
    other = moved(software, make(platform))
    state = platform.snapshot()
    future = [other.do(action) for action in after]
    assert platform.snapshot() == state
    end = other.platform.snapshot()
    assert [software.do(action) for action in after] == future
    assert platform.snapshot() == end == other.platform.snapshot()


def test_a_fork_has_its_own_tree_with_bridges_clients_and_device_state() -> None:
    platform, graphics, _ = machine()
    bus = platform.topology.roots[0]
    port, behind = Bridge(Identity(0x8086, 1, 0x060400), PortType.ROOT_PORT), Edu()
    platform.topology.add(port, bus, 4)
    platform.topology.add(behind, platform.topology.bus_behind(port), 0)
    platform.topology.assign_bus_numbers()
    client = graphics.client = Client()
    platform.connect()
    for function in (port, behind):
        function.command.value = function.command.value.replace(bme=True)
    fork = platform.fork()
    ours = fork.topology.find(platform.topology.bdf(behind))
    theirs = fork.topology.find(platform.topology.bdf(graphics))
    assert ours is not None
    assert theirs is not None
    assert ours.dma.write(0x5000, b"fork").ok
    assert fork.memory.read(0x5000, 4) == b"fork"
    assert platform.memory.read(0x5000, 4) == bytes(4)
    port.command.value = port.command.value.replace(bme=False)
    assert ours.dma.read(0x5000, 4).ok
    assert not behind.dma.read(0x5000, 4).ok
    unit = fork.units[GRAPHICS]
    descriptor = DeviceTlbInvalidateDescriptor.of(sid=source_id(theirs), addr=0x7000)
    unit.devices.invalidate(descriptor)
    assert isinstance(theirs.client, Client)
    assert [request.address for request in theirs.client.sent] == [0x7000]
    assert client.sent == []
    assert fork.scopes.table is platform.scopes.table


def test_the_newest_platform_of_a_tree_takes_its_functions_over() -> None:
    older, graphics, other = machine()
    newer = Platform.build(older.memory, older.topology, older.scopes.table, QEMU)
    for function in (graphics, other):
        assert isinstance(function.port, RoutedPort)
        assert function.port.platform is newer
    added = PciFunction(Identity(1, 2, 0))
    older.topology.add(added, next(iter(older.topology.roots)), device=9)
    assert isinstance(added.port, RoutedPort)
    assert added.port.platform is newer


def test_clients_attached_by_hand_outlast_a_change_of_the_tree() -> None:
    platform, graphics, _ = machine()
    unit, client = platform.unit_of(graphics), Client()
    unit.attach(0xF0F8, client)
    bus = next(iter(platform.topology.roots))
    platform.topology.add(PciFunction(Identity(1, 2, 0)), bus, device=9)
    unit.devices.invalidate(DeviceTlbInvalidateDescriptor.of(sid=0xF0F8, addr=0x7000))
    assert [request.address for request in client.sent] == [0x7000]


def test_a_tree_that_can_not_be_copied_makes_no_fork() -> None:
    platform, graphics, _ = machine()
    graphics.on_intx = lambda level: None
    with pytest.raises(PlatformError, match=r"the PCI tree can't be copied: .*lambda"):
        platform.fork()


def test_a_snapshot_does_not_follow_what_happens_later() -> None:
    platform, graphics, _ = machine()
    software = Software(platform, graphics)
    state = platform.snapshot()
    copies = repr(state)
    assert isinstance(software.do(("read", 0x40_0000)), Completion)
    software.do(("write", 0x40_1000))
    software.do(("read", 0x90_0000))
    assert repr(state) == copies
    assert platform.snapshot() != state


def test_memory_of_others_is_no_part_of_the_state(tmp_path: Any) -> None:
    platform, _, _ = machine()
    shared = tmp_path / "ram"
    shared.write_bytes(bytes(0x1000))
    with shared.open("r+b") as file:
        platform.memory.map_region(0x1000_0000, file.fileno(), 0, 0x1000)
    state = platform.snapshot()
    platform.memory.write(0x1000_0000, b"theirs")
    platform.memory.write(0x5000, b"ours")
    platform.restore(state)
    assert platform.memory.read(0x1000_0000, 6) == b"theirs"
    assert platform.memory.read(0x5000, 4) == bytes(4)
    with pytest.raises(BusError):
        platform.memory.read(0x2000_0000, 1)


def described(haw: int = 48, flags: str = "intr_remap", second: int = OTHERS) -> Table:
    text = TWO_UNITS.replace("address_bits = 48", f'address_bits = {haw}\nflags = ["{flags}"]')
    return build(text.replace(f"{OTHERS:#x}", f"{second:#x}"))


def judged(capabilities: Capabilities, described_by: Table, functions: int = 2) -> list[str]:
    """The warnings of a platform with that many functions."""
    topology = Topology()
    bus = topology.add_root_bus()
    for device in range(functions):
        topology.add(Edu(), bus, 2 + device)
    memory = PhysicalMemory()
    return Platform.build(memory, topology, described_by, capabilities).warnings


def test_units_that_contradict_the_table_make_no_platform() -> None:
    assert judged(QEMU, described()) == []
    irreq = replace(QEMU, ecap=QEMU.ecap.replace(irreq=True))
    assert judged(irreq, described()) == []
    with pytest.raises(PlatformError, match="DMAR-K09: the unit at 0xfed90000 requires INTR_REMAP"):
        judged(irreq, described(flags="dma_ctrl_platform_opt_in"))
    with pytest.raises(PlatformError, match="DMAR-K14: the host has addresses of 52 bits"):
        judged(QEMU, described(haw=52))
    with pytest.raises(PlatformError, match=r"DMAR-U07: registers .* overlap an earlier unit"):
        judged(QEMU, described(second=GRAPHICS + 0x800))


def test_what_is_doubtful_about_units_is_told() -> None:
    far = replace(QEMU, cap=QEMU.cap.replace(fro=0x1000))
    assert [each[:8] for each in judged(far, described())] == ["DMAR-K10"] * 2
    narrow = replace(QEMU, cap=QEMU.cap.replace(nd=0))
    assert judged(narrow, described(), functions=17) == []
    assert judged(narrow, described(), functions=18) == ["DMAR-K15: 17 functions, 16 domain-ids"]
    none = replace(QEMU, cap=QEMU.cap.replace(sagaw=0))
    assert any("SAGAW is 0" in each for each in judged(none, described()))
    xeon = PROFILES["xeon"]
    crowded = replace(xeon, cap=xeon.cap.replace(fro=0x600, nfr=0))
    assert any("PMS is reported, but FRO" in each for each in judged(crowded, described()))
    assert not judged(xeon, described())


SATC = """
[[structure]]
type = "SATC"
[[structure.scope]]
type = 1
path = ["3.0"]
"""
BUFFER, PEER_BAR = 0x8_0000, 0xE000_0000


def integrated(
    text: str = TWO_UNITS + SATC, *, forwards_peers: bool = False
) -> tuple[Platform, PciFunction, AtsAgent]:
    """An integrated device with a device-TLB, whose page 0x5000 is :data:`BUFFER`."""
    memory, topology = PhysicalMemory(), Topology()
    memory.add_region(0, 1 << 20)
    bus = topology.add_root_bus()
    peer, device = Edu(), Edu()
    topology.add(peer, bus, 2)
    topology.add(device, bus, 3)
    agent = put_device_tlb(device)
    platform = Platform.build(
        memory, topology, build(text), PROFILES["xeon"], forwards_peers=forwards_peers
    )
    driver = Driver(platform.unit_of(device), memory, FramePool(0x1_0000, BUFFER))
    domain = driver.domain(SECOND_STAGE)
    driver.start()
    driver.attach(topology.requester_id(device), domain, ats=True)
    domain.map(0x5000, BUFFER, 0x1000)
    domain.map(0x6000, PEER_BAR, 0x1000)
    peer.config.write(0x10, 4, PEER_BAR)
    peer.config.write(4, 2, 2)
    device.config.write(4, 2, 4)
    at = device.config.find_extended_capability(ExtendedCapabilityId.ATS)
    assert at is not None
    device.config.write(at + 6, 2, 0x8000)
    return platform, device, agent


@pytest.mark.section("4.4")
def test_the_core_of_an_integrated_device_sends_and_learns_no_host_address() -> None:
    platform, device, agent = integrated()
    assert device.dma.write(0x5000, b"data").ok
    assert platform.memory.read(BUFFER, 4) == b"data"
    assert [len(agent.tlb), device.dma.read(0x5000, 4).data] == [1, b"data"]  # translated ones pass
    (entry,) = device.dma.translate(0x5000).entries
    assert (entry.address, entry.r, entry.w, entry.size) == (0, True, True, 0x1000)
    for core in (device.dma, device.port, device.port.way(), device.bus_master):
        assert not core.write_translated(BUFFER, b"core").ok
    assert not device.port.translate(0x5000).ok
    assert not device.port.complete_invalidation(1, 1).ok
    assert device.port.read(0x5000, 4).data == b"data"  # past the device-TLB, untranslated
    forged = platform.port_as(device, SourceId(0x10))
    assert forged.source_id == platform.topology.requester_id(device)
    assert platform.memory.read(BUFFER, 4) == b"data"


@pytest.mark.section("4.4")
def test_invalidations_reach_the_device_tlb_behind_the_boundary() -> None:
    platform, device, agent = integrated()
    assert device.dma.read(0x5000, 4).ok
    unit = platform.unit_of(device)
    unit.devices.invalidate(DeviceTlbInvalidateDescriptor.of(sid=0x18, addr=0x5000))
    assert len(agent.tlb) == 0
    assert not unit.devices.pending


def test_a_device_in_no_satc_has_no_boundary() -> None:
    platform, device, _ = integrated(TWO_UNITS)
    assert device.dma.translate(0x5000).entries[0].address == BUFFER
    assert device.port.write_translated(BUFFER, b"core").ok
    assert platform.memory.read(BUFFER, 4) == b"core"


@pytest.mark.section("3.17")
def test_a_root_complex_that_forwards_goes_by_the_translated_address() -> None:
    for forwards in (False, True):
        platform, device, _ = integrated(TWO_UNITS, forwards_peers=forwards)
        assert device.dma.read(0x6000, 4).ok is forwards  # the identification of the model
        assert device.port.read(0x6000, 4).ok is forwards
        assert not device.port.read(PEER_BAR, 4).ok  # no input address of anything
        assert device.port.write(0x6004, bytes(4)).ok is forwards
        forked = platform.fork()
        copy = forked.topology.find(platform.topology.bdf(device))
        assert copy is not None
        assert copy.port.read(0x6000, 4).ok is forwards


@pytest.mark.section("3.2", "3.12.7")
def test_devices_and_interfaces_of_one_see_the_pages_of_their_domain_alone() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 20)
    unit = RemappingUnit(PROFILES["xeon"], memory)
    driver = Driver(unit, memory, FramePool(0x1_0000, BUFFER))
    driver.start()
    places: dict[tuple[int, int | None], int] = {(0x10, None): 0, (0x10, 5): 1, (0x10, 6): 2}
    places |= {(0x18, None): 3, (0x18, 5): 3}
    domains = [driver.domain(SECOND_STAGE) for _ in range(4)]
    for number, domain in enumerate(domains):
        memory.write(BUFFER + 0x1000 * number, bytes([number]) * 4)
        domain.map(0x5000, BUFFER + 0x1000 * number, 0x1000)
    for (source, pasid), number in places.items():
        driver.attach(source, domains[number], pasid)
    for (source, pasid), number in places.items():
        port = UnitPort(unit, memory, source)
        assert port.read(0x5000, 4, pasid=pasid).data == bytes([number]) * 4
        assert not port.read(BUFFER, 4, pasid=pasid).ok
