"""The model driver: silent as long as it keeps the rules, caught when it drops one."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from vtd.auditing.audit import Audit
from vtd.fuzz.case import Case
from vtd.fuzz.driver import ModelDriver, Operation
from vtd.fuzz.machine import machine_for
from vtd.fuzz.owed_invalidations import InvalidationRule
from vtd.fuzz.properties import Tally, carry_out, check_driver
from vtd.fuzz.strategies import driver_cases
from vtd.fuzz.targets import EngineTarget, OracleTarget
from vtd.layouts.entries import PasidTranslationType
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.registers.capabilities import PROFILES

USE = Operation("dma", {"device": "d0", "where": 0, "write": False})
AGAIN = Operation("repeat", {"count": 1, "write": False})


def attach(device: str, domain_id: int, kind: int = 0) -> Operation:
    return Operation("attach", {"device": device, "domain_id": domain_id, "kind": kind})


def map_page(domain_id: int, page: int = 1) -> Operation:
    arguments = {"domain_id": domain_id, "where": 8, "page": page, "count": 1}
    return Operation("map", arguments)


UNMAP = Operation("unmap", {"domain_id": 1, "where": 8, "count": 1})
MOVED = [attach("d0", 1), map_page(1), attach("d1", 2), map_page(2, 9), USE, attach("d0", 2), AGAIN]
INTERRUPT = Operation("interrupt", {"device": "d0", "index": 0})


def entry(vector: int) -> Operation:
    return Operation("interrupt_entry", {"index": 0, "vector": vector, "device": "d0"})


FIRST_STAGE, SECOND_STAGE = 0, 1
"""Kinds of domains of a unit with all of them, in scalable mode."""
REUSED = [
    attach("d0", 1, SECOND_STAGE),
    map_page(1),
    USE,
    attach("d0", 2, SECOND_STAGE),
    Operation("reuse", {"domain_id": 1, "kind": SECOND_STAGE}),
    map_page(1, 9),
    attach("d0", 1),
    AGAIN,
]
PROGRAMS: dict[InvalidationRule, tuple[str, bool, list[Operation]]] = {
    InvalidationRule.CONTEXT_CACHE: ("client", False, MOVED),
    InvalidationRule.DOMAIN_AFTER_CONTEXT: ("client", False, MOVED),
    InvalidationRule.PASID_CACHE: ("xeon", True, MOVED),
    InvalidationRule.IOTLB_AFTER_PASID: ("xeon", True, MOVED),
    InvalidationRule.PAGES_AFTER_UNMAP: ("client", False, [*MOVED[:2], USE, UNMAP, AGAIN]),
    InvalidationRule.PASID_PAGES_AFTER_UNMAP: ("xeon", True, [*MOVED[:2], USE, UNMAP, AGAIN]),
    InvalidationRule.HINT_CLEAR: (
        "client",
        False,
        [*MOVED[:2], USE, UNMAP, attach("d1", 2), map_page(2), map_page(1, 9), AGAIN],
    ),
    InvalidationRule.DOMAIN_REUSE: ("xeon", True, REUSED),
    InvalidationRule.INTERRUPT_ENTRY: (
        "client",
        False,
        [entry(40), INTERRUPT, entry(41), INTERRUPT],
    ),
}


@pytest.mark.parametrize("drop", [None, InvalidationRule.PAGES_AFTER_UNMAP])
def test_a_guest_table_that_the_host_takes_away_is_gone_once_it_is_invalidated(
    drop: InvalidationRule | None,
) -> None:
    driver = ModelDriver(PROFILES["xeon"], scalable=True, drop=drop)
    nested = driver.kinds.index(PasidTranslationType.NESTED)
    withdraw = Operation("withdraw", {"device": "d0", "where": 0})
    driver.run([attach("d0", 1, nested), map_page(1), withdraw])
    case = driver.case()
    expected = [outcome for outcome in OracleTarget().run(case) if isinstance(outcome, dict)]
    assert ["fault" in outcome for outcome in expected] == [False, True, True, False]
    missing = f"missing page-selective iotlb_inv of domain {driver.domains[1].domain_id}"
    uses = findings(case)
    assert len(uses) == (0 if drop is None else 2)
    assert all(missing in use for use in uses)
    stale = {use.partition(" entry (")[0] for use in uses}
    assert stale == (set() if drop is None else {"IOTLB", "first-stage paging-structure cache"})


@given(driver_cases())
def test_a_driver_that_keeps_the_rules_never_notices_the_caches(case: Case) -> None:
    check_driver(case, Tally())


def findings(case: Case) -> list[str]:
    run = EngineTarget(AGGRESSIVE).start(case)
    audit = Audit(run.unit)
    carry_out(run, case, audit)
    return [str(use) for use in audit.findings]


def program(rule: InvalidationRule, drop: InvalidationRule | None) -> Case:
    profile, scalable, operations = PROGRAMS[rule]
    driver = ModelDriver(PROFILES[profile], scalable=scalable, drop=drop)
    driver.run(operations)
    return driver.case()


@pytest.mark.parametrize("rule", InvalidationRule, ids=lambda rule: rule.name)
def test_the_audit_catches_a_driver_that_drops_a_rule(rule: InvalidationRule) -> None:
    assert findings(program(rule, drop=rule))


@pytest.mark.parametrize("rule", InvalidationRule, ids=lambda rule: rule.name)
def test_the_same_program_with_the_rule_kept_has_no_findings(rule: InvalidationRule) -> None:
    check_driver(program(rule, drop=None), Tally())


def test_dropped_rules_are_found_in_random_programs_too() -> None:
    case = find(
        driver_cases(st.just(PROFILES["client"]), drop=InvalidationRule.DOMAIN_AFTER_CONTEXT),
        lambda case: len(case.steps) < 150 and bool(findings(case)),  # one that can be shown
        settings=settings(
            max_examples=500,
            database=None,
            derandomize=True,
            deadline=None,
            phases=(Phase.generate,),
        ),
    )
    assert case.rule == InvalidationRule.DOMAIN_AFTER_CONTEXT.value


MACHINE_SETTINGS = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    phases=(Phase.generate,),
)


@pytest.mark.parametrize("profile, scalable", [("client", False), ("xeon", True)])
def test_the_driver_as_a_state_machine_agrees_with_the_oracle_at_every_step(
    profile: str, scalable: bool
) -> None:
    machine: type[RuleBasedStateMachine] = machine_for(PROFILES[profile], scalable=scalable)
    run_state_machine_as_test(machine, settings=MACHINE_SETTINGS)


@pytest.mark.parametrize(
    "profile, rule",
    [("client", InvalidationRule.PAGES_AFTER_UNMAP), ("xeon", InvalidationRule.PASID_CACHE)],
)
def test_the_state_machine_fails_where_the_driver_drops_a_rule(
    profile: str, rule: InvalidationRule
) -> None:
    machine = machine_for(PROFILES[profile], scalable=profile == "xeon", drop=rule)
    with pytest.raises(AssertionError, match="owed"):
        run_state_machine_as_test(machine, settings=settings(MACHINE_SETTINGS, max_examples=300))
