"""Whole translations against the oracle: addresses, fault reasons, flags in memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fault_coverage
from tests.fault_coverage import LEGAL, ROOT
from tests.translation_oracle import Refused
from tests.vtd.directed_faults import CASES
from tests.vtd.world import Mode, World
from tests.vtd.world_strategies import flawed_worlds, hostile_worlds, valid_worlds, worlds_for
from vtd.events import RequestBlocked
from vtd.faults import FaultReason


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
def test_nested_translations_agree_with_the_oracle(world: World) -> None:
    agree(world)


@pytest.mark.slow
@given(st.sampled_from(Mode).flatmap(flawed_worlds) | hostile_worlds())
@settings(max_examples=10_000)
def test_all_translations_agree_with_the_oracle(world: World) -> None:
    agree(world)
