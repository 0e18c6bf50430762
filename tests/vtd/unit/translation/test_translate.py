"""Whole translations against the oracle: addresses, fault reasons, flags in memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import READ, WRITE
from tests.support import fault_coverage
from tests.support.directed_faults import CASES
from tests.support.fault_coverage import LEGAL, ROOT
from tests.support.translation_oracle import Refused
from tests.support.world import HOST, PAGE, Mode, World, capabilities
from tests.support.world_strategies import flawed_worlds, hostile_worlds, valid_worlds, worlds_for
from vtd.layouts.entries import AddressWidth
from vtd.unit.caching.policy import POLICIES
from vtd.unit.departures import SPECIFICATION, Departures
from vtd.unit.options import Options
from vtd.unit.reporting.events import RequestBlocked
from vtd.unit.requests.faults import FaultReason


def agree(world: World) -> int | FaultReason:
    """Compare the unit with the oracle: outcome, record, and every word of memory."""
    words = world.words()
    expected = world.expected(words)
    started = world.start()
    got = started.admit()
    assert {where: word for where, word in words.words.items() if word} == world.words().words
    if got is not None:
        assert got == expected
        assert started.events == []
        return got
    assert isinstance(expected, Refused)
    (event,) = started.events
    assert isinstance(event, RequestBlocked)
    assert event.reason in expected.reasons
    suppressed = expected.fpd and event.reason not in fault_coverage.UNQUALIFIED
    assert event.recorded == (not suppressed)
    assert started.status().ppf == event.recorded
    return event.reason


@pytest.mark.parametrize("mode", Mode)
def test_what_is_set_up_by_the_rules_is_translated(mode: Mode) -> None:
    @given(valid_worlds(mode))
    @settings(max_examples=40)
    def check(world: World) -> None:
        agree(world)

    check()


@pytest.mark.parametrize("mode", Mode)
def test_broken_rules_have_the_faults_of_the_oracle(mode: Mode) -> None:
    @given(flawed_worlds(mode))
    @settings(max_examples=100)
    def check(world: World) -> None:
        agree(world)

    check()


def reasons_met(worlds: st.SearchStrategy[World]) -> set[int]:
    """Fault reasons that some examples meet, each compared with the oracle."""
    reasons: set[int] = set()

    @given(worlds)
    @settings(max_examples=6)
    def explore(world: World) -> None:
        outcome = agree(world)
        if isinstance(outcome, FaultReason):
            reasons.add(outcome)

    explore()
    return reasons


@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize("mode", Mode)
def test_every_code_is_reached_by_generated_tables(mode: Mode, fpd: bool) -> None:
    for code in sorted(LEGAL):
        cases = [case for case in CASES if case.reason == code and mode in case.modes]
        if cases:
            worlds = st.one_of(*(worlds_for(mode, case, fpd=fpd) for case in cases))
            assert code in reasons_met(worlds)
            where = ROOT if cases[0].root else mode.value
            fault_coverage.reached(code, where, "generated", fpd=fpd)


@given(hostile_worlds())
@settings(max_examples=100)
def test_random_structures_do_nothing_but_the_architected_fault(world: World) -> None:
    agree(world)


@pytest.mark.slow
@given(flawed_worlds(Mode.NESTED) | valid_worlds(Mode.NESTED))
@settings(max_examples=10_000)
@pytest.mark.section("3.8")
def test_nested_translations_agree_with_the_oracle(world: World) -> None:
    agree(world)


@pytest.mark.slow
@given(st.sampled_from(Mode).flatmap(flawed_worlds) | hostile_worlds())
@settings(max_examples=10_000)
def test_all_translations_agree_with_the_oracle(world: World) -> None:
    agree(world)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.SECOND, Mode.NESTED])
def test_an_entry_that_changes_under_a_flag_update_is_walked_again(mode: Mode, moved: bool) -> None:
    """Software removes or moves the page just before the unit sets D in its entry."""
    world = World(mode)
    world.change("pasid", ssade=True)
    world.ask(access=WRITE)
    name, dirty = ("second1", 1 << 9) if mode is Mode.SECOND else ("first1", 1 << 6)
    gone = {"r": False, "w": False} if mode is Mode.SECOND else {"p": False}
    address, _ = world.places[name]
    seen: list[int] = []

    def meddle(kind: str, where: int, size: int, value: int) -> None:
        if kind == "update" and where == address and value & dirty and not seen:
            seen.append(value)
            world.change(name, **({"addr": world.get(name).addr + 0x1000} if moved else gone))

    world.hook = meddle
    outcome = world.start().admit()
    assert len(seen) == 1
    assert outcome == (HOST | PAGE + 0x1000 if moved else None)
    assert bool(world.get(name) & dirty) == moved


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND, Mode.NESTED, Mode.FIRST])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.section("3.15")
def test_a_large_page_does_not_hide_the_interrupt_range(mode: Mode, policy: str) -> None:
    world = World(mode, first_size=30, second_size=30, pasid=None)
    for name in ("first3", "second3"):
        if name in world.places and not (mode is Mode.NESTED and name == "first3"):
            world.change(name, addr=0xC000_0000)
    started = world.start(Options(caches=POLICIES[policy]))
    if mode is Mode.NESTED:
        world.put("second3", HOST | 0x83)  # the tables are needed
        world.change("first3", addr=world.guest + (1 << 30))
        address, record = world.places["second3"]
        world.add("more", address + 8, record.of(r=True, w=True, ps=True, addr=0xC000_0000))
    base = world.address & -(1 << 30)
    for offset in (0x3ED0_0000, 0x3EDF_F000, 0x3EE0_0000, 0x3EEF_F000, 0x3EF0_0000):
        request = world.request._replace(address=base | offset)
        for _ in range(2):
            refused = offset >> 20 == 0x3EE
            assert started.admit(request) == (None if refused else 0xC000_0000 | offset)


@pytest.mark.parametrize(
    ("mode", "change", "reason"),
    [
        (Mode.LEGACY, ("root", 0xFFE), 0x01),
        (Mode.LEGACY, ("context", 0xFF0), 0x02),
        (Mode.LEGACY, ("second1", 1 << 62), 0x06),
        (Mode.SECOND, ("context", 0x180), 0x41),
        (Mode.SECOND, ("directory", 0xFFC), 0x51),
        (Mode.SECOND, ("pasid", 1 << 5), 0x59),
        (Mode.SECOND, ("second1", 1 << 62), 0x79),
        (Mode.FIRST, ("first1", 1 << 51), 0x71),
    ],
)
def test_reserved_bits_of_an_entry_that_is_not_present_do_not_count(
    mode: Mode, change: tuple[str, int], reason: int
) -> None:
    world = World(mode)
    name, bits = change
    world.put(name, bits)
    assert agree(world) == reason


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.SECOND, Mode.NESTED])
@pytest.mark.section("3.6.2", "3.7.2")
def test_a_read_sets_accessed_and_a_write_dirty_too(mode: Mode) -> None:
    world = World(mode)
    world.change("pasid", ssade=True, eafe=True)
    started = world.start()
    names = [name for name in world.places if name[:5] in ("first", "secon") and " " not in name]
    pages = {name for name in names if name.endswith("1")}
    for access in (READ, WRITE):
        assert started.admit(world.request._replace(access=access)) == HOST | PAGE
        for name in names:
            entry = world.get(name)
            assert entry.a
            if name.startswith("first"):
                assert entry.ea
            if name in pages:
                assert entry.d == (access == WRITE)


def test_recorded_units_set_flags_on_walks_that_are_not_snooped() -> None:
    world = World(Mode.FIRST, capabilities(ssts=0, nest=0))
    world.change("pasid", pwsnp=False, aw=2)
    unchecked, snooped = Departures(ignore_aw_without_ssts=True), Departures(snoop_every_walk=True)
    for departures, reason in ((SPECIFICATION, 0x5A), (snooped, 0x5A), (unchecked, 0x90)):
        record = world.start(Options(departures=departures)).refusal()
        assert record is not None and record.fr == reason
    assert world.start(Options(departures=unchecked | snooped)).admit() == HOST | PAGE
    assert world.get("first1").a
    world.change("pasid", pgtt=2)
    world.set_bits("pasid", 1 << 5)
    other_order = Departures(check_pgtt_before_reserved=True)
    for departures, reason in ((SPECIFICATION, 0x5A), (other_order, 0x5B)):
        record = world.start(Options(departures=departures)).refusal()
        assert record is not None and record.fr == reason


@pytest.mark.parametrize(("aw", "high", "ok"), [(0, 0, True), (0, 1, False), (1, 0x1FF, False),
                                                (1, 0xFF, True), (2, 0x1FFFF, True)])  # fmt: skip
@pytest.mark.section("9.6")
def test_aw_does_not_say_how_wide_a_first_stage_is(aw: int, high: int, ok: bool) -> None:
    """It does where the unit departs so: canonical are addresses of 30, 39 or 48 bits then."""
    world = World(Mode.FIRST, high=high)
    world.change("pasid", aw=aw)
    assert world.start().admit() == HOST | PAGE
    record = world.start(Options(departures=Departures(check_canonical_by_aw=True))).refusal()
    assert record is None if ok else record is not None and record.fr == 0x80


@pytest.mark.parametrize("width", sorted(capabilities().address_widths))
@pytest.mark.section("3.9")
def test_addresses_that_legacy_mode_passes_through_are_limited_by_aw_too(
    width: AddressWidth,
) -> None:
    world = World(Mode.LEGACY_PASS_THROUGH)
    world.change("context", aw=width)
    started = world.start()
    limit = min(30 + 9 * width, 46)
    assert started.admit(world.request._replace(address=(1 << limit) - 0x1000)) is not None
    assert started.admit(world.request._replace(address=1 << limit)) is None
    assert started.record().fr == FaultReason.ADDRESS_BEYOND_WIDTH
