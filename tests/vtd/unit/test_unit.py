"""Commands of software: GCMD and GSTS, table pointers, what they do to caches; any program."""

import pickle
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import (
    ATOMIC,
    READ,
    WRITE,
    AddressType,
    Atomic,
    AtomicOp,
    AtsClient,
    PageGroupResponse,
    Request,
    ResponseCode,
)
from devices.function import Identity, PciFunction
from tests.support.world import (
    HOST,
    INTERRUPTS,
    PAGE,
    QUEUE,
    ROOT,
    Mode,
    Started,
    World,
    capabilities,
)
from vtd.layouts.registers import RootTableAddress
from vtd.unit.departures import Departures
from vtd.unit.implementation import without_registers
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

TE, SRTP, WBF, QIE, IRE, SIRTP, CFI = 1 << 31, 1 << 30, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 1 << 23
LEVELS = TE | QIE | IRE | CFI


def status(unit: RemappingUnit) -> int:
    return unit.read_register(0x1C, 4)


def make(**changes: int) -> RemappingUnit:
    world = World(Mode.LEGACY, capabilities(**changes))
    return RemappingUnit(world.unit, world.memory)


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=8))
@pytest.mark.section("11.4.4.2")
def test_the_status_shows_what_the_command_asked_for(commands: list[int]) -> None:
    unit = make()
    shots = 0
    for command in commands:
        unit.write_register(0x18, 4, command)
        shots |= command & (SRTP | SIRTP)
        assert status(unit) == command & LEVELS | shots
        assert unit.read_register(0x18, 4) == 0


def test_functions_that_a_unit_does_not_have_stay_off() -> None:
    unit = make(qi=0, ir=0, eim=0, dt=0, smts=0)
    unit.write_register(0x18, 4, 0xFFFF_FFFF)
    assert status(unit) == TE | SRTP


@pytest.mark.section("6.6", "11.4.5")
def test_the_root_table_takes_effect_with_srtp() -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    world.memory.write(0x7000, world.memory.read(ROOT, 0x1000))
    assert started.admit() is not None
    started.unit.write_register(0x20, 8, 0x8000_0000)
    started.unit.caches.clear()
    assert started.admit() is not None
    started.command(srtp=True)
    assert started.admit() is None
    started.set_root(RootTableAddress.of(rta=0x7000))
    assert started.admit() is not None


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
@pytest.mark.parametrize("esrtps", [0, 1])
@pytest.mark.section("6.6")
def test_srtp_invalidates_where_esrtps_says_so(esrtps: int, mode: Mode) -> None:
    world = World(mode, capabilities(esrtps=esrtps))
    started = world.start()
    assert started.admit() is not None
    world.change("second1", addr=HOST)
    world.change("context", p=False)
    assert started.admit() == HOST | PAGE
    started.command(srtp=True)
    assert started.admit() == (None if esrtps else HOST | PAGE)


@pytest.mark.parametrize("smts", [0, 1])
def test_disabling_translation_invalidates_in_a_scalable_unit(smts: int) -> None:
    features = {} if smts else {"smts": 0}
    world = World(Mode.LEGACY, capabilities(**features))
    started = world.start()
    assert started.admit() is not None
    world.change("context", p=False)
    started.command(te=False)
    assert started.admit() == world.address  # as it is
    started.command(te=True)
    assert started.admit() == (None if smts else HOST | PAGE)


def test_switching_translation_to_what_it_is_changes_nothing() -> None:
    started = World(Mode.LEGACY).start()
    assert started.admit() is not None
    started.command(te=True)
    assert len(started.unit.caches.iotlb) == 1


def test_fault_logging_starts_over_when_everything_is_off() -> None:
    started = World(Mode.LEGACY).start()
    started.command(ire=True)

    def index_of_next_fault() -> int:
        started.clear_records()
        started.admit(Request(1, 1 << 60, READ))
        return next(index for index in range(8) if started.record(index).f)

    assert [index_of_next_fault() for _ in range(3)] == [0, 1, 2]
    started.command(te=False)
    started.command(te=True)
    assert index_of_next_fault() == 3  # interrupt remapping was still on
    started.command(ire=False)
    assert index_of_next_fault() == 4
    started.command(te=False)
    started.command(te=True)
    assert index_of_next_fault() == 0


def test_a_pasid_is_ignored_while_translation_is_off() -> None:
    started = World(Mode.SECOND).start()
    started.command(te=False)
    assert started.admit(Request(1, 0x1234, READ, 4, pasid=5)) == 0x1234


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_makes_a_unit(profile: str) -> None:
    world = World(Mode.LEGACY_PASS_THROUGH, capabilities())
    unit = RemappingUnit(PROFILES[profile], world.memory)
    assert unit.read_register(8, 8) == PROFILES[profile].cap
    assert unit.read_register(16, 8) == PROFILES[profile].ecap
    assert status(unit) == 0


def test_a_recorded_unit_resets_as_it_was_recorded() -> None:
    world = World(Mode.LEGACY)
    unit = RemappingUnit(
        world.unit, world.memory, Options(departures=Departures(unmask_page_request_event=True))
    )
    assert unit.read_register(0xE0, 4) == 0


