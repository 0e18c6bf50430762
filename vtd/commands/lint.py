"""``vtd lint``: structures, writes to live ones, and register accesses against the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from vtd.auditing.lint import lint_log
from vtd.auditing.lint_rules import RULES, LintFinding
from vtd.auditing.lint_structures import lint_structures
from vtd.commands.dmar_output import COLOURS, Level
from vtd.commands.findings import FindingsFormat, chosen_rules, print_findings, rule_ids
from vtd.commands.images import ImageOptions, InterruptTable, RootTable, open_image
from vtd.commands.inputs import Inputs
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import read_text
from vtd.commands.rendering.terminal import styled
from vtd.dmar.scopes import Scopes
from vtd.recordings.capture import Capture

LOGS = ".jsonl", ".json"


class FileLint(NamedTuple):
    """What was found in one file."""

    file: str
    findings: list[LintFinding]


@with_option_groups
def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CAPTURE_OR_IMAGE_OR_LOG...",
            help="Capture folders, images and live recordings as for vtd mappings, platform logs "
            "(jsonl); - is a log from stdin.",
        ),
    ] = None,
    root_table: RootTable = None,
    interrupt_table: InterruptTable = None,
    *,
    options: ImageOptions,
    select: Annotated[
        list[str] | None, typer.Option(help="Only these rules: ids or their beginnings.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Leave these rules out.")] = None,
    fail_on: Annotated[
        Level, typer.Option(help="Lowest severity that makes the exit code 1.")
    ] = Level.WARNING,
    explain: Annotated[
        list[str] | None, typer.Option(help="Explain rules instead of judging files.")
    ] = None,
    format: Annotated[FindingsFormat, typer.Option(help="Form of the output.")] = (
        FindingsFormat.TEXT
    ),
) -> None:
    """Check tables in memory, writes to entries in use and register accesses against the rules.

    Exit code 0: nothing found at or above --fail-on. 1: something found. 2: wrong use, or a file
    that can't be read.
    """
    if explain:
        _explain(rule_ids(RULES, explain), format)
        return
    if not files:
        raise typer.BadParameter("one is needed, - for stdin", param_hint="FILE")
    chosen, results, inputs = chosen_rules(RULES, select, ignore), [], Inputs()
    for path in files:
        with inputs.reading(str(path)):
            found = _judged(path, options, root_table, interrupt_table)
            results.append(FileLint(str(path), [each for each in found if each.rule in chosen]))
    print_findings(results, format, ("vtd lint", RULES), fail_on.severity, _lines)
    severities = [each.severity for result in results for each in result.findings]
    inputs.end(found=any(each >= fail_on.severity for each in severities))


def _judged(
    path: Path, options: ImageOptions, root_table: int | None, interrupt_table: int | None
) -> list[LintFinding]:
    if str(path) == "-" or path.suffix in LOGS:
        if str(path) == "-":
            return lint_log(read_text("-").splitlines())
        with path.open(encoding="utf-8") as log:
            return lint_log(log)
    inspected = open_image(path, options, root_table=root_table, interrupt_table=interrupt_table)
    reserved = {} if inspected.capture is None else reserved_memory(inspected.capture)
    return lint_structures(inspected.unit, reserved)


def reserved_memory(capture: Capture) -> dict[int, list[tuple[int, int]]]:
    """The reserved memory of each function of a capture."""
    scopes = Scopes(capture.dmar, capture.pci)
    return {
        bdf.source_id: [(region.base, region.limit + 1) for region in scopes.regions(bdf)]
        for bdf in capture.pci.functions
    }


def _explain(ids: list[str], format: FindingsFormat) -> None:
    if format is FindingsFormat.TEXT:
        for id in ids:
            rule = RULES[id]
            typer.echo(f"{id} ({rule.severity}): {rule.title} (VT-d {rule.section})")
            typer.echo(f"    {rule.meaning}")
        return
    rows = [
        {
            "rule": id,
            "severity": str(RULES[id].severity),
            "title": RULES[id].title,
            "meaning": RULES[id].meaning,
            "section": RULES[id].section,
        }
        for id in ids
    ]
    typer.echo(json.dumps(rows, indent=1))


def _lines(result: FileLint) -> Iterator[str]:
    if not result.findings:
        yield f"{result.file}: nothing found"
    for each in result.findings:
        severity = styled(f"{each.severity!s:7}", COLOURS[each.severity])
        yield f"{result.file}: {each.where} {severity} {each.rule} {each.message}"
