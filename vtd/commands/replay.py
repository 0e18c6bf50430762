"""``vtd replay``: recordings, step by step, and every outcome that was another one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.exit_codes import UNUSABLE
from vtd.commands.extras import needing
from vtd.commands.images import ChosenDepartures
from vtd.commands.inputs import Inputs
from vtd.commands.kit_machine import open_guest
from vtd.commands.names import CACHES, check_name
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.progress import shown_progress
from vtd.commands.show_walk import walk_lines
from vtd.inspection.request_text import request_text
from vtd.recordings.capture import MANIFEST
from vtd.recordings.live import is_live
from vtd.recordings.replay import Report
from vtd.recordings.replay import replay as replay_scenario
from vtd.recordings.replay_capture import replay_capture
from vtd.recordings.replay_live import replay_live
from vtd.recordings.traced_requests import TracedRequest, TracedRequests
from vtd.recordings.values import ScenarioError
from vtd.unit.caching.policy import POLICIES, CachePolicy

SUFFIXES = (".json", ".json.gz")
LIVE_SUFFIXES = (".jsonl", ".jsonl.gz")


def replay(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE_OR_FOLDER...",
            help="Scenario files, live recordings, capture folders, or folders to search for all.",
        ),
    ],
    trace: Annotated[
        bool, typer.Option("--trace", help="Print the walk of each DMA as it happens.")
    ] = False,
    departures: ChosenDepartures = None,
    caches: Annotated[
        str | None,
        typer.Option(
            *CACHES,
            help=f"Live recording: what the units keep, {', '.join(POLICIES)}; else as recorded.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Scenario files: who carries them out, as vtd fuzz has it; the engine."),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Replay scenario files, captures and live recordings, and report every mismatch.

    Without --departures a unit follows the specification and what the file names; what was recorded
    on QEMU is tried a second time with all that QEMU departs in.

    Exit code 0: everything matches. 1: some outcome was another one. 2: unusable input.
    """
    if caches is not None:
        check_name(caches, POLICIES, "--caches")
    policy = None if caches is None else POLICIES[caches]
    given, paths = Inputs(), []
    for each in inputs:
        with given.reading(str(each)):
            paths += _find(each)
    reports: list[Report] = []
    traces: list[TracedRequests | None] = []
    for path in shown_progress(paths, "replaying"):
        traced = TracedRequests() if trace else None
        with given.reading(str(path)):
            reports.append(_replayed(path, traced, departures, policy, target))
            traces.append(traced)
    if not reports:
        given.end(found=False)
    rows = (_row(*each) for each in zip(reports, traces, strict=True))
    show(CommandAnswer({"files": rows}, rows, _all_lines(reports, traces)), format)
    given.end(found=any(report.mismatches for report in reports))


def _replayed(
    path: Path,
    traced: TracedRequests | None,
    departures: ChosenDepartures,
    caches: CachePolicy | None,
    target: str | None,
) -> Report:
    follow = None if traced is None else traced.follow
    if not path.is_dir() and (is_live(path) or path.name.endswith(LIVE_SUFFIXES)):
        return replay_live(path, follow, departures=departures, caches=caches)
    if caches is not None:
        raise ScenarioError("--caches is for live recordings")
    if target is not None:
        return _by_target(path, target)
    run = replay_capture if path.is_dir() else replay_scenario
    return run(path, follow, departures=departures)


def _by_target(path: Path, name: str) -> Report:
    """What somebody else makes of a scenario; ends the command if that is nobody."""
    with needing("fuzz", "replay"):
        from vtd.fuzz import target_names  # noqa: PLC0415 - needs an extra
        from vtd.fuzz.replaying import replay_on  # noqa: PLC0415
        from vtd.fuzz.targets import TargetError  # noqa: PLC0415
    try:
        target_names.OPENERS["guest"] = open_guest
        other = target_names.open_target(name)
    except TargetError as error:
        raise typer.BadParameter(str(error), param_hint="--target") from error
    try:
        return replay_on(path, other)
    except TargetError as error:
        typer.echo(f"vtd replay: {error}", err=True)
        raise typer.Exit(UNUSABLE) from error
    finally:
        other.close()


def _find(path: Path) -> list[Path]:
    """The scenario files and capture folders at or below a path."""
    if (path / MANIFEST).exists() or not path.is_dir():
        return [path]
    found = []
    for child in sorted(path.iterdir()):
        if child.is_dir():
            found += _find(child) if _holds_any(child) else []
        elif _is_one(child):
            found.append(child)
    if not found:
        raise ScenarioError("no scenario file, live recording or capture in it")
    return found


def _holds_any(folder: Path) -> bool:
    return any(map(_is_one, folder.rglob("*")))


def _is_one(path: Path) -> bool:
    """Whether a file of a folder is to be replayed; other logs have the suffix of recordings."""
    name = path.name
    return name.endswith(SUFFIXES) or (name.endswith(LIVE_SUFFIXES) and is_live(path))


def _row(report: Report, traced: TracedRequests | None) -> Mapping[str, object]:
    trace = {} if traced is None else {"trace": list(traced.rows())}
    return {**report.to_json(), **trace}


def _all_lines(reports: Sequence[Report], traces: Sequence[TracedRequests | None]) -> Iterator[str]:
    for report, traced in zip(reports, traces, strict=True):
        for each in traced or ():
            yield f"{report.file}: {each.step}"
            yield from _request_lines(each)
        yield from _lines(report)
    yield from _summary(reports)


def _request_lines(traced: TracedRequest) -> Iterator[str]:
    request, held = traced.request, traced.held
    if traced.explained is None:
        yield request_text(request)
        yield "  => not translated"
        return
    yield from walk_lines(traced.explained)
    if held is not None:
        yield (
            f"  {'but ' if traced.stale else ''}the IOTLB holds "
            f"{held.physical:#x} for {held.address:#x}"
        )


def _lines(report: Report) -> Iterator[str]:
    wrong = len(report.mismatches)
    verdict = counted(wrong, "MISMATCH", "MISMATCHES") if wrong else "match"
    recorded = ", as recorded" if report.as_recorded else ""
    yield f"{report.file}: {report.passed} of {counted(report.steps, 'step')}, {verdict}{recorded}"
    for part in report.not_compared:
        yield f"  not compared: {part}"
    for step, op, expect, got in report.mismatches:
        wanted = json.dumps(expect)
        yield f"  {report.counted_by} {step} {op}: expected {wanted}, got {json.dumps(got)}"


def _summary(reports: Sequence[Report]) -> Iterator[str]:
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
