"""``vtd replay``: scenarios and captures, step by step, and every outcome that was another one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import track

from vtd.commands.counted import counted
from vtd.commands.images import ChosenDepartures, Format, Output
from vtd.commands.reading import unusable_input
from vtd.commands.show_walk import request_text, walk_json, walk_lines
from vtd.inspection.explain import RequestExplanation, cached, explain_request, is_interrupt
from vtd.layouts.registers import GlobalStatus
from vtd.recordings.capture import MANIFEST
from vtd.recordings.replay import Report
from vtd.recordings.replay import replay as replay_scenario
from vtd.recordings.replay_capture import replay_capture
from vtd.recordings.values import ScenarioError
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.requests.request import Request
from vtd.unit.unit import RemappingUnit

MISMATCH = 1
"""Exit code when some outcome was another one."""
SUFFIXES = (".json", ".json.gz")


def replay(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE_OR_FOLDER...",
            help="Scenario files, capture folders, or folders to search for both.",
        ),
    ],
    trace: Annotated[
        bool, typer.Option("--trace", help="Print the walk of each DMA as it happens.")
    ] = False,
    departures: ChosenDepartures = None,
    format: Output = Format.TEXT,
) -> None:
    """Replay scenario files and captures, and report every mismatch.

    Without --departures a unit follows the specification and what the file names; what was recorded
    on QEMU is tried a second time with all that QEMU departs in.

    Exit code 0: everything matches. 1: some outcome was another one. 2: unusable input.
    """
    paths = [path for each in inputs for path in _find(each)]
    reports, traces = [], []
    progress = Console(stderr=True)
    for path in track(
        paths,
        "replaying",
        console=progress,
        transient=True,
        disable=not progress.is_terminal,
    ):
        walks = Walks(path)
        with unusable_input(str(path)):
            run = replay_capture if path.is_dir() else replay_scenario
            follow = walks.follow if trace else None
            reports.append(run(path, follow, departures=departures))
        traces.append(walks)
    if format is Format.JSON:
        typer.echo(json.dumps({"files": list(_json_files(reports, traces, trace))}, indent=1))
    else:
        for report, walks in zip(reports, traces, strict=True):
            typer.echo("\n".join((*walks.lines(), *_lines(report))), nl=True)
        typer.echo("\n".join(_summary(reports)))
    if any(report.mismatches for report in reports):
        raise typer.Exit(MISMATCH)


def _find(path: Path) -> list[Path]:
    """The scenario files and capture folders at or below a path."""
    with unusable_input(str(path)):
        if (path / MANIFEST).exists() or not path.is_dir():
            return [path]
        found = []
        for child in sorted(path.iterdir()):
            if child.is_dir():
                found += _find(child) if _holds_any(child) else []
            elif child.name.endswith(SUFFIXES):
                found.append(child)
        if not found:
            raise ScenarioError("no scenario file and no capture in it")
        return found


def _holds_any(folder: Path) -> bool:
    return any(path.name.endswith(SUFFIXES) for path in folder.rglob("*"))


class Walk(NamedTuple):
    """A request, the way its tables have for it, and what the IOTLB holds for it already."""

    step: str
    request: Request
    explained: RequestExplanation | None
    """None where nothing is translated."""
    held: IotlbEntry | None


class Walks:
    """The walks of one file's requests; those of the last run, if there were two."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unit: RemappingUnit | None = None
        self._walks: list[Walk] = []

    def follow(self, unit: RemappingUnit, step: str, request: Request) -> None:
        """Explain a request before it happens."""
        if unit is not self._unit:
            self._unit = unit
            self._walks.clear()
        remapped = unit.registers[GlobalStatus].tes and not is_interrupt(request)
        explained = explain_request(unit.remapping, request) if remapped else None
        held = cached(unit.caches.iotlb, request) if remapped else None
        self._walks.append(Walk(step, request, explained, held))

    def lines(self) -> Iterator[str]:
        """The walks for people."""
        for step, request, explained, held in self._walks:
            yield f"{self._path}: {step}"
            if explained is None:
                yield f"{request_text(request)}\n  => not translated"
                continue
            yield from walk_lines(explained)
            if held is not None:
                now = explained.outcome and explained.outcome.physical
                same = now == held.physical + request.address - held.address
                yield (
                    f"  {'' if same else 'but '}the IOTLB holds "
                    f"{held.physical:#x} for {held.address:#x}"
                )

    def to_json(self) -> list[dict[str, Any]]:
        """The walks of requests that are translated."""
        return [
            {
                "step": step,
                **walk_json(explained),
                "cached": None if held is None else hex(held.physical),
            }
            for step, _, explained, held in self._walks
            if explained is not None
        ]


def _json_files(
    reports: list[Report], traces: list[Walks], trace: bool
) -> Iterator[dict[str, Any]]:
    for report, walks in zip(reports, traces, strict=True):
        yield {**report.to_json(), **({"trace": walks.to_json()} if trace else {})}


def _lines(report: Report) -> Iterator[str]:
    wrong = len(report.mismatches)
    verdict = counted(wrong, "MISMATCH", "MISMATCHES") if wrong else "match"
    recorded = ", as recorded" if report.as_recorded else ""
    yield f"{report.file}: {report.passed} of {counted(report.steps, 'step')}, {verdict}{recorded}"
    for part in report.not_compared:
        yield f"  not compared: {part}"
    for step, op, expect, got in report.mismatches:
        yield f"  step {step} {op}: expected {json.dumps(expect)}, got {json.dumps(got)}"


def _summary(reports: list[Report]) -> Iterator[str]:
    wrong = sum(bool(report.mismatches) for report in reports)
    steps = sum(report.steps for report in reports)
    files = f"{counted(len(reports), 'file')}, {counted(steps, 'step')}"
    matching = counted(len(reports) - wrong, "matches", "match")
    yield f"{files}: {matching}, {counted(wrong, 'does', 'do')} not"
    recorded = sum(report.as_recorded for report in reports)
    if recorded:
        yield (
            f"{counted(recorded, 'file')} needed the option `as recorded` (marked above), which "
            "follows QEMU where it departs from the specification"
        )
