"""What a property asks a target: cases, and the check of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import strategies as st

from pagetables.memory import BusError
from vtd.fuzz import protocol, strategies
from vtd.fuzz.case import Case
from vtd.fuzz.departures import differences, known_differences, request_of
from vtd.fuzz.properties import CASE_PROPERTIES, Tally, Violation, carry_out, differential
from vtd.fuzz.qemu import QemuTarget
from vtd.fuzz.request_cases import request_cases
from vtd.fuzz.target_names import kept_target
from vtd.fuzz.targets import (
    CommandTarget,
    EndlessError,
    EngineTarget,
    FuzzTarget,
    JudgingTarget,
    TargetError,
    engine_as_qemu,
)
from vtd.unit.departures import QEMU, SPECIFICATION
from vtd.unit.registers.capabilities import PROFILES, Capabilities, unit_named

Expired = Callable[[], bool]
CaseCheck = Callable[[Case, Tally], None]
"""Raises Violation."""
Asked = tuple[st.SearchStrategy[Case], CaseCheck]


def cases_and_check(name: str, target_name: str, unit_name: str, expired: Expired) -> Asked:
    """What a property asks a target, by their names; any unit, without one.

    TargetError if the target does not work, or can't be asked that.
    """
    chosen = CASE_PROPERTIES[name]
    unit = unit_named(unit_name) if unit_name else None
    if target_name in ("", "oracle"):
        return chosen.cases if unit is None else chosen.cases_of(unit), chosen.check
    target = kept_target(target_name)
    if unit is not None and isinstance(target, JudgingTarget | QemuTarget):
        raise TargetError(f"{target.name} has a unit of its own")
    if isinstance(target, JudgingTarget):
        return _judged_by(target, name)
    if isinstance(target, CommandTarget):
        target.expired = expired
    cases = target_cases(name, target, unit=unit)
    if isinstance(target, QemuTarget):
        return cases, _check_qemu(engine_as_qemu(), target)
    return cases, differential(EngineTarget(), target)


def _check_qemu(engine: EngineTarget, qemu: QemuTarget) -> CaseCheck:
    """Agreement outside the table of known differences."""

    def check(case: Case, tally: Tally) -> None:
        expected, outcomes = engine.run(case), qemu.run(case)
        for each in differences(case, expected, outcomes):
            if known_differences(case, request_of(case, each), outcomes) is None:
                raise Violation(f"engine and {qemu.name} differ: {each}", case, expected)

    return check


def _judged_by(target: JudgingTarget, name: str) -> Asked:
    """The cases of a target that judges them."""
    if name not in target.properties:
        raise TargetError(f"{target.name}: its unit can't be asked property {name!r}")
    engine = EngineTarget()

    def check(case: Case, tally: Tally) -> None:
        run = engine.start(case)
        with tally.watch(run.unit), suppress(BusError, EndlessError):
            carry_out(run, case)
        target.check(case)

    return target.cases(name), check


def target_cases(
    name: str,
    target: FuzzTarget,
    flavour: strategies.Flavour | None = None,
    unit: Capabilities | None = None,
) -> st.SearchStrategy[Case]:
    """The cases of a property that an outside target is asked, for the units that it has.

    ``flavour``: of the tables of property ``tables``; any, without it. ``unit``: of all cases.
    """
    profiles = getattr(target, "profiles", ("qemu", "client", "openvmm"))
    known = [PROFILES[profile] for profile in profiles] if unit is None else [unit]
    units = st.sampled_from(known)
    anything = isinstance(target, CommandTarget)
    scalable = all("smts" in each.features for each in known)
    if name == "driver":
        return strategies.driver_cases(units)
    if name == "protocol":
        return protocol.protocol_cases(known)
    if name == "requests":
        return request_cases(units)
    qemu = isinstance(target, QemuTarget)
    if name == "interrupts":
        return strategies.interrupt_cases(units, wide_data=not qemu)
    departures = QEMU if qemu else SPECIFICATION
    return strategies.table_cases(
        flavour,
        units=units,
        scalable=None if anything else scalable,
        with_pasids=anything,
        departures=departures,
    )
