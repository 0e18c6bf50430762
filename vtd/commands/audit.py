"""``vtd audit``: which invalidations a log of table writes, invalidations and DMAs misses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vtd.auditing.audit_log import audit_log, audit_scenario
from vtd.auditing.live_audit import audit_live
from vtd.auditing.log_report import LogReport
from vtd.commands.counted import counted
from vtd.commands.inputs import Inputs
from vtd.commands.names import CachesOption, check_name
from vtd.commands.reading import read_text
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.recordings.capture import MANIFEST
from vtd.recordings.live import begins_live, is_live
from vtd.recordings.scenario import load_scenario
from vtd.recordings.text_lines import open_lines
from vtd.rows import Hex
from vtd.unit.caching.policy import POLICIES, CachePolicy

EVENTS = "events.jsonl.gz"


def audit(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...",
            help="Platform logs (jsonl), QEMU traces, scenarios, live recordings, or capture "
            "folders; - is stdin.",
        ),
    ],
    caches: CachesOption = "aggressive",
    window: Annotated[
        bool, typer.Option("--window", help="Also list legal uses before an invalidation.")
    ] = False,
    format: Output = Format.TEXT,
) -> None:
    """Find invalidations that software owed: missing, in the wrong order, or not waited for.

    Device-TLBs and page requests are part of it. Exit code 0: nothing found. 1: something was.
    2: unusable input.
    """
    check_name(caches, POLICIES, "--caches")
    reports, inputs = [], Inputs()
    for path in logs:
        with inputs.reading(str(path)):
            report = _audit(path, POLICIES[caches])
            if not report.lines:
                raise ValueError("empty: nothing to audit")
            reports.append((path, report))
    document = [_file_row(*each) for each in reports]
    rows = ({"file": each["file"], **finding} for each in document for finding in each["findings"])
    lines = (line for path, report in reports for line in _lines(path, report, window=window))
    show(CommandAnswer(document, rows, lines), format)
    inputs.end(found=any(report.findings for _, report in reports))


def _file_row(path: Path, report: LogReport) -> dict[str, Any]:
    row = report.to_json()
    for name in ("findings", "window"):
        row[name] = [_in_hexadecimal(finding) for finding in row[name]]
    return {"file": path, **row}


def _in_hexadecimal(finding: dict[str, Any]) -> dict[str, Any]:
    names = {"address", "was", "now"} & set(finding)
    return {**finding, **{name: Hex.known(finding[name]) for name in names}}


def _audit(path: Path, caches: CachePolicy) -> LogReport:
    if str(path) == "-":
        text = read_text("-")
        if begins_live(text[:4096].encode()):
            lines = list(enumerate(text.splitlines(), 1))
            return audit_live(lambda: nullcontext(iter(lines)), caches)
        return audit_log(text.splitlines(), caches)
    if path.is_dir() and (path / MANIFEST).exists():
        path = path / EVENTS
    if path.name.endswith((".json", ".json.gz")):
        return audit_scenario(load_scenario(path), caches)
    if is_live(path):
        return audit_live(partial(open_lines, path), caches)
    with open_lines(path) as numbered:
        return audit_log((line for _, line in numbered), caches)


def _lines(path: Path, report: LogReport, *, window: bool) -> Iterator[str]:
    for line, use, unit in report.findings:
        yield f"{path}:{line}: {f'unit {unit}: ' * bool(unit)}{use}"
    for line, use, unit in report.window if window else ():
        yield f"{path}:{line}: legal: {f'unit {unit}: ' * bool(unit)}{use}"
    invalidations = counted(report.descriptors, "invalidation")
    if report.wasteful is not None:
        invalidations = f"{report.wasteful} of {invalidations} met nothing outdated"
    yield (
        f"{path}: {report.kind}, {counted(report.uses, 'use')} of cached entries checked, "
        f"{counted(len(report.findings), 'finding')}, {len(report.window)} in the window; "
        f"{invalidations}"
    )
