"""``vtd sweep``: a trace through many cache designs at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from vtd.commands import timed_steps
from vtd.commands.counted import counted
from vtd.commands.design_options import DesignCommand, Designs
from vtd.commands.extras import needing
from vtd.commands.file_names import file_to_write, parquet_or
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.progress import StatusLine
from vtd.commands.trace_files import known_sources, open_rows

if TYPE_CHECKING:
    from vtd.commands.timed_steps import Answer
    from vtd.sweeps.designs import Pass
    from vtd.sweeps.outcomes import Outcome
    from vtd.sweeps.results import Result

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Run(NamedTuple):
    """How the work was divided."""

    workers: int
    seconds: float
    cpu_seconds: float
    """Of all tasks that were carried out now."""

    @property
    def efficiency(self) -> float | None:
        """CPU time used of what the workers had; None if nothing had to be done."""
        return self.cpu_seconds / (self.seconds * self.workers) if self.cpu_seconds else None


@app.command(cls=DesignCommand)
@with_option_groups
def sweep(
    traces: Annotated[
        list[str],
        typer.Argument(metavar="TRACE...", help="As of vtd trace; Parquet is read quickest."),
    ],
    designs: Designs,
    costs: Annotated[
        str, typer.Option(help="hit=2,structure=5,read=50,outside=0 ns; walks=1; link=0 Gb/s")
    ] = "",
    machine: Annotated[
        str | None,
        typer.Option(metavar="MACHINE.toml", help="Every source has to be a function of it."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="File of results: JSON if .json, else Parquet.",
            callback=parquet_or(".json"),
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="File that remembers what is done, to go on from there.", callback=file_to_write
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = max(1, os.cpu_count() or 1),
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Dask cluster instead; Parquet only."),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Count misses and table reads of a trace for many IOTLBs, and what they cost.

    LRU caches of all ways are counted in one pass. Every combination of what is given is a design.
    Exit code 2: wrong use, or a trace that is wrong; then nothing is written.
    """
    with needing("batch", "sweep"):
        from vtd.sweeps.costs import parse_costs  # noqa: PLC0415 - needs an extra
        from vtd.sweeps.outcomes import State  # noqa: PLC0415
        from vtd.sweeps.results import results, save  # noqa: PLC0415
        from vtd.traces.summary import summarize  # noqa: PLC0415

        with unusable_input("vtd sweep"):
            space = designs.space()
            cost = parse_costs(costs)
        if machine is not None:
            known = known_sources(machine)
            for place in traces:
                with unusable_input(place):
                    summarize(open_rows(place), known)
        with unusable_input(str(state)):
            past = None if state is None else State(state)
        found: list[Result] = []
        run = Run(jobs, 0.0, 0.0)
        for place in traces:
            with unusable_input(place):
                outcomes, run = _outcomes(place, space.passes(), past, jobs, dask, run)
                found += results(space, place, outcomes, cost)
        if output is not None:
            with unusable_input(output):
                save(output, found)
    rows = [_row(each) for each in found]
    document = {"results": rows, "run": {**run._asdict(), "efficiency": run.efficiency}}
    show(CommandAnswer(document, rows, _lines(found, run)), format)


def _outcomes(
    place: str,
    passes: Sequence[Pass],
    past: Any,
    jobs: int,
    dask: str | None,
    run: Run,
) -> tuple[list[Outcome], Run]:
    """The outcomes of all passes through a trace, those that are not known yet by workers."""
    outcomes: list[Outcome] = [] if past is None else past.done(place, passes)
    done = {each.wanted for each in outcomes}
    left = [each for each in passes if each not in done]
    if not left:
        return outcomes, run
    start, cpu = time.monotonic(), 0.0
    with StatusLine() as status, _client(dask) as client:
        if client is None:
            workers, answers = _by_processes(place, left, jobs, status)
        else:
            workers, answers = _by_cluster(place, left, client, status)
        for found, seconds in answers:
            outcomes += found
            cpu += seconds
            if past is not None:
                past.keep(place, found)
    return outcomes, Run(workers, time.monotonic() - start + run.seconds, cpu + run.cpu_seconds)


FIRST_TIME = "after an installation some 10 s go by for compiling"
Work = tuple[int, "Iterator[Answer]"]
"""How many workers there are, and what they answer, as it comes."""


