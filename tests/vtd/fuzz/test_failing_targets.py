"""Programs that die, hang or answer nonsense over a case are findings and end no campaign."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from vtd.fuzz.case import Case, reg_read
from vtd.fuzz.job import Job, run_job
from vtd.fuzz.replaying import replay_on
from vtd.fuzz.target_names import close_targets
from vtd.fuzz.targets import CaseFailedError, CommandTarget, TargetError
from vtd.unit.registers.capabilities import PROFILES

CASE = Case(PROFILES["qemu"], (reg_read(0, 4, 0xFF),))
PROGRAM = """
import json, os, sys, time
for line in sys.stdin:
    steps = json.loads(line)["steps"]
    if steps:
        {deed}
    print(json.dumps({{"outcomes": [None] * len(steps)}}), flush=True)
"""


def program(folder: Path, deed: str) -> str:
    """A command that does something wrong over every case that has steps."""
    file = folder / "target.py"
    file.write_text(PROGRAM.format(deed=deed))
    return shlex.join([sys.executable, str(file)])


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.abort()", "ended by signal SIGABRT"),
        ("sys.exit(3)", "ended with exit code 3"),
        ("print('nonsense', flush=True)", "answered 'nonsense"),
        ("steps = []", "not one outcome for each of 1 steps"),
    ],
)
def test_a_program_that_fails_over_a_case_is_told_and_started_anew(
    tmp_path: Path, deed: str, said: str
) -> None:
    target = CommandTarget(program(tmp_path, deed))
    try:
        for _ in range(2):
            with pytest.raises(CaseFailedError, match=said):
                target.run(CASE)
        assert target.run(Case(PROFILES["qemu"], ())) == []
    finally:
        target.close()


def test_a_program_that_hangs_is_stopped(tmp_path: Path) -> None:
    target = CommandTarget(program(tmp_path, "time.sleep(600)"), limit=2)
    try:
        with pytest.raises(CaseFailedError, match="no answer in 2 seconds"):
            target.run(CASE)
    finally:
        target.close()


def test_a_program_that_fails_without_any_step_does_not_work(tmp_path: Path) -> None:
    file = tmp_path / "dead.py"
    file.write_text("raise SystemExit(1)")
    target = CommandTarget(shlex.join([sys.executable, str(file)]))
    with pytest.raises(TargetError, match="fails without any step"):
        target.run(CASE)
    target.close()


def test_a_crash_is_a_finding_with_a_small_case_and_a_command(tmp_path: Path) -> None:
    name = f"command:{program(tmp_path, 'os.abort()')}"
    try:
        result = run_job(Job("protocol", name, 0))
    finally:
        close_targets()
    (failure,) = result.failures
    assert "SIGABRT" in failure.why
    assert failure.scenario is not None
    assert len(failure.scenario["steps"]) == 1
    assert f"--target {shlex.quote(name)} --seed 0" in failure.command


def test_nothing_but_steps_are_left_out_of_what_a_program_dies_of(tmp_path: Path) -> None:
    """It is started anew for each try: each has to count."""
    deed = "open('started', 'a').write('x'); os.abort()"
    name = f"command:{program(tmp_path, deed.replace('started', str(tmp_path / 'started')))}"
    try:
        result = run_job(Job("driver", name, 0))
    finally:
        close_targets()
    (failure,) = result.failures
    assert failure.scenario is not None
    assert len(failure.scenario["steps"]) == 1
    assert len((tmp_path / "started").read_text()) < 40


def test_a_scenario_is_replayed_on_a_target(tmp_path: Path) -> None:
    scenario = Path(__file__).parents[2] / "vectors" / "legacy_3level_4k.json.gz"
    target = CommandTarget(program(tmp_path, "pass"))
    report = replay_on(scenario, target)
    target.close()
    assert report.passed == report.steps
    crashing = CommandTarget(program(tmp_path, "os.abort()"))
    (mismatch,) = replay_on(scenario, crashing).mismatches
    crashing.close()
    assert "SIGABRT" in str(mismatch.got)
