"""A machine that is kept running, as a target of the fuzzer; the engine plays the machine."""

import itertools
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtd.cli import main
from vtd.commands.kit_machine import open_guest
from vtd.conformance import guest_target
from vtd.fuzz import job as fuzz_job
from vtd.fuzz.job import CampaignResult, Job, run_job
from vtd.fuzz.target_names import OPENERS, close_targets
from vtd.fuzz.targets import TargetError

ROOT = Path(__file__).parents[3]
MACHINE = f"command:{shlex.quote(sys.executable)} -m tests.vtd.conformance.interpreter {{image}}"


@pytest.fixture(autouse=True)
def small_campaigns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(fuzz_job, "TARGET_CASES_PER_SEED", 3)
    monkeypatch.setattr(guest_target, "SILENCE", 1.0)
    monkeypatch.setitem(OPENERS, "guest", open_guest)


def after(calls: int) -> Callable[[], bool]:
    """Time that is up after so many questions."""
    counted = itertools.count()
    return lambda: next(counted) >= calls


def found(machine: str, name: str) -> CampaignResult:
    try:
        return run_job(Job(name, f"guest:{machine}", 0), expired=after(6))
    finally:
        close_targets()


@pytest.mark.parametrize("name", ["driver", "interrupts"])
def test_a_good_unit_gives_no_finding(name: str) -> None:
    result = found(MACHINE, name)
    assert (result.failures, result.tally.cases) == ([], 3)
    assert result.tally.faults or result.tally.encounters


def test_a_wrong_unit_is_found_and_its_scenario_opens_in_replay(tmp_path: Path) -> None:
    machine = f"{MACHINE} qemu wrong-entry"
    (failure,) = found(machine, "driver").failures
    assert "expected" in failure.why
    assert failure.command == (
        f"vtd fuzz --property driver --target {shlex.quote('guest:' + machine)} --seed 0 --count 1"
    )
    path = tmp_path / "found.json"
    path.write_text(json.dumps(failure.scenario))
    right = CliRunner().invoke(main, ["replay", str(path)])
    assert right.exit_code == 0, right.output
    wrong = CliRunner().invoke(main, ["replay", str(path), "--target", f"guest:{machine}"])
    assert wrong.exit_code == 1, wrong.output


def test_a_hang_is_a_finding() -> None:
    machine = f"{MACHINE} qemu hang"
    (failure,) = found(machine, "interrupts").failures
    assert "the machine hangs" in failure.why
    assert "--seed 0 --count 1" in failure.command
    assert failure.scenario is not None
    assert any(step["op"] == "msi" for step in failure.scenario["steps"])


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ("vmware", "neither qemu nor command"),
        ("command:false", "did not start the image"),
        ("command:/absent {image}", "/absent"),
    ],
)
def test_a_machine_that_is_none_is_named(machine: str, why: str) -> None:
    with pytest.raises(TargetError, match=why):
        open_guest(machine)


def test_a_guest_has_a_unit_of_its_own() -> None:
    with pytest.raises(TargetError, match="has a unit of its own"):
        run_job(Job("driver", f"guest:{MACHINE}", 0, "qemu"))
    close_targets()
