"""Replay of scenario files: each step carried out, and what it led to compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from devices.dma import Request
from vtd.recordings.scenario import (
    ACCESSES,
    Json,
    ScenarioError,
    ScenarioRun,
    broken,
    load_scenario,
    number,
    recorded_on_qemu,
)
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
    """Whether the file needed the option that follows QEMU in the known differences."""

    def to_json(self) -> Json:
        """The report in the form of ``vtd replay --format json``."""
        return {
            "file": self.file,
            "steps": self.steps,
            "passed": self.passed,
            "as_recorded": self.as_recorded,
            "mismatches": [mismatch._asdict() for mismatch in self.mismatches],
        }


def replay(path: Path, trace: Trace | None = None) -> Report:
    """Replay one file; one recorded on QEMU may fall back on the as-recorded option.

    A second run hands ``trace`` another unit.
    """
    scenario = load_scenario(path)
    with broken(str(path)):
        report = run_scenario(str(path), scenario, as_recorded=False, trace=trace)
        if report.mismatches and recorded_on_qemu(scenario):
            again = run_scenario(str(path), scenario, as_recorded=True, trace=trace)
            report = min(report, again, key=lambda each: len(each.mismatches))
    return report


def run_scenario(
    name: str,
    scenario: Mapping[str, Json],
    *,
    as_recorded: bool,
    trace: Trace | None = None,
) -> Report:
    """Carry out every step and compare."""
    steps = scenario["steps"]
    if not isinstance(steps, list):
        raise ScenarioError("steps: not a list")
    run = ScenarioRun(scenario, as_recorded=as_recorded)
    contradictions = run.unit.capabilities.check()
    if contradictions:
        raise ScenarioError(f"unit: {'; '.join(contradictions)}")
    report = Report(name, len(steps), as_recorded=as_recorded)
    for index, step in enumerate(steps):
        with broken(f"step {index}"):
            if trace is not None and step["op"] in ACCESSES:
                for request in run.requests(step):
                    trace(run.unit, f"step {index} {step['op']}", request)
            expect, got = run.step(step)
        if matches(expect, got):
            report.passed += 1
        else:
            report.mismatches.append(Mismatch(index, step["op"], expect, got))
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