VALUES = st.one_of(
    st.sampled_from([0, 1, 1 << 31, 1 << 63, (1 << 64) - 1, ROOT, ROOT | 1 << 10, QUEUE, 0x40]),
    st.integers(0, (1 << 64) - 1),
)
OFFSETS = st.one_of(
    st.sampled_from([0x18, 0x20, 0x28, 0x2C, 0x34, 0x38, 0x64, 0x88, 0x90, 0xB8, 0x508, 0x50C]),
    st.integers(0, 0x1100),
    st.integers(0, 1 << 64),
)
register_steps = st.lists(
    st.tuples(OFFSETS, st.sampled_from([1, 2, 4, 4, 4, 8, 8, 16, 0]), VALUES), max_size=40
)


@given(register_steps, st.sampled_from(Mode), st.binary(min_size=64, max_size=64))
@settings(max_examples=150)
def test_any_register_program_is_carried_out(
    program: list[tuple[int, int, int]], mode: Mode, queue: bytes
) -> None:
    world = World(mode)
    for offset in range(0, 0x1000, 64):
        world.memory.write(QUEUE + offset, queue)
    started = world.start()
    for offset, size, value in program:
        started.unit.write_register(offset, size, value & (1 << size * 8) - 1)
        assert 0 <= started.unit.read_register(offset, size) < 1 << 64
        for access in (READ, WRITE, ATOMIC):
            started.admit(world.request._replace(access=access))
        started.port().write(INTERRUPTS | 0x10, bytes(4))


@given(register_steps, register_steps, st.sampled_from(Mode), st.booleans())
def test_a_pickled_unit_and_a_fork_have_the_same_future(
    before: list[tuple[int, int, int]],
    after: list[tuple[int, int, int]],
    mode: Mode,
    caching_mode: bool,
) -> None:
    world = World(mode, capabilities(cm=caching_mode))
    started = world.start()

    interrupt = Request(7, INTERRUPTS | 0x10, WRITE, 4, payload=bytes(4))

    def run(unit: RemappingUnit, program: list[tuple[int, int, int]]) -> list[object]:
        seen: list[object] = []
        for offset, size, value in program:
            unit.write_register(offset, size, value & (1 << size * 8) - 1)
            seen.append(unit.read_register(offset, size))
            seen.extend(
                unit.admit(world.request._replace(access=access, address=address))
                for access in (READ, WRITE)
                for address in (world.request.address, HOST | PAGE)
            )
            seen.append(unit.admit(interrupt))
        return seen

    run(started.unit, before)
    copies = pickle.loads(pickle.dumps(started.unit)), started.unit.fork(world.memory.fork())
    future = run(started.unit, after)
    for each in copies:
        assert run(each, after) == future


def test_the_window_answers_only_what_the_specification_provides_for() -> None:
    started: Started = World(Mode.LEGACY).start()
    for offset, size in ((0x19, 4), (0x20, 2), (0x8, 16), (1 << 40, 8)):
        started.unit.write_register(offset, size, 0)
        assert started.unit.read_register(offset, size) == 0


def test_a_unit_is_a_region_that_a_bar_can_hold() -> None:
    unit = World(Mode.LEGACY).start().unit
    bar = PciFunction(Identity(0x8086, 0x1234, 0x088000)).add_bar(0, 0x1000)
    bar.place(0, 0x1000, unit)
    bar.write(0x40, 4, 0xFEE0_1000)  # FEADDR_REG
    assert bar.read(0x40, 4) == unit.read_register(0x40, 4) == 0xFEE0_1000
    assert bar.read(0x8, 8) == unit.capabilities.cap


def test_a_unit_on_other_memory_has_the_state_of_the_first() -> None:
    started = World(Mode.LEGACY).start()
    other = started.unit.fork(started.world.memory)
    assert other.registers.values == started.unit.registers.values
    assert other.read_register(0x1C, 4) == started.unit.read_register(0x1C, 4) != 0
    assert other.admit(started.world.request) == HOST | PAGE


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("address_type", [AddressType.UNTRANSLATED, AddressType.TRANSLATED])
def test_an_untranslated_atomic_has_to_be_aligned(aligned: bool, address_type: AddressType) -> None:
    started = World(Mode.PASS_THROUGH).start()
    world = started.world
    address = (HOST | PAGE) + (0 if aligned else 2)
    swap = Atomic(AtomicOp.SWAP, bytes(4))
    request = Request(world.source_id, address, ATOMIC, 4, payload=swap)
    answer = started.unit.admit(request._replace(address_type=address_type))
    assert (answer == address) == (aligned or address_type is AddressType.TRANSLATED)


def test_an_atomic_of_no_bytes_is_aligned_everywhere() -> None:
    started = World(Mode.PASS_THROUGH).start()
    request = Request(started.world.source_id, (HOST | PAGE) + 1, ATOMIC, 0)
    assert started.unit.admit(request) == request.address


def test_only_functions_without_room_for_their_registers_are_named() -> None:
    near = {"fro": 0x100, "iro": 0x500}
    assert without_registers(capabilities(mts=0, **near)) == []
    (told,) = without_registers(capabilities(mts=1, **near))
    assert told.startswith("11.4: MTS is reported")


def test_messages_for_a_device_that_is_detached_go_nowhere() -> None:
    unit, client = make(dt=1), Mock(spec=AtsClient)
    unit.attach(0x10, client)
    unit.detach(0x10)
    unit.detach(0x10)  # it is nowhere already
    unit.devices.send_response(0x10, PageGroupResponse(ResponseCode.SUCCESS, 1), automatic=False)
    assert client.mock_calls == []
