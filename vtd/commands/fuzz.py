"""``vtd fuzz``: properties of the engine, or the engine against another implementation."""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND, INTERRUPTED, UNUSABLE
from vtd.commands.extras import needing
from vtd.commands.file_names import file_to_write
from vtd.commands.kit_machine import open_guest
from vtd.commands.names import check_name
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.progress import StatusLine
from vtd.commands.rendering.terminal import Verbatim
from vtd.fuzz.campaign_state import State
from vtd.unit.requests.faults import FaultReason

if TYPE_CHECKING:
    from vtd.fuzz.job import CampaignResult, Failure

REASONS = {int(reason): reason for reason in FaultReason}


def fuzz(
    target: Annotated[
        str,
        typer.Option(
            help="What to compare with: oracle, library:PATH, command:COMMAND, "
            "qemu:[PREFIX][@UNIT], guest:qemu[@UNIT], guest:command:COMMAND. PREFIX goes before "
            "qemu-system-x86_64, UNIT has options of its unit."
        ),
    ] = "oracle",
    unit: Annotated[
        str,
        typer.Option(
            help="The unit of all cases: a profile, or raw:VERSION:CAP:ECAP:HAW. Default: many."
        ),
    ] = "",
    property: Annotated[
        list[str] | None,
        typer.Option(help="A property to check; may be repeated. Default: all that fit."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to look.")] = 60,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many seeds to run instead, of each property.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = max(1, os.cpu_count() or 1),
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    state: Annotated[
        Path | None,
        typer.Option(
            help="File that remembers the seeds done, to go on from there.", callback=file_to_write
        ),
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Dask cluster instead.")
    ] = None,
    save: Annotated[
        Path, typer.Option(help="Folder for the scenario of a failure; vtd replay runs it.")
    ] = Path(),
    coverage: Annotated[
        bool, typer.Option(help="List what was reached, and what never was.")
    ] = False,
    format: Output = Format.TEXT,
) -> None:
    """Generate units, tables, programs and requests, and look for a case that is not right.

    A failure is made as small as it gets and saved as a scenario. Exit code 0: none found. 1: a
    failure. 2: wrong use, or a target that does not work.
    """
    with needing("fuzz", "fuzz"):
        from vtd.fuzz import campaign, target_names  # noqa: PLC0415 - needs an extra
    target_names.OPENERS["guest"] = open_guest
    if target.startswith("guest:"):
        jobs = 1  # one machine
    if not seconds > 0:
        raise typer.BadParameter(f"{seconds} is no time to look", param_hint="--seconds")
    chosen = _properties(property, target, unit)
    with unusable_input(str(state)):
        past = State(state) if state is not None else None
    key = f"{target} {' '.join(chosen)}" + f" {unit}" * bool(unit)
    first = past.first(key, seed) if past is not None else seed
    seeds = itertools.count(first) if count is None else range(first, first + count)
    start = time.monotonic()
    wanted = campaign.jobs_of(chosen, "" if target == "oracle" else target, seeds, unit)
    with StatusLine() as status, _targets():
        result = campaign.run(
            wanted,
            processes=jobs,
            cluster=dask,
            expired=Deadline(time.time() + seconds if count is None else math.inf),
            enough=lambda total: bool(total.failures),
            progress=lambda total: status.show(_progress_text(total, time.monotonic() - start)),
        )
    result.seconds = time.monotonic() - start
    files = [_save(failure, save) for failure in result.failures]
    rows = [_failure_row(*each) for each in zip(result.failures, files, strict=True)]
    lines = itertools.chain(
        _summary_lines(result),
        _coverage_lines(result, whole=coverage),
        _failure_lines(result, files),
    )
    show(CommandAnswer(_document(result, rows), rows, lines), format)
    if result.failures:
        raise typer.Exit(FOUND)
    if past is not None:
        with unusable_input(str(state)):
            past.save(key, _next_seed(first, result.seeds, len(chosen)))
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _properties(asked: list[str] | None, target: str, unit: str) -> list[str]:
    """The properties that are asked for, or all that fit."""
    from vtd.fuzz.target_names import PROPERTIES, default_properties  # noqa: PLC0415

    with unusable_input("--unit"):
        chosen = asked or list(default_properties(target, unit))
    for name in chosen:
        check_name(name, PROPERTIES, "--property")
    return chosen


@contextmanager
def _targets() -> Iterator[None]:
    """Targets are closed at the end; one that does not work ends the command."""
    from vtd.fuzz.target_names import close_targets  # noqa: PLC0415
    from vtd.fuzz.targets import TargetError  # noqa: PLC0415

    try:
        with needing("cluster", "fuzz"):
            yield
    except (TargetError, OSError) as error:
        typer.echo(f"vtd fuzz: {error}", err=True)
        raise typer.Exit(UNUSABLE) from error
    finally:
        close_targets()


def _next_seed(first: int, seeds: Sequence[int], properties: int) -> int:
    """The first seed from ``first`` on that not every property was done with."""
    done = Counter(seeds)
    return next(seed for seed in itertools.count(first) if done[seed] < properties)


@dataclass(frozen=True)
class Deadline:
    """Whether it is later than ``end``, by the clock that all processes and machines share."""

    end: float

    def __call__(self) -> bool:
        return time.time() >= self.end


def _progress_text(result: CampaignResult, seconds: float) -> str:
    """Cases, cases per second and fault codes so far."""
    cases, seed = result.tally.cases, max(result.seeds, default=0)
    return (
        f"{cases} cases, {cases / max(seconds, 0.001):.0f} per second, seed {seed}, "
        f"{len(result.tally.faults)} fault codes"
    )


def _save(failure: Failure, folder: Path) -> Path | None:
    """The scenario file of a failure, if there is one and it can be written; the seed remains."""
    if failure.scenario is None:
        return None
    path = folder / f"{failure.scenario['name']}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(failure.scenario, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        typer.echo(f"vtd fuzz: {path}: {error.strerror}", err=True)
        return None
    return path


def _document(result: CampaignResult, failures: Sequence[Mapping[str, object]]) -> object:
    from vtd.fuzz.coverage import never  # noqa: PLC0415 - needs an extra

    return {
        "cases": result.tally.cases,
        "seconds": round(result.seconds, 1),
        "seeds": len(result.seeds),
        "interrupted": result.interrupted,
        "faults": {hex(code): count for code, count in sorted(result.tally.faults.items())},
        "coverage": [
            {**each._asdict(), "count": count}
            for each, count in sorted(result.tally.encounters.items())
        ],
        "never": [each._asdict() for each in never(result.tally.encounters)],
        "failures": failures,
    }


def _coverage_lines(result: CampaignResult, *, whole: bool) -> Iterator[str]:
    """How much of what could be met was, or all of it with what was not."""
    from vtd.fuzz.coverage import never, possible  # noqa: PLC0415 - needs an extra

    met, missed = result.tally.encounters, never(result.tally.encounters)
    total = possible()
    of = "descriptors, requests and register fields (by form, mode, outcome and access)"
    yield f"reached {total - len(missed)} of {total} {of}"
    if not whole:
        return
    yield "reached:"
    for each, count in sorted(met.items()):
        yield f"  {count:8}  {' '.join(part for part in each if part)}"
    yield "never:"
    for each in missed:
        yield f"            {' '.join(part for part in each if part)}"


def _failure_row(failure: Failure, path: Path | None) -> Mapping[str, object]:
    return {
        "property": failure.property_name,
        "seed": failure.seed,
        "why": failure.why,
        "command": failure.command,
        "scenario": path,
    }


def _summary_lines(result: CampaignResult) -> Iterator[str]:
    cases, seconds = result.tally.cases, max(result.seconds, 0.001)
    yield (
        f"{counted(cases, 'case')} in {seconds:.1f} s ({cases / seconds:.0f} per second), "
        f"{counted(len(result.seeds), 'seed')}{', interrupted' * result.interrupted}"
    )
    if result.tally.faults:
        yield "fault codes met:"
        for code, count in sorted(result.tally.faults.items()):
            yield f"  {code:#04x} {count:8}  {REASONS[code].text}"


def _failure_lines(result: CampaignResult, files: list[Path | None]) -> Iterator[str]:
    for failure, path in zip(result.failures, files, strict=True):
        yield f"{failure.property_name}: {failure.why}"
        if path is not None:
            target = f" --target {shlex.quote(failure.target)}" if failure.target else ""
            yield Verbatim(f"  scenario: vtd replay {path}{target}")
        yield Verbatim(f"  again:    {failure.command}")
