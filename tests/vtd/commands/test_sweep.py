"""``vtd sweep`` as somebody types it: shapes without quotes, files of results, going on."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("numba", reason="sweeps need the batch extra")
pytest.importorskip("pyarrow", reason="sweeps need the batch extra")

from pyarrow import parquet as pq

from vtd.cli import main
from vtd.commands import timed_steps
from vtd.sweeps.designs import Space, parse_shapes
from vtd.sweeps.outcomes import Outcome, State
from vtd.sweeps.results import load
from vtd.sweeps.running import MOST_PASSES, Task, parts_of, rounds_of, tasks_of
from vtd.sweeps.simulation import Batch
from vtd.sweeps.steps import begin, carry_on, carry_out, end, read_part
from vtd.traces import parquet
from vtd.traces.rows import TraceError
from vtd.workers import Wave, in_processes, on_cluster, waves_on_cluster

ROOT = Path(__file__).parents[3]
NIC = '[[stream]]\nkind = "nic"\nring = 64\nfunctions = 4\ninvalidation = "strict"\n'


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "w.toml").write_text(NIC)
    made = str(folder / "t.parquet")
    arguments = ["trace", "generate", str(folder / "w.toml"), "-o", made, "--rows", "6000"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return made


def in_groups(trace: str, folder: Path, rows: int) -> str:
    """The same trace in row groups of so many rows."""
    place = str(folder / "grouped.parquet")
    pq.write_table(pq.read_table(trace), place, row_group_size=rows)
    return place


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert result.exit_code == code, result.output
    if code:
        assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr if code else result.stdout


def test_shapes_are_written_without_quotes_and_every_combination_is_a_row(trace: str) -> None:
    words = [
        "--iotlb",
        "sets=1..4",
        "ways=1..4",
        "policy=lru,fifo",
        "--invalidation",
        "strict,none",
        "--jobs",
        "1",
    ]
    rows = [json.loads(line) for line in run(trace, *words, "--format", "jsonl").splitlines()]
    assert len(rows) == 3 * 4 * 2 * 2
    for row in rows:
        assert row["reads"] == 4 * row["misses"]
        assert row["miss_ratio"] == row["misses"] / row["lookups"]
    lru = {(row["sets"], row["ways"]): row["misses"] for row in rows if row["policy"] == "lru"}
    assert all(lru[sets, ways] >= lru[sets, ways + 1] for sets in (1, 2, 4) for ways in (1, 2, 3))


def test_tables_and_pages_change_what_a_miss_reads(trace: str) -> None:
    words = ("--iotlb", "ways=4", "--page-size", "4K,2M", "--tables", "4-level,5-level,nested")
    document = json.loads(run(trace, *words, "--jobs", "1", "--format", "json"))
    reads = {
        (row["page_size"], row["tables"]): row["reads"] / row["misses"]
        for row in document["results"]
    }
    assert reads == {
        ("4K", "4-level"): 4, ("4K", "5-level"): 5, ("4K", "nested"): 24,
        ("2M", "4-level"): 3, ("2M", "5-level"): 4, ("2M", "nested"): 15,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["r.parquet", "r.json"])
def test_results_come_back_from_their_file(trace: str, tmp_path: Path, name: str) -> None:
    place = str(tmp_path / name)
    printed = json.loads(
        run(trace, "--iotlb", "ways=1..3", "-o", place, "--jobs", "1", "--format", "json")
    )
    loaded = load(place)
    assert [each.misses for each in loaded] == [row["misses"] for row in printed["results"]]
    history = loaded[0].history
    assert history["misses"][-1] == loaded[0].misses
    assert len(history["time"]) == 100


def test_a_sweep_goes_on_where_it_was_stopped(
    trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    words = ("--iotlb", "sets=1..8 ways=1..2", "--state", str(state), "--jobs", "1")
    whole = run(trace, *words)
    lines = state.read_text().splitlines()
    assert len(lines) == 4
    state.write_text("\n".join(lines[:2]) + "\n" + lines[2][:50])
    carried: list[Task] = []

    def noted(task: Task) -> tuple[list[Outcome], float]:
        carried.append(task)
        return carry_out(task), 1.0

    monkeypatch.setattr(timed_steps, "carry_out", noted)
    again = run(trace, *words)
    assert [each.iotlb.sets for task in carried for each in task.passes] == [4, 8]
    assert again.splitlines()[:-1] == whole.splitlines()[:-1]
    run(trace, *words)
    assert len(carried) == 1
    state.write_text("nonsense\n{}\n")
    assert "line 1: not the state of a sweep" in run(trace, *words, code=2)


def die_once(job: tuple[Path, Task]) -> int:
    """The work of a worker that is killed the first time that it gets a job."""
    marker, task = job
    if not marker.exists():
        marker.touch()
        os._exit(9)
    return carry_out(task)[0].history[-1].misses[0]


def test_a_worker_that_is_killed_loses_nothing(trace: str, tmp_path: Path) -> None:
    passes = Space(parse_shapes("sets=1..8 ways=4")).passes()
    tasks = [task for each in passes for task in tasks_of(trace, [each], 1)]
    expected = [carry_out(task)[0].history[-1].misses[0] for task in tasks]
    jobs = [(tmp_path / str(number // 3), task) for number, task in enumerate(tasks)]
    assert sorted(in_processes(die_once, jobs, 2)) == sorted(expected)


@pytest.mark.parametrize(("workers", "tasks"), [(1, 3), (2, 4), (3, 3), (30, 20)])
def test_every_worker_gets_as_many_tasks_of_all_kinds(trace: str, workers: int, tasks: int) -> None:
    passes = Space(parse_shapes("sets=1..8 ways=1..5 policy=fifo")).passes()
    assert len(passes) == 20
    found = tasks_of(trace, passes, workers)
    assert len(found) == tasks
    divided = [each for task in found for each in task.passes]
    assert len(divided) == len(passes)
    assert set(divided) == set(passes)
    assert max(len(task.passes) for task in found) <= MOST_PASSES
    sets = [{each.iotlb.sets for each in task.passes} for task in found]
    assert len(passes) < 4 * tasks or all(len(each) > 1 for each in sets)


@pytest.mark.parametrize(
    ("passes", "workers", "rounds"),
    [
        (5, 2, [[2, 2, 1]]),
        (4, 2, [[2, 2]]),
        (1, 2, [[1]]),
        (3, 8, [[1, 1, 1]]),
        (20, 1, [[5, 5], [5, 5]]),
        (40, 2, [[7, 7, 6], [7, 7, 6]]),
    ],
)
def test_no_task_of_a_round_is_more_than_the_share_of_a_worker(
    trace: str, passes: int, workers: int, rounds: list[list[int]]
) -> None:
    every = Space(parse_shapes(f"ways=1..{passes} policy=fifo")).passes()
    found = rounds_of(trace, every, workers)
    assert [[len(task.passes) for task in tasks] for tasks in found] == rounds
    divided = [each for tasks in found for task in tasks for each in task.passes]
    assert len(divided) == passes
    assert set(divided) == set(every)
    for tasks in found:
        share = max(1, sum(len(task.passes) for task in tasks) // workers)
        assert all(len(task.passes) <= min(share, MOST_PASSES) for task in tasks)


def test_who_only_sends_steps_to_workers_imports_no_numba() -> None:
    needed = "vtd.commands.sweep", "vtd.commands.timed_steps", "vtd.sweeps.results", "vtd.workers"
    said = f"import sys, vtd.sweeps.running, {', '.join(needed)}; print('numba' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", said], capture_output=True, check=True)
    assert result.stdout.split() == [b"False"]


def test_the_state_belongs_to_the_trace(trace: str, tmp_path: Path) -> None:
    passes = Space(parse_shapes("ways=1..4")).passes()
    (task,) = tasks_of(trace, passes, 1)
    state = State(tmp_path / "s")
    state.keep(trace, carry_out(task))
    assert [each.wanted for each in State(tmp_path / "s").done(trace, passes)] == passes
    assert State(tmp_path / "s").done(str(ROOT / "README.md"), passes) == []


def test_what_is_wrong_is_one_line_and_nothing_is_written(trace: str, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"time": 5, "address": 1}\n{"time": 4, "address": 2}\n')
    said = run(str(bad), "-o", str(out), "--jobs", "1", code=2)
    assert said == f"vtd: {bad}: row 1, column time: 4 is less than 5, the row before\n"
    assert not out.exists()
    assert "policy=old" in run(trace, "--iotlb", "ways=4", "policy=old", code=2)
    assert "--page-size: '5K' is none of 4K" in run(trace, "--page-size", "5K", code=2)
    assert "'vax' is none of broadwell" in run(trace, "--profile", "vax", code=2)
    machine = str(ROOT / "examples" / "machines" / "server.toml")
    assert "is no function of the machine" in run(trace, "--machine", machine, code=2)
    assert "No such file" in run(str(tmp_path / "absent"), code=2)
    assert "several times: vtd trace convert" in run("-", "--jobs", "1", code=2)


def test_a_cluster_reads_parquet(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"address": 1}\n')
    with pytest.raises(TraceError, match="vtd trace convert it first"):
        parts_of(str(trace))


class DyingOnce:
    """``carry_on`` of a worker that is killed in the fifth part."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __call__(self, run: bytes, batches: list[Batch]) -> bytes:
        if pickle.loads(run).rows >= 4000 and not self._marker.exists():
            self._marker.touch()
            os._exit(9)
        return carry_on(run, batches)


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_survives_a_worker_that_is_killed(trace: str, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the cluster extra")
    trace = in_groups(trace, tmp_path, 1000)
    passes = Space(parse_shapes("sets=1..4 ways=4")).passes()
    tasks = [task for each in passes for task in tasks_of(trace, [each], 1)]
    expected = [carry_out(task)[0].history[-1].misses[0] for task in tasks]
    told: list[int] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        jobs = [(tmp_path / "killed", task) for task in tasks]
        found = list(on_cluster(die_once, jobs, cluster.scheduler_address))
        parts = parquet.parts_of(trace, 1)
        with distributed.Client(cluster) as client:
            client.wait_for_workers(2, timeout=60)  # the first one is back
            step = DyingOnce(tmp_path / "killed in a wave")
            wave = Wave(read_part, step, end)
            outcomes = waves_on_cluster(wave, parts, [*map(begin, tasks)], client, told.append)
        words = ("--iotlb", "sets=1..4", "ways=4", "--dask", cluster.scheduler_address)
        rows = json.loads(run(trace, *words, "--format", "json"))["results"]
    assert sorted(found) == sorted(expected)
    assert (tmp_path / "killed in a wave").exists()
    assert told == sorted(told)
    assert told[-1] > 1
    assert outcomes == [carry_out(task) for task in tasks]
    assert [row["misses"] for row in rows] == expected
