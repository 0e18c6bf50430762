"""A sweep as tasks: a trace and some passes each, whose outcomes are kept as they come."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vtd.sweeps.designs import Pass
from vtd.sweeps.simulation import Batch, Counts, Run, batch_of
from vtd.traces import parquet
from vtd.traces.places import opened, size_of
from vtd.traces.reading import read_trace
from vtd.traces.rows import TraceError

WINDOWS = 100
"""Times of a trace at which counters are kept."""
MOST_PASSES = 8
"""Of a task: reading the trace is then little beside them."""
ROWS_OF_A_PART = 1 << 21
"""Some 60 MB in memory, and some 50 ms for a pass."""
READ = tuple(name for name in parquet.COLUMNS if name != "target")
"""Columns that are read, and checked."""


class Task(NamedTuple):
    """What one worker does at a time."""

    trace: str
    passes: tuple[Pass, ...]
    rows: int
    """Of the trace."""


@dataclass(frozen=True)
class Outcome:
    """What came of one pass."""

    wanted: Pass
    requesters: int
    start: int
    """Time of the first row."""
    history: list[Counts]


def tasks_of(trace: str, passes: Sequence[Pass], workers: int) -> list[Task]:
    """As few tasks as keep the workers busy until the end; reads how long the trace is.

    Each worker gets as many, with passes from all over the list, as neighbours cost alike.
    """
    rows = count_rows(trace)
    each = -(-len(passes) // (MOST_PASSES * workers))
    count = min(len(passes), each * workers)
    return [Task(trace, tuple(passes[at::count]), rows) for at in range(count)]


def is_parquet(trace: str) -> bool:
    """Whether columns can be read as they are."""
    with opened(trace) as stream:
        return stream.read(len(parquet.MAGIC)) == parquet.MAGIC


def count_rows(trace: str) -> int:
    """How many rows a trace has; TraceError for one that can't be read several times."""
    if trace == "-":
        raise TraceError("a sweep reads its trace several times: vtd trace convert - -o FILE first")
    if is_parquet(trace):
        return sum(parquet.group_sizes(trace))
    return sum(len(rows) for rows in read_trace(trace))


def carry_out(task: Task) -> list[Outcome]:
    """Run the passes of a task through its trace; TraceError for one that is wrong."""
    run = begin(task)
    columns: Iterator[Any] = (
        parquet.read_columns(task.trace, columns=READ)
        if is_parquet(task.trace)
        else read_trace(task.trace)
    )
    for each in columns:
        run.feed(batch_of(each))
    return outcomes_of(task, run)


def begin(task: Task) -> Run:
    """The passes of a task before the first row."""
    return Run(task.passes, max(1, -(-task.rows // WINDOWS)))


def outcomes_of(task: Task, run: Run) -> list[Outcome]:
    """What came of the passes of a task, whose run saw all rows."""
    return [
        Outcome(wanted, run.requesters, run.start or 0, each)
        for wanted, each in zip(task.passes, run.history(), strict=True)
    ]


def parts_of(trace: str) -> list[parquet.Part]:
    """A trace in parts that can be read alone; TraceError for one that is not Parquet."""
    if trace == "-" or not is_parquet(trace):
        raise TraceError("workers of a cluster read Parquet: vtd trace convert it first")
    return parquet.parts_of(trace, ROWS_OF_A_PART)


def read_part(part: parquet.Part) -> list[Batch]:
    """The rows of a part; TraceError for wrong ones."""
    return [batch_of(each) for each in parquet.read_columns(part.place, part, READ)]


def carry_on(run: Run, batches: Sequence[Batch]) -> Run:
    """Another run, which has seen those rows too."""
    after: Run = pickle.loads(pickle.dumps(run))
    for each in batches:
        after.feed(each)
    return after


class State:
    """Outcomes that are done, a JSON line each, so that a sweep goes on where it was stopped.

    A line belongs to a trace by its place and size. One that is cut short does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[tuple[str, int, str], dict[str, Any]] = {}
        self._whole = 0
        """Bytes of the file that are whole lines."""
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                told = json.loads(line)
                self._lines[told["trace"], told["size"], told["pass"]] = told
                self._whole += len(line.encode())
            except (ValueError, TypeError, KeyError) as error:
                if number < len(lines):
                    raise ValueError(f"line {number}: not the state of a sweep") from error

    def done(self, trace: str, passes: Sequence[Pass]) -> list[Outcome]:
        """The outcomes of those passes through a trace that are done."""
        size = size_of(trace)
        found = []
        for wanted in passes:
            told = self._lines.get((trace, size, wanted.key))
            if told is not None:
                history = [Counts(**each) for each in told["history"]]
                found.append(Outcome(wanted, told["requesters"], told["start"], history))
        return found

    def keep(self, trace: str, outcomes: Sequence[Outcome]) -> None:
        """Note outcomes, at the end of the file."""
        size = size_of(trace)
        with self._path.open("ab") as stream:
            stream.truncate(self._whole)
            for outcome in outcomes:
                told = {
                    "trace": trace,
                    "size": size,
                    "pass": outcome.wanted.key,
                    "requesters": outcome.requesters,
                    "start": outcome.start,
                    "history": [asdict(each) for each in outcome.history],
                }
                stream.write(json.dumps(told).encode() + b"\n")
            self._whole = stream.tell()
