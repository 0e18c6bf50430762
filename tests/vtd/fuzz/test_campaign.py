"""Campaigns: seeds repeat, failures become scenarios, and it does not matter where they run."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vtd.fuzz import byte_cases
from vtd.fuzz import job as fuzz_job
from vtd.fuzz.campaign import jobs_of, run
from vtd.fuzz.campaign_state import State
from vtd.fuzz.job import Job, run_job
from vtd.fuzz.properties import BYTE_PROPERTIES, CASE_PROPERTIES, Violation
from vtd.fuzz.target_names import PROPERTIES, close_targets, default_properties, open_target
from vtd.fuzz.targets import TargetError
from vtd.recordings.replay import replay

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "external_target"
REFERENCE = f"command:{shlex.join([sys.executable, str(EXAMPLES / 'reference.py')])}"


@pytest.fixture(autouse=True)
def small_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_job, "CASES_PER_SEED", 15)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(byte_cases, "BYTE_CASES_PER_SEED", 50)


def test_a_seed_gives_the_same_result_again() -> None:
    job = Job("tables", "", 3)
    assert run_job(job) == run_job(job)


def test_every_property_runs_by_its_name() -> None:
    result = run(jobs_of(PROPERTIES, "", [1]))
    assert not result.failures
    assert result.seeds == [1] * len(PROPERTIES)
    assert result.tally.faults


def test_processes_find_what_one_process_finds() -> None:
    jobs = list(jobs_of(["interrupts"], "", range(3)))
    one, two = run(jobs), run(jobs, processes=2)
    assert sorted(one.seeds) == sorted(two.seeds)


class Expires:
    """Time that is up after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("name", ["tables", "vmcs"])
def test_time_that_is_up_ends_a_seed_in_its_middle(name: str) -> None:
    result = run_job(Job(name, "", 3), expired=Expires(5))
    assert (result.tally.cases, result.seeds, result.failures) == (5, [], [])
    whole = run_job(Job(name, "", 3), expired=Expires(1000))
    assert whole.tally.cases >= 15 and whole.seeds == [3]


@pytest.mark.parametrize("name", ["tables", "vmcs"])
def test_a_failure_found_before_time_is_up_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: object) -> None:
        raise Violation("always")

    if name == "tables":
        changed = CASE_PROPERTIES[name]._replace(check=check)
        monkeypatch.setitem(CASE_PROPERTIES, name, changed)
    else:
        monkeypatch.setitem(BYTE_PROPERTIES, name, ("never", check, 100))
    (failure,) = run_job(Job(name, "", 3), expired=Expires(4)).failures
    assert failure.why == "always"


def test_a_campaign_ends_when_time_is_up() -> None:
    result = run(jobs_of(["vmcs"], "", itertools.count()), expired=Expires(120))
    assert result.seeds == [0, 1]


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    State(path).save("tables", 7)
    assert State(path).first("tables", 0) == 7
    assert State(path).first("driver", 2) == 2
    path.write_text("[]")
    with pytest.raises(ValueError, match="state"):
        State(path)


@pytest.mark.parametrize("name", ["nothing", "library:", "library:/nowhere.so", "qemu:@other"])
def test_a_target_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(TargetError):
        open_target(name)


def test_outside_targets_are_asked_what_they_can_do() -> None:
    assert default_properties("oracle") == PROPERTIES
    assert default_properties("qemu:@qemu") == ("tables", "interrupts")
    for name in ("registers", "flags"):
        with pytest.raises(TargetError, match=f"property '{name}', but tables and interrupts"):
            run_job(Job(name, "qemu:@qemu", 0))


def test_a_target_can_be_asked_for_interrupts() -> None:
    try:
        result = run(jobs_of(["interrupts"], REFERENCE, range(1)))
    finally:
        close_targets()
    assert not result.failures
    assert result.tally.cases > 10


def test_a_target_that_agrees_has_no_failures() -> None:
    try:
        result = run(jobs_of(["driver"], REFERENCE, range(2)))
    finally:
        close_targets()
    assert not result.failures
    assert result.tally.cases > 10


def test_a_buggy_target_is_caught_and_the_scenario_replays(tmp_path: Path) -> None:
    try:
        jobs = jobs_of(["driver"], f"{REFERENCE} --buggy", range(20))
        result = run(jobs, enough=lambda total: bool(total.failures))
    finally:
        close_targets()
    (failure,) = result.failures
    path = tmp_path / "failure.json"
    path.write_text(json.dumps(failure.scenario))
    assert not replay(path).mismatches  # the engine does what the scenario expects
    words = shlex.split(failure.command)
    assert words[words.index("--target") + 1] == failure.target
    assert words[words.index("--seed") + 1] == str(failure.seed)


def build(folder: Path, *flags: str) -> str:
    library = folder / f"reference{len(flags)}.so"
    source = EXAMPLES / "reference.c"
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", library, source], check=True)
    return f"library:{library}"


def has_compiler() -> bool:
    try:
        return subprocess.run(["cc", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not has_compiler(), reason="no C compiler")
def test_a_shared_library_agrees_and_its_buggy_sister_is_caught(tmp_path: Path) -> None:
    jobs = [Job("tables", build(tmp_path), seed) for seed in range(3)]
    result = run(jobs)
    assert not result.failures, result.failures[0].why
    buggy = build(tmp_path, "-DBUGGY")
    for name in ("tables", "driver"):
        found = run(jobs_of([name], buggy, range(20)), enough=lambda total: bool(total.failures))
        (failure,) = found.failures
        assert failure.scenario is not None
        assert len(failure.scenario["steps"]) < 12, failure.scenario["steps"]


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_of_two_worker_processes_runs_the_same_seeds() -> None:
    distributed = pytest.importorskip("distributed")
    jobs = list(jobs_of(["interrupts"], "", range(4)))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client:
            processes = set(client.run(os.getpid).values())
        result = run(jobs, cluster=cluster.scheduler_address)
    assert len(processes - {os.getpid()}) == 2
    assert sorted(result.seeds) == [0, 1, 2, 3]
    assert not result.failures
