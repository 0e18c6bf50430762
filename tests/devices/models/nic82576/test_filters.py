"""Pools: which of them get a frame, against a slow reading of the rules."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.nic82576.filters import Filters
from devices.models.nic82576.register_bank import RegisterBank
from tests.devices.models.nic82576.machines import OUTSIDE, Machine, frame_for

ADDRESSES = [bytes((2, 0, 0, 0, 0, index)) for index in range(4)]
GROUPS = [bytes((1, 0, 0x5E, 0, 0, index)) for index in range(3)]
BROADCAST = b"\xff" * 6
VLANS = [0, 5, 33]
POOLS = st.integers(0, 255)


def tagged(frame: bytes, vlan: int | None) -> bytes:
    if vlan is None:
        return frame
    return frame[:12] + b"\x81\0" + vlan.to_bytes(2, "big") + frame[12:]


@dataclass
class Rules:
    """What software programmed; pools are bit maps."""

    exact: dict[bytes, int]
    hashed: set[bytes]
    table: set[int]
    members: dict[int, int]
    filtering: bool
    hash_bits: int
    default: int
    no_default: bool
    replication: bool
    enabled: int
    broadcast: int
    overflow_multicast: int
    overflow_unicast: int
    multicast_promiscuous: int
    untagged: int
    long: int

    def program(self, bank: RegisterBank) -> None:
        for index, (address, pools) in enumerate(self.exact.items()):
            at = 0x5400 + 8 * index if index < 2 else 0x54E0 + 8 * index
            bank.write(at, 4, int.from_bytes(address[:4], "little"))
            bank.write(at + 4, 4, int.from_bytes(address[4:], "little") | 1 << 31 | pools << 18)
        for address in self.hashed:
            bits = (address[5] << 8 | address[4]) >> (4, 3, 2, 0)[self.hash_bits] & 0xFFF
            at = (0x5200 if address[0] & 1 else 0xA000) + 4 * (bits >> 5)
            bank.write(at, 4, bank.read(at, 4) | 1 << (bits & 31))
        for vlan in self.table:
            at = 0x5600 + 4 * (vlan >> 5)
            bank.write(at, 4, bank.read(at, 4) | 1 << (vlan & 31))
        for index, (vlan, pools) in enumerate(self.members.items()):
            bank.write(0x5D00 + 4 * index, 4, 1 << 31 | pools << 12 | vlan)
        bank.write(0x0100, 4, self.filtering << 18 | self.hash_bits << 12)
        control = self.default << 7 | self.no_default << 29 | self.replication << 30
        bank.write(0x581C, 4, control)
        bank.write(0x0C8C, 4, self.enabled)
        flags = {
            27: self.broadcast,
            25: self.overflow_multicast,
            26: self.overflow_unicast,
            28: self.multicast_promiscuous,
            24: self.untagged,
            16: self.long,
        }
        for pool in range(8):
            value = sum((pools >> pool & 1) << bit for bit, pools in flags.items())
            bank.write(0x5AD0 + 4 * pool, 4, value | 2000)

    def pools(self, destination: bytes, vlan: int | None, length: int, inside: bool) -> set[int]:
        """Who gets a frame: the text of the rules, step by step."""
        if self.filtering and vlan is not None and vlan not in self.table:
            return set()
        group = destination[0] & 1
        if destination == BROADCAST:
            pools = listed(self.broadcast)
        else:
            pools = listed(self.exact.get(destination, 0))
            if not pools and destination in self.hashed:
                pools = listed(self.overflow_multicast if group else self.overflow_unicast)
            if group:
                pools |= listed(self.multicast_promiscuous)
        if self.filtering:
            pools &= listed(self.untagged if vlan is None else self.members.get(vlan, 0))
        if not pools and not group and not inside and not self.no_default:
            pools = {self.default}
        if group and not self.replication:
            pools &= {self.default}
        short = length + 4 <= 1518 + 4 * (vlan is not None)
        fits = {
            pool
            for pool in range(8)
            if (length + 4 <= 2000 if pool in listed(self.long) else short)
        }
        return pools & listed(self.enabled) & fits


def listed(pools: int) -> set[int]:
    return {pool for pool in range(8) if pools >> pool & 1}


RULES = st.builds(
    Rules,
    exact=st.dictionaries(st.sampled_from(ADDRESSES + GROUPS), POOLS, max_size=4),
    hashed=st.sets(st.sampled_from(ADDRESSES + GROUPS), max_size=3),
    table=st.sets(st.sampled_from(VLANS)),
    members=st.dictionaries(st.sampled_from(VLANS), POOLS),
    default=st.integers(0, 7),
    hash_bits=st.integers(0, 3),
    **dict.fromkeys(
        (
            "enabled",
            "broadcast",
            "overflow_multicast",
            "overflow_unicast",
            "multicast_promiscuous",
            "untagged",
            "long",
        ),
        POOLS,
    ),
)


@given(
    rules=RULES,
    destination=st.sampled_from([*ADDRESSES, *GROUPS, BROADCAST]),
    vlan=st.sampled_from([None, *VLANS]),
    length=st.sampled_from([60, 1514, 1518, 1990, 2100]),
    inside=st.booleans(),
)
def test_pools_are_those_of_the_rules(
    rules: Rules, destination: bytes, vlan: int | None, length: int, inside: bool
) -> None:
    bank = RegisterBank()
    filters = Filters(bank)
    rules.program(bank)
    frame = tagged(frame_for(destination, length - 4 * (vlan is not None)), vlan)
    found = filters.pools(frame, 3 if inside else None)
    assert listed(found) == rules.pools(destination, vlan, length, inside)


@pytest.mark.parametrize(
    ("control", "destination", "taken"),
    [
        (0, OUTSIDE, False),
        (1 << 3, OUTSIDE, True),
        (0, GROUPS[0], False),
        (1 << 4, GROUPS[0], True),
        (0, BROADCAST, False),
        (1 << 15, BROADCAST, True),
    ],
)
def test_without_vmdq_the_port_decides(control: int, destination: bytes, taken: bool) -> None:
    machine = Machine()
    machine.up()
    rings = machine.driver.open()
    machine.driver.write(0x0100, control | 1 << 1 | 1 << 26)
    machine.nic.receive(frame_for(destination))
    assert (rings.receive() is not None) == taken


def test_a_vlan_that_is_not_in_the_table_is_filtered_out() -> None:
    machine = Machine()
    machine.up()
    rings = machine.driver.open()
    machine.driver.set(0x0100, 1 << 18)
    machine.driver.write(0x5600, 1 << 5)
    for vlan, taken in ((5, True), (6, False)):
        machine.nic.receive(tagged(frame_for(machine.driver.mac), vlan))
        assert (rings.receive() is not None) == taken


def test_long_frames_are_taken_up_to_the_limit_that_software_sets() -> None:
    machine = Machine()
    machine.up()
    rings = machine.driver.open()
    machine.driver.write(0x5004, 2004)
    for length, taken in ((1514, True), (2000, True), (2001, False)):
        machine.nic.receive(frame_for(machine.driver.mac, length))
        assert (rings.receive() is not None) == taken
    machine.driver.write(0x0100, 1 << 1 | 1 << 26)
    machine.nic.receive(frame_for(machine.driver.mac, 1515))
    assert rings.receive() is None
