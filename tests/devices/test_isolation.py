"""Isolation groups: access control services decide who is alone."""

from devices.capabilities import AcsCapabilities, PortType, add_ari
from devices.function import Identity, PciFunction
from devices.isolation import isolation_groups
from devices.sriov import Sriov
from devices.topology import Bridge, Bus, Topology

BRIDGE = Identity(0x1234, 0x0001, 0x060400)
ENDPOINT = Identity(0x1234, 0x11E8, 0x00FF00)
ALL_ACS = AcsCapabilities(0x1F)


def express(topology: Topology, bus: Bus, device: int = 0, number: int = 0) -> PciFunction:
    function = PciFunction(ENDPOINT)
    function.add_pci_express()
    topology.add(function, bus, device, number)
    return function


def port(
    topology: Topology,
    bus: Bus,
    device: int,
    port_type: PortType | None = PortType.ROOT_PORT,
    *,
    acs: bool = False,
) -> Bridge:
    bridge = Bridge(BRIDGE, port_type)
    topology.add(bridge, bus, device)
    if acs:
        registers = bridge.add_acs(ALL_ACS)
        bridge.config.write(registers.control.offset, 2, 0x1F)
    return bridge


def test_single_function_endpoints_of_the_root_complex_are_alone() -> None:
    topology = Topology()
    bus = topology.add_root_bus()
    functions = [express(topology, bus, device) for device in (1, 2)]
    topology.assign_bus_numbers()
    assert isolation_groups(topology) == ((functions[0],), (functions[1],))


def test_functions_of_one_device_need_access_control_each() -> None:
    topology = Topology()
    bus = topology.add_root_bus()
    functions = [express(topology, bus, 1, number) for number in range(3)]
    assert isolation_groups(topology) == (tuple(functions),)
    registers = functions[2].add_acs(ALL_ACS)
    assert isolation_groups(topology) == (tuple(functions),)
    functions[2].config.write(registers.control.offset, 2, 0x1F)
    assert isolation_groups(topology) == ((functions[0], functions[1]), (functions[2],))


def test_what_the_capability_does_not_offer_counts_as_on() -> None:
    topology = Topology()
    bus = topology.add_root_bus()
    functions = [express(topology, bus, 1, number) for number in range(2)]
    for function in functions:
        function.add_acs(AcsCapabilities())
    assert isolation_groups(topology) == ((functions[0],), (functions[1],))


def test_a_port_that_does_not_redirect_takes_everything_below_along() -> None:
    topology = Topology()
    bus = topology.add_root_bus()
    open_port, closed_port = port(topology, bus, 1), port(topology, bus, 2, acs=True)
    below_open = express(topology, topology.bus_behind(open_port))
    below_closed = express(topology, topology.bus_behind(closed_port))
    topology.assign_bus_numbers()
    assert isolation_groups(topology) == (
        (open_port, below_open),
        (closed_port,),
        (below_closed,),
    )


def test_one_open_port_on_the_way_up_is_enough() -> None:
    topology = Topology()
    root_port = port(topology, topology.add_root_bus(), 1)
    upstream = port(topology, topology.bus_behind(root_port), 0, PortType.UPSTREAM_PORT)
    inner = topology.bus_behind(upstream)
    downstream = [
        port(topology, inner, device, PortType.DOWNSTREAM_PORT, acs=True) for device in (0, 1)
    ]
    functions = [express(topology, topology.bus_behind(bridge)) for bridge in downstream]
    topology.assign_bus_numbers()
    assert len(isolation_groups(topology)) == 1
    registers = root_port.add_acs(ALL_ACS)
    root_port.config.write(registers.control.offset, 2, 0x1F)
    groups = isolation_groups(topology)
    assert (functions[0],) in groups
    assert (functions[1],) in groups


def test_conventional_devices_share_their_bridge() -> None:
    topology = Topology()
    root_port = port(topology, topology.add_root_bus(), 1, acs=True)
    bridge = port(topology, topology.bus_behind(root_port), 0, PortType.PCIE_TO_PCI_BRIDGE)
    conventional = [PciFunction(ENDPOINT) for _ in range(2)]
    for device, function in enumerate(conventional):
        topology.add(function, topology.bus_behind(bridge), device)
    topology.assign_bus_numbers()
    assert isolation_groups(topology) == ((root_port,), (bridge, *conventional))


def test_with_ari_the_whole_bus_is_one_device() -> None:
    topology = Topology()
    root_port = port(topology, topology.add_root_bus(), 1, acs=True)
    bus = topology.bus_behind(root_port)
    functions = [express(topology, bus, device) for device in (0, 1)]
    for function in functions:
        add_ari(function.config)
    topology.assign_bus_numbers()
    assert isolation_groups(topology) == ((root_port,), tuple(functions))


def test_virtual_functions_are_alone() -> None:
    topology = Topology()
    physical = express(topology, topology.add_root_bus(), 1)
    sriov = Sriov(physical, total_vfs=2, first_offset=0x80, stride=1, vf_device_id=1)
    topology.add_sriov(sriov)
    physical.config.write(0x110, 2, 2)
    physical.config.write(0x108, 2, 1)
    assert len(isolation_groups(topology)) == 3
