"""What workers do with a task: all of it, or step by step, elsewhere for each part of the trace."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from vtd.sweeps.outcomes import Outcome
from vtd.sweeps.running import Task, is_parquet
from vtd.sweeps.simulation import Batch, Run, batch_of
from vtd.traces import parquet

WINDOWS = 100
"""Times of a trace at which counters are kept."""
READ = tuple(name for name in parquet.COLUMNS if name != "target")
"""Columns that are read, and checked."""


def carry_out(task: Task) -> list[Outcome]:
    """Run the passes of a task through its trace; TraceError for one that is wrong."""
    run = _begun(task)
    for each in _columns(task.trace):
        run.feed(batch_of(each))
    return run.outcomes()


def _columns(trace: str) -> Iterator[Any]:
    if is_parquet(trace):
        return parquet.read_columns(trace, columns=READ)
    from vtd.traces.reading import read_trace  # noqa: PLC0415 - all readers of logs

    return read_trace(trace)


def _begun(task: Task) -> Run:
    return Run(task.passes, max(1, -(-task.rows // WINDOWS)))


def begin(task: Task) -> bytes:
    """The passes of a task before the first row, as they travel between workers."""
    return pickle.dumps(_begun(task))


def read_part(part: parquet.Part) -> list[Batch]:
    """The rows of a part; TraceError for wrong ones."""
    return [batch_of(each) for each in parquet.read_columns(part.place, part, READ)]


def carry_on(run: bytes, batches: Sequence[Batch]) -> bytes:
    """A run after the rows of another part."""
    after: Run = pickle.loads(run)
    for each in batches:
        after.feed(each)
    return pickle.dumps(after)


def end(run: bytes) -> list[Outcome]:
    """What came of a run that saw all rows."""
    last: Run = pickle.loads(run)
    return last.outcomes()
