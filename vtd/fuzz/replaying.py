"""Scenario files carried out by a target of the fuzzer, and compared with what they expect."""

from __future__ import annotations

from pathlib import Path

from vtd.fuzz.case import case_of
from vtd.fuzz.targets import CaseFailedError, FuzzTarget
from vtd.recordings.replay import Mismatch, Report
from vtd.recordings.scenario import broken, load_scenario


def replay_on(path: Path, target: FuzzTarget) -> Report:
    """The report of one file; a target that fails over it is a mismatch of the first step.

    ScenarioError for a file that is none, TargetError for a target that does not work.
    """
    raw = load_scenario(path)
    with broken(str(path)):
        case = case_of(raw)
        expected = [step.get("expect") for step in raw["steps"]]
    report = Report(str(path), steps=len(case.steps))
    try:
        outcomes = target.run(case)
    except CaseFailedError as error:
        report.mismatches.append(Mismatch(0, case.steps[0]["op"], expected[0], str(error)))
        return report
    for number, (step, wanted, got) in enumerate(zip(case.steps, expected, outcomes, strict=True)):
        if wanted is None or got is None or wanted == got:
            report.passed += 1
        else:
            report.mismatches.append(Mismatch(number, step["op"], wanted, got))
    return report
