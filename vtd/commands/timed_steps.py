"""Steps of a sweep with the CPU time that they take; a client that sends them needs no numba."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vtd.sweeps.outcomes import Outcome
    from vtd.sweeps.running import Task
    from vtd.sweeps.simulation import Batch
    from vtd.traces.parquet import Part

    Answer = tuple[list[Outcome], float]
    """What came of a task, and the CPU time of its thread in seconds."""


class Timed(NamedTuple):
    """A run between two steps, and its CPU time."""

    run: bytes
    seconds: float
    share: float
    """Of the time that reading takes, which is for several runs."""


def carry_out(task: Task) -> Answer:
    """All of a task."""
    from vtd.sweeps import steps  # noqa: PLC0415 - imports numba

    start = time.thread_time()
    return steps.carry_out(task), time.thread_time() - start


def begin(task: Task, share: float) -> Timed:
    """A task before the first row, with its share of reading."""
    from vtd.sweeps import steps  # noqa: PLC0415

    return Timed(steps.begin(task), 0.0, share)


def read_part(part: Part) -> tuple[list[Batch], float]:
    """A part of a trace, and the CPU time of reading it."""
    from vtd.sweeps import steps  # noqa: PLC0415

    start = time.thread_time()
    return steps.read_part(part), time.thread_time() - start


def carry_on(state: Timed, read: tuple[list[Batch], float]) -> Timed:
    """A run after another part."""
    from vtd.sweeps import steps  # noqa: PLC0415

    start, (batches, reading) = time.thread_time(), read
    run = steps.carry_on(state.run, batches)
    seconds = state.seconds + state.share * reading + time.thread_time() - start
    return state._replace(run=run, seconds=seconds)


def end(state: Timed) -> Answer:
    """What came of a task after the last part."""
    from vtd.sweeps import steps  # noqa: PLC0415

    return steps.end(state.run), state.seconds
