"""Devices that keep to no rule: what a plan that works lets them do to other guests is nothing."""

from __future__ import annotations

from hypothesis import given

from devices.function import PciFunction
from devices.rogue import BEHAVIOURS, Behaviour, Rogue, Sights
from tests.vtd.host.plan_strategies import plans
from tests.vtd.host.test_running import PLANS, of_text, run
from vtd.host.guests import Passed
from vtd.host.plan import Plan
from vtd.host.running import RunningHost


def one_device(host: RunningHost, one: PciFunction, other: PciFunction) -> bool:
    """Whether two functions are of one device, which alone keeps them apart (HOST-N05)."""
    topology = host.platform.topology
    places = [topology.bdf(each) for each in (one, other)]
    physical = [topology.physical_function(place) or place for place in places]
    return physical[0].source_id >> 3 == physical[1].source_id >> 3


def sights(passed: Passed, other: Passed, host: RunningHost) -> Sights:
    """What a device may have found out about another one, of another guest."""
    own = next(iter(passed.guest.reached()), (0, 4096, 0))
    foreign = next(iter(other.guest.reached()), (0, 4096, 0))
    elsewhere = host.platform.topology.requester_id(other.function)
    return Sights(
        own=own[0],
        length=64,
        foreign=foreign[0],
        physical=foreign[2],
        own_physical=own[2],
        elsewhere=elsewhere,
        neighbour=elsewhere,
        message=(0xFEE0_0000, bytes([0x99, 0, 0, 0])),
        peer=0xC000_0000,
    )


def memory_of(host: RunningHost, name: str) -> bytes:
    guest = host.guests[name]
    return b"".join(host.physical.read(each.host, each.size) for each in guest.memory)


def act(host: RunningHost, passed: Passed, other: Passed, behaviour: Behaviour) -> None:
    rogue = Rogue(
        passed.function, host.platform.topology, host.platform.port_as, sights(passed, other, host)
    )
    behaviour.act(rogue)


@given(plans())
def test_no_behaviour_changes_a_byte_of_another_guest(plan: Plan) -> None:
    host = run(plan)
    if host is None:
        return
    before = {name: memory_of(host, name) for name in host.guests}
    for passed in host.passed:
        for other in host.passed:
            if other.guest is passed.guest or one_device(host, passed.function, other.function):
                continue
            for behaviour in BEHAVIOURS:
                act(host, passed, other, behaviour)
        for name, memory in before.items():
            if name == passed.guest.name:
                before[name] = memory_of(host, name)
            else:
                assert memory_of(host, name) == memory


def test_a_device_can_do_that_to_its_own_functions() -> None:
    """The note HOST-N05 is needed: spoofing inside a device is stopped by nobody."""
    host = of_text((PLANS / "server.toml").read_text())
    one, other = host.passed[0], host.passed[1]
    assert one_device(host, one.function, other.function)
    before = memory_of(host, other.guest.name)
    spoof = next(each for each in BEHAVIOURS if each.name == "spoof-neighbour")
    act(host, one, other, spoof)
    assert memory_of(host, other.guest.name) != before
