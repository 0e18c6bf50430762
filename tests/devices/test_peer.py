"""Peer to peer: what a switch turns round, and how a transfer reaches a BAR."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.bridged_port import BridgedPort
from devices.capabilities import AcsCapabilities, AcsControl, PortType
from devices.dma import (
    READ,
    REFUSED,
    WRITE,
    AddressType,
    AtomicOp,
    Completion,
    DmaPort,
    Request,
)
from devices.function import Bar, Identity, PciFunction
from devices.peer import PeerSpace, transfer
from devices.topology import Bridge, Topology

PEER = 0xE000_0000
ACS = AcsCapabilities.of(sv=1, tb=1, rr=1, cr=1, uf=1, dt=1)


class Bytes:
    """A region of plain bytes that notes the sizes of accesses."""

    def __init__(self, size: int) -> None:
        self.held = bytearray(size)
        self.sizes: list[int] = []

    def read(self, offset: int, size: int) -> int:
        self.sizes.append(size)
        assert not offset % size
        return int.from_bytes(self.held[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.sizes.append(size)
        assert not offset % size
        self.held[offset : offset + size] = value.to_bytes(size, "little")


class Root(DmaPort):
    """The port at the root: refuses, and counts."""

    def __init__(self) -> None:
        self.arrived = 0

    def request(self, request: Request) -> Completion:
        self.arrived += 1
        return REFUSED


class Switch:
    """A root port, a switch with two ports, a function behind each; the second has a BAR."""

    def __init__(self) -> None:
        self.topology = topology = Topology()
        kinds = (PortType.ROOT_PORT, PortType.UPSTREAM_PORT)
        bus = topology.add_root_bus()
        for kind in kinds:
            bridge = Bridge(Identity(0x8086, 0x9D10, 0x060400), kind)
            topology.add(bridge, bus, 0)
            bus = topology.bus_behind(bridge)
            bridge.config.write(4, 2, 4)
        self.ports, self.functions = [], []
        for device in range(2):
            port = Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.DOWNSTREAM_PORT)
            port.add_acs(ACS)
            function = PciFunction(Identity(0x1234, 0x11E8, 0x00FF00))
            topology.add(port, bus, device)
            topology.add(function, topology.bus_behind(port), 0)
            port.config.write(4, 2, 4)
            self.ports.append(port)
            self.functions.append(function)
        topology.assign_bus_numbers()
        self.sender, peer = self.functions
        self.region = Bytes(0x1000)
        peer.add_bar(0, 0x1000).place(0, 0x1000, self.region)
        peer.config.write(0x10, 4, PEER)
        peer.config.write(4, 2, 2)
        self.root = Root()
        self.port = BridgedPort(self.root, topology, self.sender)

    def control(self, **fields: int) -> None:
        acs = self.ports[0].acs
        assert acs is not None
        acs.control.value = AcsControl.of(**fields)


@given(st.integers(0, 64), st.binary(max_size=64))
def test_a_transfer_is_made_of_aligned_accesses(offset: int, data: bytes) -> None:
    region = Bytes(0x100)
    bar = Bar(0x100, lambda: PEER)
    bar.place(0, 0x100, region)
    written = Request(0, PEER + offset, WRITE, len(data), payload=data)
    assert transfer(bar, offset, written).ok
    assert transfer(bar, offset, Request(0, PEER + offset, READ, len(data))).data == data
    assert bytes(region.held) == bytes(offset) + data + bytes(0x100 - offset - len(data))
    assert max(region.sizes, default=1) <= 8


@pytest.mark.parametrize(
    ("address_type", "control", "turned"),
    [
        (AddressType.UNTRANSLATED, {}, True),
        (AddressType.UNTRANSLATED, {"rr": 1}, False),
        (AddressType.UNTRANSLATED, {"dt": 1, "rr": 1}, False),
        (AddressType.TRANSLATED, {}, True),
        (AddressType.TRANSLATED, {"rr": 1}, False),
        (AddressType.TRANSLATED, {"rr": 1, "dt": 1}, True),
        (AddressType.TRANSLATED, {"tb": 1, "dt": 1}, False),
        (AddressType.TRANSLATION_REQUEST, {}, False),
    ],
)
@pytest.mark.section("3.17", "4.2.2")
def test_access_control_decides_what_a_switch_turns_round(
    address_type: AddressType, control: dict[str, int], turned: bool
) -> None:
    switch = Switch()
    switch.control(**control)
    request = Request(0, PEER + 8, READ, 8, address_type=address_type)
    assert switch.port.request(request).ok is turned
    assert switch.root.arrived == (not turned and "tb" not in control)


def test_a_forged_requester_id_is_stopped_before_anything_is_turned_round() -> None:
    switch = Switch()
    switch.control(sv=1)
    forged = switch.port
    assert forged.write(PEER, b"four").ok
    other = switch.topology.bdf(switch.functions[1]).source_id
    forged = BridgedPort(switch.root, switch.topology, switch.sender, other)
    assert not forged.write(PEER + 8, b"four").ok
    assert bytes(switch.region.held[:16]) == b"four" + bytes(12)


def test_the_way_stays_with_the_switch_while_it_may_turn_requests_round() -> None:
    switch = Switch()
    assert switch.port.way() is switch.port
    switch.control(rr=1)
    assert switch.port.way() is switch.root
    switch.control(rr=1, dt=1)
    assert switch.port.way() is switch.port


def test_what_no_peer_claims_goes_to_the_root() -> None:
    switch = Switch()
    assert not switch.port.write(PEER + 0x1000, b"more").ok
    assert switch.root.arrived == 1
    peers = PeerSpace(switch.topology, 0)
    assert peers.carry_out(Request(0, 0x5000, READ, 4), PEER).data == bytes(4)
    assert peers.carry_out(Request(0, 0x5000, READ, 4), PEER + 0x1000) == REFUSED


def test_atomic_operations_are_not_completed_by_a_bar() -> None:
    switch = Switch()
    assert not switch.port.atomic(AtomicOp.SWAP, PEER, bytes(4)).ok
    assert switch.root.arrived == 0
