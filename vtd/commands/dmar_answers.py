"""``vtd dmar scope``, ``rmrr`` and ``audit``: who owns a device, who may have it, what protects."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from vtd.commands.dmar_output import COLOURS, Level
from vtd.commands.exit_codes import FOUND
from vtd.commands.platform_files import MemoryMap, PlatformFiles, read_platform
from vtd.commands.reading import (
    NO_DMAR_TABLE,
    Lspci,
    TableFile,
    decoded,
    first_table,
    read_table,
    tell_doubts,
    unusable_input,
)
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.terminal import styled
from vtd.dmar import assignment, report
from vtd.dmar.assignment import region_row
from vtd.dmar.pci_tree import parse_address
from vtd.dmar.protection import Statement, Verdict, statement_row
from vtd.dmar.protection import audit as audit_table
from vtd.dmar.rules import Severity
from vtd.dmar.scope_rows import scope_row
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table


def scope_command(
    file: TableFile,
    device: Annotated[str, typer.Argument(metavar="BDF", help="Such as 0000:00:02.0.")],
    lspci: Lspci = None,
    format: Output = Format.TEXT,
) -> None:
    """Tell which unit owns a device, its regions, ATS, the bridges above it, and its alias.

    Exit code 1 if no unit covers the device, or if that depends on bridges that are not known.
    """
    with unusable_input(device):
        bdf = parse_address(device)
    platform = read_platform(PlatformFiles(lspci=lspci), file)
    scopes = Scopes(read_table(file), platform.pci)
    answer = scope_row(scopes, bdf, platform.pci)
    shown = ((name, _plain(value)) for name, value in answer.items())
    show(CommandAnswer(answer, [answer], (f"{name:8} {value}" for name, value in shown)), format)
    if answer["unit"] is None:
        raise typer.Exit(FOUND)


def _plain(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(name for name, number in value.items() if number) or "none"
        case list():
            return ", ".join(value) or "none"
    return "none" if value is None else str(value)


def rmrr_command(
    file: TableFile,
    memory_map: MemoryMap = None,
    lspci: Lspci = None,
    format: Output = Format.TEXT,
) -> None:
    """Tell for every device with a reserved region what hypervisors say about assigning it.

    Exit code 1 if Linux refuses to assign one of them.
    """
    table = _dmar_table(file)
    platform = read_platform(PlatformFiles(memory_map=memory_map, lspci=lspci), file)
    found = assignment.reserved_regions(table, platform)
    answers = list(map(region_row, found))
    lines = [line for each in found for line in _region_lines(each)]
    cut = table.truncated or table.rest
    where = " in the part of the table that can be read" if cut else ""
    lines = lines or [f"no device has a reserved region{where}"]
    show(CommandAnswer(answers, answers, lines), format)
    if any(each.refused for each in found):
        raise typer.Exit(FOUND)


def _dmar_table(file: str) -> Table:
    """The table of a file; ends the command if it is no DMAR table, of which it tells."""
    first = first_table(file)
    if tell_doubts(first, {NO_DMAR_TABLE}):
        raise typer.Exit(FOUND)
    return decoded(first)


def _region_lines(each: assignment.ReservedRegion) -> Iterator[str]:
    size = max(0, each.region.end - each.region.base) >> 10
    reserved = {True: "reserved", False: "NOT reserved", None: "memory map not given"}
    yield (
        f"{each.device or each.entry}: 0x{each.region.base:x}-0x{each.region.limit:x}, "
        f"{size} KiB, {reserved[each.reserved]}"
    )
    for name, policy in each.policies.items():
        yield f"  {name}: {policy}"


class AuditFormat(StrEnum):
    """Formats of statements."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    SARIF = "sarif"


SEVERITIES = {Verdict.BAD: Severity.ERROR, Verdict.OPEN: Severity.INFO}
"""How bad statements are to ``--fail-on``; good ones are not."""


def audit_command(
    file: TableFile,
    lspci: Lspci = None,
    fail_on: Annotated[
        Level, typer.Option(help="What makes the exit code 1: bad is an error, open an info.")
    ] = Level.WARNING,
    format: Annotated[AuditFormat, typer.Option(help="Form of the output.")] = AuditFormat.TEXT,
) -> None:
    """Tell what the table proves about protection from DMA, and what it can't prove.

    Exit code 1 if a verdict is bad.
    """
    table = _dmar_table(file)
    platform = read_platform(PlatformFiles(lspci=lspci), file)
    statements = audit_table(table, platform.pci)
    if format is AuditFormat.SARIF:
        typer.echo(report.statements_to_sarif("stdin" if file == "-" else file, statements))
    else:
        rows = list(map(statement_row, statements))
        show(CommandAnswer(rows, rows, map(_line, statements)), Format(format.value))
    worst = (SEVERITIES[each.verdict] for each in statements if each.verdict in SEVERITIES)
    if any(severity >= fail_on.severity for severity in worst):
        raise typer.Exit(FOUND)


def _line(each: Statement) -> str:
    colour = COLOURS[SEVERITIES[each.verdict]] if each.verdict is Verdict.BAD else None
    verdict = f"{each.verdict.value:5}"
    return f"{styled(verdict, colour) if colour else verdict} {each.topic}: {each.text}"
