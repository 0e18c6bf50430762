"""Reset and power: what is left of registers, caches and messages that are on their way."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, InvalidationRequest, PageGroupResponse, Request
from tests.support.world import HOST, PAGE, Mode, World, capabilities
from vtd.layouts.descriptors import DeviceTlbInvalidateDescriptor, IotlbInvalidateDescriptor
from vtd.layouts.registers import FaultStatus
from vtd.unit.departures import Departures
from vtd.unit.observer import Observer
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

OFFSETS = range(0, 0x1000, 4)


def registers(unit: RemappingUnit) -> list[int]:
    return [unit.read_register(offset, 4) for offset in OFFSETS]


@pytest.mark.parametrize("profile", PROFILES)
@given(
    writes=st.lists(st.tuples(st.sampled_from(OFFSETS), st.integers(0, (1 << 32) - 1)), max_size=12)
)
def test_a_power_good_reset_leaves_nothing_that_software_wrote(
    profile: str, writes: list[tuple[int, int]]
) -> None:
    world = World(Mode.LEGACY)
    unit = RemappingUnit(PROFILES[profile], world.memory)
    fresh, state = registers(unit), unit.snapshot()
    for offset, value in writes:
        unit.write_register(offset, 4, value)
    unit.reset()
    assert registers(unit) == fresh
    assert unit.snapshot() == state


def test_after_a_reset_requests_pass_untranslated_and_nothing_is_cached() -> None:
    world = World(Mode.SECOND)
    started = world.start()
    assert started.admit() == HOST | PAGE
    port = started.port()
    started.unit.reset()
    assert started.unit.read_register(0x1C, 4) == 0
    assert started.admit() == world.address
    assert not len(started.unit.caches.iotlb)
    started.set_root(world.root)
    started.command(te=True)
    world.change("second1", addr=HOST)
    assert started.admit() == HOST
    assert port.read(world.address, 4).ok


@pytest.mark.parametrize("power_good", [False, True])
@pytest.mark.section("11.3")
def test_sticky_fields_are_lost_at_a_power_good_reset_only(power_good: bool) -> None:
    started = World(Mode.LEGACY).start()
    started.admit(Request(1, 1 << 60, READ))
    before = started.record()
    assert before.f
    started.unit.reset(power_good=power_good)
    assert started.record() == (0 if power_good else before)
    assert started.unit.registers[FaultStatus].ppf == (not power_good)
    assert started.unit.faults.next_index == 0


def test_what_the_unit_departs_in_holds_after_a_reset_too() -> None:
    options = Options(departures=Departures(unmask_page_request_event=True))
    unit = World(Mode.SECOND).start(options).unit
    for power_good in (False, True):
        unit.reset(power_good=power_good)
        assert unit.read_register(0xE0, 4) == 0


class Silent:
    """A device-TLB that never answers."""

    def __init__(self) -> None:
        self.requests: list[InvalidationRequest] = []

    def invalidate(self, request: InvalidationRequest) -> None:
        self.requests.append(request)

    def page_response(self, response: PageGroupResponse) -> None:
        raise AssertionError


def test_a_reset_forgets_invalidations_on_their_way_and_keeps_whom_they_go_to() -> None:
    world = World(Mode.SECOND)
    started, device = world.start(), Silent()
    started.unit.attach(world.source_id, device)
    for _ in range(2):
        started.enable_queue(wide=True)
        started.submit(DeviceTlbInvalidateDescriptor.of(sid=world.source_id))
        assert started.unit.devices.pending
        started.unit.reset(power_good=False)
        assert not started.unit.devices.pending
        started.command(qie=False)
    assert len(device.requests) == 2


def test_who_watches_is_told_of_a_reset_and_stays() -> None:
    class Told(Observer):
        resets = 0

        def reset(self) -> None:
            self.resets += 1

    started, told = World(Mode.LEGACY).start(), Told()
    started.unit.observe(told)
    started.unit.reset(power_good=False)
    started.unit.suspend()
    started.unit.resume()
    assert told.resets == 2


def test_a_unit_without_power_answers_nothing_until_it_comes_back_as_after_power_on() -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    fresh = registers(RemappingUnit(world.unit, world.memory))
    assert started.admit() is not None
    started.command(te=False)
    started.unit.suspend()
    for unit in (started.unit, pickle.loads(pickle.dumps(started.unit))):
        assert set(registers(unit)) == {0xFFFF_FFFF}
        assert unit.read_register(8, 8) == (1 << 64) - 1
        unit.write_register(0x18, 4, 1 << 31)
        port = UnitPort(unit, world.memory, world.source_id)
        assert not port.read(HOST, 4).ok
        assert not port.write(0xFEE0_0000, bytes(4)).ok
        assert not port.translate(world.address).ok
        unit.resume()
        assert registers(unit) == fresh
        assert port.read(HOST, 4).ok


def test_a_queue_and_translation_are_programmed_again_after_a_reset() -> None:
    world = World(Mode.SECOND, capabilities(esrtps=0))
    started = world.start()
    started.enable_queue(wide=True)
    assert started.admit() is not None
    started.unit.reset()
    started.command(te=False, qie=False)
    started.enable_queue(wide=True)
    started.set_root(world.root)
    started.command(te=True)
    world.change("second1", w=False)
    assert started.admit() is not None
    started.submit(IotlbInvalidateDescriptor.of(g=1))
    assert not started.unit.registers[FaultStatus]


def test_a_reset_is_a_power_good_one_unless_it_is_said_not_to_be() -> None:
    started = World(Mode.LEGACY).start()
    started.admit(Request(1, 1 << 60, READ))
    assert started.record().f
    started.unit.reset()
    assert not started.record()
