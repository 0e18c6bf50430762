"""The properties hold of the engine, and say what is wrong when they don't."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from vtd.fuzz import properties, strategies
from vtd.fuzz.case import Case, dma_read, mem_read, store
from vtd.fuzz.driver import ModelDriver
from vtd.fuzz.places import DESCRIPTOR, interrupt_place
from vtd.fuzz.properties import (
    BYTE_PROPERTIES,
    CASE_PROPERTIES,
    Tally,
    Violation,
    check_tables,
    differential,
)
from vtd.fuzz.request_cases import request_cases
from vtd.fuzz.strategies import Flavour
from vtd.fuzz.targets import EndlessError, EngineTarget, OracleTarget, compare
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor, PostedIrte
from vtd.layouts.registers import RootTableAddress
from vtd.unit.registers.capabilities import PROFILES


@pytest.mark.parametrize("name", CASE_PROPERTIES)
def test_a_property_holds_of_the_engine(name: str) -> None:
    chosen = CASE_PROPERTIES[name]

    @given(chosen.cases)
    def holds(case: Case) -> None:
        chosen.check(case, Tally())

    holds()


@pytest.mark.parametrize("name", BYTE_PROPERTIES)
@given(data=st.binary(max_size=120))
def test_bytes_are_always_dealt_with(name: str, data: bytes) -> None:
    BYTE_PROPERTIES[name][1](data, Tally())


@given(strategies.table_cases(Flavour.FLAWED))
def test_a_flawed_case_names_the_rule_it_breaks(case: Case) -> None:
    assert " turned over" in case.rule or "=" in case.rule


@given(strategies.table_cases(Flavour.VALID))
def test_a_valid_case_breaks_no_rule(case: Case) -> None:
    assert case.rule == "valid"


SOON = settings(max_examples=400, phases=[Phase.generate], deadline=None)


def test_some_requests_name_a_pasid_that_no_directory_has() -> None:
    def beyond(case: Case) -> bool:
        return any(int(str(step.get("pasid", 0)), 0) == 0x2000 for step in case.steps)

    assert find(strategies.table_cases(Flavour.VALID), beyond, settings=SOON)


def test_translation_requests_meet_flaws_of_tables() -> None:
    def aborts(case: Case) -> bool:
        """Table 30: what is reserved is answered with CA."""
        outcomes = zip(case.steps, EngineTarget().run(case), strict=True)
        return any(
            step["op"] == "ats_translate" and outcome == {"status": "CA"}
            for step, outcome in outcomes
        )

    assert find(request_cases(strategies.capabilities()), aborts, settings=SOON)


RUN_BY = {
    "dmar": "validate",
    "ept": "walk_bytes",
    "guest": "run_guest_program",
    "registers": "run_program",
    "vmcs": "enter_bytes",
    "vpd": "run_itanium_program",
}
"""What a property of bytes calls."""


@pytest.mark.parametrize("name", BYTE_PROPERTIES)
def test_what_is_raised_over_bytes_is_a_violation_with_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object, **__: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(properties, RUN_BY[name], raises)
    with pytest.raises(Violation, match=r"^IndexError: planted for 0102$"):
        BYTE_PROPERTIES[name][1](b"\1\2", Tally())


@pytest.mark.parametrize("name", ["guest", "vpd"])
def test_two_runs_that_should_be_alike_and_are_not_are_a_violation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = itertools.count()
    monkeypatch.setattr(properties, RUN_BY[name], lambda *_, **__: next(results))
    with pytest.raises(Violation, match=r"0102$"):
        BYTE_PROPERTIES[name][1](b"\1\2", Tally())


@given(strategies.dmar_tables())
def test_generated_dmar_tables_are_read_without_loss(data: bytes) -> None:
    BYTE_PROPERTIES["dmar"][1](data, Tally())


@given(strategies.capabilities())
def test_generated_units_do_not_contradict_themselves(unit: Any) -> None:
    known = {sentence for profile in PROFILES.values() for sentence in profile.check()}
    assert set(unit.check()) <= known


@given(st.data())
def test_register_programs_and_invalidation_sequences_are_carried_out(data: st.DataObject) -> None:
    unit = data.draw(strategies.capabilities())
    run = EngineTarget().start(Case(unit, ()))
    for offset, size, value in data.draw(strategies.register_programs(unit)):
        if value is None:
            assert 0 <= run.unit.read_register(offset, size) < 1 << 8 * size
        else:
            run.unit.write_register(offset, size, value)
    for descriptor in data.draw(strategies.invalidation_sequences(unit)):
        run.memory.load(0x1000, descriptor.to_bytes(32, "little"))
        run.unit.write_register(0x88, 8, 0)
        run.unit.write_register(0x90, 8, 0x1000 | RootTableAddress.WIDTH << 5)
        run.unit.write_register(0x88, 8, 32)


def test_the_oracle_posts_interrupts_as_the_engine_does() -> None:
    """Twice: the second finds a notification outstanding."""
    driver = ModelDriver(PROFILES["xeon"])
    descriptor = PostedInterruptDescriptor.of(nv=0x55, ndst=0x300)
    entry = PostedIrte.of(p=True, im=True, vv=0x41, pdal=DESCRIPTOR)
    driver.emit(store(DESCRIPTOR, descriptor, 64), store(interrupt_place(2).address, entry, 16))
    for _ in range(2):
        driver.interrupt("d0", 2)
    driver.emit(mem_read(DESCRIPTOR, 64))
    case = driver.case()
    outcomes = OracleTarget().run(case)
    first, second = (each["posted"] for each in outcomes if isinstance(each, dict))
    assert (first["vector"], first["notification"]["vector"]) == (0x41, 0x55)
    assert (first["notification"]["destination"], second["notification"]) == (3, None)
    assert not compare(case, outcomes, EngineTarget().run(case))


def test_register_programs_reach_the_registers_that_a_constant_brings() -> None:
    """MTRRCAP_REG says that there are variable ranges, at 180h."""
    unit = next(each for each in PROFILES.values() if "mts" in each.features)
    program = strategies.register_programs(unit)
    assert find(program, lambda accesses: any(0x180 <= each.offset < 0x220 for each in accesses))


class Forgetful(OracleTarget):
    """An oracle that lets everything through."""

    def run(self, case: Case) -> list[Any]:
        return [{"ok": True} if each == {"fault": True} else each for each in super().run(case)]


def test_a_violation_brings_its_case_and_the_right_outcomes() -> None:
    driver = ModelDriver(PROFILES["client"])
    driver.emit(dma_read("d0", 0x1000, 8))
    case = driver.case()
    with pytest.raises(Violation) as caught:
        differential(EngineTarget(), Forgetful())(case, Tally())
    assert caught.value.case is case
    assert {"fault": True} in caught.value.outcomes


def test_a_case_that_keeps_the_engine_busy_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtd.fuzz.targets.MOST_ACCESSES", 1)
    driver = ModelDriver(PROFILES["client"])
    driver.emit(dma_read("d0", 0x1000, 8), dma_read("d1", 0x1000, 8))
    with pytest.raises(EndlessError, match=r"no end of accesses, the last one: [a-z ]+ at 0x\d"):
        EngineTarget().run(driver.case())


def test_outcomes_that_a_target_does_not_know_are_not_compared() -> None:
    case = ModelDriver(PROFILES["client"]).case()
    outcomes = EngineTarget().run(case)
    assert not compare(case, outcomes, [None] * len(outcomes))
    check_tables(case, Tally())
