"""Topology: places, routing, and the ids and paths that a request has at the root."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.capabilities import AcsCapabilities, DeviceCapabilities, PortType
from devices.dma import AddressType, CompletionStatus
from devices.function import Identity, PciFunction
from devices.source_id import Bdf, SourceId
from devices.sriov import NumVfs, Sriov, SriovControl
from devices.topology import Bridge, Bus, Topology, TopologyError

ENDPOINT = Identity(0x1234, 0x11E8, 0x00FF00)
BRIDGE = Identity(0x1234, 0x0001, 0x060400)
ALL_ACS = AcsCapabilities(0x5F)


def build(port_types: list[PortType | None]) -> tuple[Topology, list[Bridge], PciFunction]:
    """A chain of bridges at device 1 of each bus, an endpoint at 02.3 of the last bus."""
    topology = Topology()
    bus = topology.add_root_bus()
    bridges = []
    for port_type in port_types:
        bridge = Bridge(BRIDGE, port_type)
        topology.add(bridge, bus, 1)
        bridges.append(bridge)
        bus = topology.bus_behind(bridge)
    function = PciFunction(ENDPOINT)
    topology.add(function, bus, 2, 3)
    topology.assign_bus_numbers()
    return topology, bridges, function


@pytest.mark.section("3.12.4")
def test_a_function_on_the_root_bus_is_where_it_was_plugged_in() -> None:
    topology, _, function = build([])
    assert str(topology.bdf(function)) == "0000:00:02.3"
    assert topology.path(function) == (0, ((2, 3),))
    assert topology.aliases(function) == (SourceId.parse("00:02.3"),)


@given(st.lists(st.sampled_from([PortType.ROOT_PORT, None]), max_size=6))
def test_every_function_is_found_where_it_says_it_is(port_types: list[PortType | None]) -> None:
    topology, bridges, function = build(port_types)
    assert topology.functions() == (*bridges, function)
    for each in topology.functions():
        assert topology.find(topology.bdf(each)) is each
    assert topology.path(function) == (0, ((1, 0),) * len(bridges) + ((2, 3),))
    assert topology.bridge_map() == {
        Bdf(0, SourceId.of(depth, 1)): depth + 1 for depth in range(len(bridges))
    }
    for bridge in bridges:
        assert topology.secondary_bus(topology.bdf(bridge)) == bridge.secondary
    above = topology.bdf(bridges[-1]) if bridges else None
    assert topology.bridge_above(topology.bdf(function)) == above
    assert topology.secondary_bus(topology.bdf(function)) is None
    assert topology.bridge_above(Bdf.parse("0001:00:02.3")) is None


@given(st.lists(st.sampled_from([PortType.ROOT_PORT, None]), min_size=1, max_size=5), st.data())
def test_what_is_pulled_out_is_gone_with_all_behind_it(
    port_types: list[PortType | None], data: st.DataObject
) -> None:
    topology, bridges, function = build(port_types)
    chain = [*bridges, function]
    at = data.draw(st.integers(0, len(bridges)))
    places = [topology.bdf(each) for each in chain]
    topology.remove(chain[at])
    assert topology.functions() == tuple(chain[:at])
    assert [topology.find(place) for place in places[at:]] == [None] * (len(chain) - at)
    assert not function.dma.read(0, 8).ok
    for each in chain[at:]:
        with pytest.raises(TopologyError, match="not plugged in"):
            topology.remove(each)


@pytest.mark.section("3.12.6")
def test_virtual_functions_go_with_the_physical_one() -> None:
    topology, _, function = build([])
    sriov = Sriov(function, total_vfs=2, first_offset=1, stride=1, vf_device_id=1)
    topology.add_sriov(sriov)
    function.config.write(sriov.count.offset, 2, NumVfs.of(count=2))
    function.config.write(sriov.control.offset, 2, SriovControl.of(vf_enable=1, vf_mse=1))
    virtual = sriov.functions
    topology.remove(function)
    assert topology.functions() == ()
    assert [each.dma.read(0, 8).ok for each in virtual] == [False, False]


@pytest.mark.section("3.12.3")
def test_express_ports_leave_the_requester_id_alone() -> None:
    topology, _, function = build(
        [PortType.ROOT_PORT, PortType.UPSTREAM_PORT, PortType.DOWNSTREAM_PORT]
    )
    assert topology.aliases(function) == (SourceId.parse("03:02.3"),)


@pytest.mark.section("3.12.1")
def test_a_pcie_to_pci_bridge_sends_as_device_0_of_its_secondary_bus() -> None:
    topology, _, function = build([PortType.ROOT_PORT, PortType.PCIE_TO_PCI_BRIDGE])
    assert [str(alias) for alias in topology.aliases(function)] == ["02:02.3", "02:00.0"]
    assert str(topology.requester_id(function)) == "02:00.0"


@pytest.mark.section("3.12.2")
def test_a_conventional_bridge_sends_as_itself() -> None:
    topology, _, function = build([None])
    assert str(topology.requester_id(function)) == "00:01.0"


def test_the_bridge_nearest_to_the_root_decides() -> None:
    topology, _, function = build([PortType.ROOT_PORT, PortType.PCIE_TO_PCI_BRIDGE, None])
    assert [str(alias) for alias in topology.aliases(function)] == [
        "03:02.3",
        "02:01.0",
        "02:00.0",
    ]
    topology, _, function = build([PortType.PCIE_TO_PCI_BRIDGE, PortType.PCI_TO_PCIE_BRIDGE])
    assert str(topology.requester_id(function)) == "01:00.0"


def test_bus_numbers_are_those_software_writes() -> None:
    topology, bridges, function = build([PortType.ROOT_PORT])
    bridges[0].config.write(0x18, 4, 0x00_40_40_00)
    assert str(topology.bdf(function)) == "0000:40:02.3"
    assert topology.find(Bdf.parse("0000:40:02.3")) is function
    assert topology.find(Bdf.parse("0000:01:02.3")) is None
    bridges[0].config.write(0x18, 4, 0)
    assert topology.find(Bdf.parse("0000:00:02.3")) is None


def test_configuration_requests_find_their_function() -> None:
    topology, _, function = build([PortType.ROOT_PORT])
    bdf = topology.bdf(function)
    topology.config_write(bdf, 4, 2, 6)
    assert topology.config_read(bdf, 4, 2) == 6
    nowhere = Bdf.parse("0000:01:05.0")
    topology.config_write(nowhere, 4, 2, 6)
    assert topology.config_read(nowhere, 0, 4) == 0xFFFF_FFFF


def test_segments_are_separate_trees() -> None:
    topology = Topology()
    first, second = topology.add_root_bus(), topology.add_root_bus(segment=1)
    one, other = PciFunction(ENDPOINT), PciFunction(ENDPOINT)
    topology.add(one, first, 2)
    assert str(topology.add(other, second, 2)) == "0001:00:02.0"
    assert topology.functions(1) == (other,)
    assert topology.find(Bdf.parse("0001:00:02.0")) is other


def test_a_root_bus_keeps_its_number() -> None:
    topology = Topology()
    bridge, function = Bridge(BRIDGE, PortType.ROOT_PORT), PciFunction(ENDPOINT)
    topology.add(bridge, topology.add_root_bus(number=0x80), 3)
    topology.add(function, topology.bus_behind(bridge), 0)
    topology.assign_bus_numbers()
    assert str(topology.bdf(function)) == "0000:81:00.0"
    assert topology.path(function) == (0x80, ((3, 0), (0, 0)))


def test_two_functions_make_a_multifunction_device() -> None:
    topology = Topology()
    bus = topology.add_root_bus()
    one, other = PciFunction(ENDPOINT), PciFunction(ENDPOINT)
    topology.add(one, bus, 2)
    assert one.config.read(0x0E, 1) == 0
    topology.add(other, bus, 2, 1)
    assert one.config.read(0x0E, 1) == other.config.read(0x0E, 1) == 0x80


def test_places_are_taken_once() -> None:
    topology = Topology()
    bus = topology.add_root_bus()
    function = PciFunction(ENDPOINT)
    topology.add(function, bus, 2)
    with pytest.raises(TopologyError):
        topology.add(PciFunction(ENDPOINT), bus, 2)
    with pytest.raises(TopologyError):
        topology.add(function, bus, 3)
    with pytest.raises(TopologyError):
        topology.add_root_bus()
    with pytest.raises(TopologyError):
        topology.bdf(PciFunction(ENDPOINT))
    with pytest.raises(ValueError, match="device"):
        topology.add(PciFunction(ENDPOINT), bus, 32)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0, []),
        (1, ["00:02.7"]),
        (2, ["00:02.1", "00:02.5", "00:02.7"]),
        (3, [f"00:02.{number}" for number in (0, 1, 2, 4, 5, 6, 7)]),
    ],
)
@pytest.mark.section("3.12.5")
def test_phantom_functions_are_the_unused_high_function_numbers(
    bits: int, expected: list[str]
) -> None:
    topology, _, function = build([])
    pcie = function.add_pci_express(
        PortType.ENDPOINT, DeviceCapabilities.of(phantom_functions=bits)
    )
    assert topology.phantom_ids(function) == ()
    function.config.write(pcie.control.offset, 2, 1 << 9)
    assert [str(phantom) for phantom in topology.phantom_ids(function)] == expected


def test_buses_that_virtual_functions_carry_into_are_left_free() -> None:
    topology = Topology()
    root = topology.add_root_bus()
    ports = [Bridge(BRIDGE, PortType.ROOT_PORT) for _ in range(2)]
    for device, port in enumerate(ports):
        topology.add(port, root, device)
    physical = PciFunction(ENDPOINT)
    topology.add(physical, topology.bus_behind(ports[0]), 0)
    sriov = Sriov(physical, total_vfs=4, first_offset=0x100, stride=1, vf_device_id=1)
    topology.add_sriov(sriov)
    topology.assign_bus_numbers()
    assert (ports[0].buses.value.subordinate, ports[1].secondary) == (2, 3)
    physical.config.write(0x110, 2, 4)
    physical.config.write(0x108, 2, 1)
    virtual = sriov.functions[3]
    assert topology.bdf(virtual) == Bdf.parse("0000:02:00.3")
    assert topology.find(Bdf.parse("0000:02:00.3")) is virtual
    assert topology.functions()[-4:] == sriov.functions
    assert topology.path(virtual) == topology.path(physical)
    assert topology.physical_function(topology.bdf(virtual)) == topology.bdf(physical)
    assert topology.physical_function(topology.bdf(physical)) is None
    assert topology.bridge_above(topology.bdf(virtual)) == topology.bdf(ports[0])
    assert topology.functions(1) == ()
    ports[0].config.write(4, 2, 4)
    assert topology.refusal(virtual, topology.bdf(virtual).source_id) is None


def test_buses_run_out() -> None:
    topology = Topology()
    bus: Bus = topology.add_root_bus(number=0xFE)
    for _ in range(2):
        bridge = Bridge(BRIDGE)
        topology.add(bridge, bus, 0)
        bus = topology.bus_behind(bridge)
    with pytest.raises(TopologyError, match="256 buses"):
        topology.assign_bus_numbers()
    topology = Topology()
    physical = PciFunction(ENDPOINT)
    topology.add(physical, topology.add_root_bus(number=0xFF), 0)
    topology.add_sriov(Sriov(physical, total_vfs=4, first_offset=0x100, stride=1, vf_device_id=1))
    with pytest.raises(TopologyError, match="virtual functions"):
        topology.assign_bus_numbers()


def test_a_bridge_without_bus_mastering_stops_requests_from_below() -> None:
    topology, bridges, function = build([PortType.ROOT_PORT, None])
    source_id = topology.bdf(function).source_id
    bridges[0].config.write(4, 2, 4)
    assert topology.refusal(function, source_id) is CompletionStatus.UNSUPPORTED_REQUEST
    bridges[1].config.write(4, 2, 4)
    assert topology.refusal(function, source_id) is None


def test_access_control_checks_source_and_address_type() -> None:
    topology, (port,), function = build([PortType.ROOT_PORT])
    acs = port.add_acs(ALL_ACS)
    port.config.write(4, 2, 4)
    own, forged = SourceId.parse("01:02.3"), SourceId.parse("00:02.0")
    for source_id in (own, forged):
        for address_type in AddressType:
            assert topology.refusal(function, source_id, address_type) is None
    port.config.write(acs.control.offset, 2, 0b11)
    abort = CompletionStatus.COMPLETER_ABORT
    assert topology.refusal(function, own) is None
    assert topology.refusal(function, forged) is abort
    assert topology.refusal(function, own, AddressType.TRANSLATED) is abort


def test_a_memory_address_leads_to_the_function_that_claims_it() -> None:
    topology, _, function = build([PortType.ROOT_PORT])
    bar = function.add_bar(0, 0x1000)
    function.config.write(0x10, 4, 0xE000_0000)
    function.config.write(4, 2, 2)
    assert topology.bar_at(0xE000_0FFF) == (function, bar, 0xFFF)
    assert topology.bar_at(0xE000_1000) is None
