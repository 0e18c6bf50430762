"""Replay of scenario files: each step carried out, and what it led to compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from devices.dma import Request
from vtd.recordings.scenario import Scenario, ScenarioRun, broken, load_scenario
from vtd.recordings.steps import Dma
from vtd.recordings.values import Json, ScenarioError, number
from vtd.unit.departures import QEMU, Departures
from vtd.unit.unit import RemappingUnit

Trace = Callable[[RemappingUnit, str, Request], None]
"""Told of each request for memory before it is made: the unit, the step, the request."""


class Mismatch(NamedTuple):
    """A step whose outcome was another one."""

    step: int
    op: str
    expect: Json
    got: Json


@dataclass
class Report:
    """What the replay of one file found."""

    file: str
    steps: int
    passed: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    as_recorded: bool = False
    """Whether the unit departed from the specification in all that QEMU does."""
    not_compared: list[str] = field(default_factory=list)
    """Parts that the file may have and has not."""
    counted_by: str = "step"
    """What the numbers of the mismatches count: steps from 0 or lines from 1."""

    def to_json(self) -> Json:
        """The report in the form of ``vtd replay --format json``."""
        missing = {"not_compared": self.not_compared} if self.not_compared else {}
        return {
            "file": self.file,
            "steps": self.steps,
            "passed": self.passed,
            "as_recorded": self.as_recorded,
            "mismatches": [
                {self.counted_by: step, "op": op, "expect": expect, "got": got}
                for step, op, expect, got in self.mismatches
            ],
            **missing,
        }


def replay(
    path: Path, trace: Trace | None = None, *, departures: Departures | None = None
) -> Report:
    """Replay one file; one recorded on QEMU may fall back on all that QEMU departs in.

    ``departures``: of the unit, with no second run. A second run hands ``trace`` another unit.
    """
    raw = load_scenario(path)
    with broken(str(path)):
        scenario = Scenario.parse(raw)
        report = run_scenario(str(path), scenario, departures=departures, trace=trace)
        if report.mismatches and departures is None and scenario.recorded_on_qemu:
            again = run_scenario(str(path), scenario, departures=QEMU, trace=trace)
            report = min(report, again, key=lambda each: len(each.mismatches))
    return report


def run_scenario(
    name: str,
    scenario: Scenario,
    *,
    departures: Departures | None = None,
    trace: Trace | None = None,
) -> Report:
    """Carry out every step and compare; without ``departures`` those that the scenario names."""
    run = ScenarioRun(scenario, departures=departures)
    contradictions = run.unit.capabilities.check()
    if contradictions:
        raise ScenarioError(f"unit: {'; '.join(contradictions)}")
    as_recorded = run.unit.options.departures == QEMU
    report = Report(name, len(scenario.steps), as_recorded=as_recorded)
    carry_out = run.carry_out
    for index, step in enumerate(scenario.steps):
        with broken(f"step {index}"):
            if trace is not None and isinstance(step, Dma):
                for request in run.requests(step):
                    trace(run.unit, f"step {index} {step.op}", request.plain)
            got = carry_out(step)
            if matches(step.expect, got):
                report.passed += 1
            else:
                report.mismatches.append(Mismatch(index, step.op, step.expect, got))
    return report


def matches(expect: Json, got: Json) -> bool:
    """Whether an outcome is the expected one: keys that are left out are not compared."""
    if isinstance(expect, dict) and isinstance(got, dict):
        return all(key in got and matches(value, got[key]) for key, value in expect.items())
    if isinstance(expect, list) and isinstance(got, list):
        return len(expect) == len(got) and all(map(matches, expect, got))
    if isinstance(expect, str) and isinstance(got, int):
        return number(expect) == got
    return bool(expect == got)
