"""A function behind bridges: what they refuse never arrives, everything else arrives as it was."""

import pytest

from devices.bridged_port import BridgedPort
from devices.capabilities import AcsCapabilities, PortType
from devices.dma import (
    DONE,
    AtomicOp,
    Completion,
    CompletionStatus,
    DmaPort,
    PageRequest,
    Request,
)
from devices.function import Identity, PciFunction
from devices.topology import Bridge, Topology

ALL_ACS = AcsCapabilities(0x5F)
REQUESTS = {
    "read": (0x1000, 4),
    "write": (0x1000, b"data"),
    "atomic": (AtomicOp.SWAP, 0x1000, bytes(4)),
    "translate": (0x1000, 2),
    "read_translated": (0x2000, 4),
    "write_translated": (0x2000, b"data"),
}
MESSAGES = {
    "page_request": (PageRequest(0x1000, read=True, write=False, group_index=1, last=True),),
    "complete_invalidation": (1, 1),
}


class Root(DmaPort):
    """Stands for the port at the root: notes what arrives and succeeds."""

    source_id = 0x0100

    def __init__(self) -> None:
        self.arrived: list[Request] = []

    def request(self, request: Request) -> Completion:
        self.arrived.append(request)
        return DONE


def sent(name: str) -> list[Request]:
    """What arrives at a root without bridges before it."""
    root = Root()
    getattr(root, name)(*{**REQUESTS, **MESSAGES}[name])
    return root.arrived


@pytest.fixture
def bridge() -> Bridge:
    return Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.ROOT_PORT)


@pytest.fixture
def root() -> Root:
    return Root()


@pytest.fixture
def port(bridge: Bridge, root: Root) -> BridgedPort:
    topology, function = Topology(), PciFunction(Identity(0x1234, 0x11E8, 0x00FF00))
    topology.add(bridge, topology.add_root_bus(), 1)
    topology.add(function, topology.bus_behind(bridge), 0)
    topology.assign_bus_numbers()
    return BridgedPort(root, topology, function)


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_need_bus_mastering_in_the_bridge(
    port: BridgedPort, bridge: Bridge, root: Root, name: str
) -> None:
    request = getattr(port, name)
    assert request(*REQUESTS[name]).status is CompletionStatus.UNSUPPORTED_REQUEST
    assert root.arrived == []
    bridge.config.write(4, 2, 4)
    assert request(*REQUESTS[name]).ok
    assert root.arrived == sent(name)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.section("4.2.2")
def test_translation_blocking_aborts_all_but_untranslated_requests(
    port: BridgedPort, bridge: Bridge, name: str
) -> None:
    acs = bridge.add_acs(ALL_ACS)
    bridge.config.write(4, 2, 4)
    acs.control.value = acs.control.value.replace(tb=1)
    blocked = "transl" in name
    expected = CompletionStatus.COMPLETER_ABORT if blocked else CompletionStatus.SUCCESS
    assert getattr(port, name)(*REQUESTS[name]).status is expected


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_not_stopped(port: BridgedPort, root: Root, name: str) -> None:
    assert getattr(port, name)(*MESSAGES[name]).ok
    assert root.arrived == sent(name)


@pytest.mark.parametrize("name", [*REQUESTS, *MESSAGES])
def test_the_way_leads_past_bridges_that_stop_nothing_and_answers_alike(
    port: BridgedPort, bridge: Bridge, root: Root, name: str
) -> None:
    assert port.way() is port
    bridge.config.write(4, 2, 4)
    assert port.way() is root
    acs = bridge.add_acs(ALL_ACS)
    acs.control.value = acs.control.value.replace(tb=1)
    assert port.way() is port
    acs.control.value = acs.control.value.replace(tb=0)
    arguments = {**REQUESTS, **MESSAGES}[name]
    answers = [getattr(each, name)(*arguments) for each in (port, port.way())]
    assert answers == [DONE, DONE]
    assert root.arrived == sent(name) * 2