def _by_processes(place: str, passes: Sequence[Pass], jobs: int, status: StatusLine) -> Work:
    from vtd.sweeps.running import tasks_of  # noqa: PLC0415 - needs an extra
    from vtd.workers import in_processes  # noqa: PLC0415

    tasks = tasks_of(place, passes, jobs)
    workers = min(jobs, len(tasks))

    def answers() -> Iterator[Answer]:
        status.show(f"{place}: {counted(len(tasks), 'task')} begun; {FIRST_TIME}")
        for number, answer in enumerate(in_processes(timed_steps.carry_out, tasks, workers), 1):
            status.show(f"{place}: {number} of {counted(len(tasks), 'task')} done")
            yield answer

    return workers, answers()


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """The client of a Dask cluster, or None without an address."""
    if address is None:
        yield None
        return
    from vtd.workers import connected  # noqa: PLC0415

    with ExitStack() as stack:
        with needing("cluster", "sweep"), unusable_input(address):
            client = stack.enter_context(connected(address))
        yield client


def _by_cluster(place: str, passes: Sequence[Pass], client: Any, status: StatusLine) -> Work:
    """Some passes for each worker at a time; all of them go through the trace together."""
    from vtd.sweeps.running import parts_of, rounds_of  # noqa: PLC0415 - needs an extra
    from vtd.workers import Wave, waves_on_cluster, workers_of  # noqa: PLC0415

    workers = len(workers_of(client))
    parts, rounds = parts_of(place), rounds_of(place, passes, workers)
    wave = Wave(timed_steps.read_part, timed_steps.carry_on, timed_steps.end)
    every = counted(len(parts) * len(rounds), "part")

    def answers() -> Iterator[Answer]:
        status.show(f"{place}: {every} begun; {FIRST_TIME}")
        for number, tasks in enumerate(rounds):

            def told(done: int, before: int = number * len(parts)) -> None:
                status.show(f"{place}: {before + done} of {every} done")

            begun = [client.submit(timed_steps.begin, task, 1 / len(tasks)) for task in tasks]
            yield from waves_on_cluster(wave, parts, begun, client, told)

    return workers, answers()


def _row(result: Result) -> dict[str, object]:
    from dataclasses import asdict  # noqa: PLC0415

    row = asdict(result)
    del row["history"]
    return row


HEAD = ("sets", "ways", "policy", "pages", "tables", "structures", "invalidation")
COUNTED = ("misses", "miss ratio", "reads/request", "reads/packet", "ns/request", "Gb/s")


def _lines(found: Sequence[Result], run: Run) -> Iterator[str]:
    table = [(*HEAD, *COUNTED)]
    for trace in dict.fromkeys(each.trace for each in found):
        mine = [each for each in found if each.trace == trace]
        one = mine[0]
        who = counted(one.requesters, "requester")
        yield (
            f"{trace}: {counted(one.requests, 'request')} of {who}, "
            f"{counted(one.packets, 'packet')}, {counted(one.lookups, 'lookup')}"
        )
        rows = table + [_cells(each) for each in mine]
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        for row in rows:
            left = [cell.ljust(width) for cell, width in zip(row[:7], widths, strict=False)]
            right = [cell.rjust(width) for cell, width in zip(row[7:], widths[7:], strict=True)]
            yield "  " + "  ".join([*left, *right])
    if run.efficiency is not None:
        who = counted(run.workers, "worker")
        yield (
            f"{run.cpu_seconds:.1f} s of CPU in {run.seconds:.1f} s by {who}: "
            f"{run.efficiency:.2f} of what they had"
        )


def _cells(each: Result) -> tuple[str, ...]:
    packet, bound = each.reads_per_packet, each.gigabits
    index = f"^{each.index}" if each.index else ""
    return (
        f"{each.sets}{index}",
        str(each.ways),
        each.policy,
        each.page_size,
        each.tables,
        each.structures,
        each.invalidation,
        str(each.misses),
        f"{each.miss_ratio:.4f}",
        f"{each.reads_per_request:.3f}",
        "-" if packet is None else f"{packet:.3f}",
        f"{each.latency:.1f}",
        "-" if bound is None else f"{bound:.1f}",
    )
