"""A sweep as tasks: a trace and some passes each, or its parts one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vtd.sweeps.designs import Pass
from vtd.traces import parquet
from vtd.traces.places import opened
from vtd.traces.rows import TraceError

MOST_PASSES = 8
"""Of a task: reading the trace is then little beside them."""
ROWS_OF_A_PART = 1 << 21
"""Some 60 MB in memory, and some 50 ms for a pass."""


class Task(NamedTuple):
    """What one worker does at a time."""

    trace: str
    passes: tuple[Pass, ...]
    rows: int
    """Of the trace."""


def tasks_of(trace: str, passes: Sequence[Pass], workers: int) -> list[Task]:
    """As few tasks as keep the workers busy until the end; reads how long the trace is.

    Each worker gets as many, with passes from all over the list, as neighbours cost alike.
    """
    rows = count_rows(trace)
    each = -(-len(passes) // (MOST_PASSES * workers))
    count = min(len(passes), each * workers)
    return [Task(trace, tuple(passes[at::count]), rows) for at in range(count)]


def rounds_of(trace: str, passes: Sequence[Pass], workers: int) -> list[list[Task]]:
    """Tasks that go through the parts of a trace one behind the other, in as few rounds as can be.

    No task of a round has more than a worker's share of it, or the others would wait for it.
    """
    rows = count_rows(trace)
    rounds = -(-len(passes) // (2 * MOST_PASSES * workers))
    found = []
    for number in range(rounds):
        some = passes[number::rounds]
        count = -(-len(some) // max(1, min(MOST_PASSES, len(some) // workers)))
        found.append([Task(trace, tuple(some[at::count]), rows) for at in range(count)])
    return found


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
    from vtd.traces.reading import read_trace  # noqa: PLC0415 - all readers of logs

    return sum(len(rows) for rows in read_trace(trace))


def parts_of(trace: str) -> list[parquet.Part]:
    """A trace in parts that can be read alone; TraceError for one that is not Parquet."""
    if trace == "-" or not is_parquet(trace):
        raise TraceError("workers of a cluster read Parquet: vtd trace convert it first")
    return parquet.parts_of(trace, ROWS_OF_A_PART)
