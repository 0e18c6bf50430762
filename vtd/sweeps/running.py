"""A sweep as tasks: a trace and some passes each, whose outcomes are kept as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vtd.sweeps.designs import Pass
from vtd.sweeps.simulation import NEEDED, Array, Counts, simulate
from vtd.traces import parquet
from vtd.traces.places import opened, size_of
from vtd.traces.reading import read_trace
from vtd.traces.rows import TraceError

WINDOWS = 100
"""Times of a trace at which counters are kept."""
MOST_PASSES = 8
"""Of a task: reading the trace is then little beside them."""


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
        return parquet.count_rows(trace)
    return sum(len(rows) for rows in read_trace(trace))


def carry_out(task: Task) -> list[Outcome]:
    """Run the passes of a task through its trace; TraceError for one that is wrong."""
    first: list[int] = []
    requesters = 0
    history: list[list[Counts]] = []
    window = max(1, -(-task.rows // WINDOWS))
    for _, count, told in simulate(_batches(task.trace, first), task.passes, window):
        requesters, history = count, told or history
    start = first[0] if first else 0
    return [
        Outcome(wanted, requesters, start, each)
        for wanted, each in zip(task.passes, history, strict=True)
    ]


def _batches(trace: str, first: list[int]) -> Iterator[Mapping[str, Array]]:
    names = (*NEEDED, "source_id", "pasid")
    batches: Iterator[Any] = parquet.read_columns(trace) if is_parquet(trace) else read_trace(trace)
    for batch in batches:
        if not first and len(batch["time"]):
            first.append(int(batch["time"][0]))
        yield {name: np.ascontiguousarray(batch[name]) for name in names}


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
