"""``vtd dmar``: check, show, build, edit and compare DMAR tables, and ask who owns a device."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from devices.source_id import Bdf
from vtd.commands.reading import (
    UNUSABLE,
    Hpet,
    Lspci,
    Madt,
    MemoryMap,
    Namespace,
    Registers,
    Srat,
    TableFile,
    read_pci_tree,
    read_platform,
    read_table,
    read_tables,
    read_text,
    unusable_input,
)
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.terminal import Verbatim, folded, styled
from vtd.dmar import assignment, edit, report
from vtd.dmar.decoded import decoded
from vtd.dmar.description import build as build_table
from vtd.dmar.description import describe
from vtd.dmar.diff import diff as diff_tables
from vtd.dmar.explanation import enforcement, explain_rule
from vtd.dmar.protection import audit as audit_table
from vtd.dmar.report import FileFindings
from vtd.dmar.rules import RULES, Rule, Severity, validate
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table

app = typer.Typer(
    help="Check, show, build, edit and compare DMAR tables, and ask who owns a device.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
)

FINDINGS = 1
"""Exit code when something was found."""


class FindingsFormat(StrEnum):
    """Forms of findings."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    SARIF = "sarif"
    JUNIT = "junit"


class SeverityName(StrEnum):
    """Severities by name."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


OutputFile = Annotated[Path, typer.Option("-o", "--output", help="File to write; - is stdout.")]


@app.callback()
def dmar(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(UNUSABLE)


@app.command("validate")
def validate_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="Tables: raw, acpidump or acpixtract text, iasl -d output; - is stdin.",
        ),
    ] = None,
    format: Annotated[FindingsFormat, typer.Option(help="Form of the output.")] = (
        FindingsFormat.TEXT
    ),
    select: Annotated[
        list[str] | None,
        typer.Option(help="Check these rules only: ids or their beginnings, comma-separated."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Leave these rules out, after --select.")
    ] = None,
    fail_on: Annotated[
        SeverityName, typer.Option(help="Lowest severity that makes the exit code 1.")
    ] = SeverityName.WARNING,
    explain: Annotated[
        list[str] | None, typer.Option(help="Explain a rule instead of checking files.")
    ] = None,
    memory_map: MemoryMap = None,
    madt: Madt = None,
    hpet: Hpet = None,
    srat: Srat = None,
    lspci: Lspci = None,
    namespace: Namespace = None,
    registers: Registers = None,
) -> None:
    """Check tables against the rules.

    Exit code 0: nothing found at or above --fail-on. 1: something found. 2: wrong use.
    """
    if explain:
        asked = [RULES[id] for id in _rule_ids(explain)]
        if format is FindingsFormat.TEXT:
            typer.echo("\n\n".join(map(explain_rule, asked)))
        else:
            typer.echo(json.dumps([_rule_json(rule) for rule in asked], indent=1))
        return
    if not files:
        raise typer.BadParameter("a FILE is needed, - for stdin", param_hint="FILE")
    rules = set(_rule_ids(select) if select else RULES) - set(_rule_ids(ignore or []))
    platform = read_platform(memory_map, madt, hpet, srat, lspci, namespace, registers)
    results = [
        FileFindings(name, validate(data, platform, rules))
        for file in files
        for name, data in read_tables(file)
    ]
    threshold = Severity[fail_on.name]
    _print_findings(results, format, threshold)
    if any(each.severity >= threshold for result in results for each in result.findings):
        raise typer.Exit(FINDINGS)


def _rule_ids(texts: Iterable[str]) -> list[str]:
    """The rules whose ids begin with one of the words, with or without ``DMAR-``."""
    found: list[str] = []
    for word in (word.strip().upper() for text in texts for word in text.split(",")):
        beginning = "DMAR-" + word.removeprefix("DMAR-")
        matching = [id for id in RULES if id.startswith(beginning)]
        if not word or not matching:
            raise typer.BadParameter(f"{word!r} is the beginning of no rule id")
        found += matching
    return found


def _print_findings(
    results: list[FileFindings], format: FindingsFormat, threshold: Severity
) -> None:
    match format:
        case FindingsFormat.JSON:
            text = report.to_json(results)
        case FindingsFormat.JSONL:
            text = report.to_jsonl(results)
        case FindingsFormat.SARIF:
            text = report.to_sarif(results)
        case FindingsFormat.JUNIT:
            text = report.to_junit(results, threshold)
        case FindingsFormat.TEXT:
            text = "\n".join(folded(line for result in results for line in _finding_lines(result)))
    if text:
        typer.echo(text)


COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


def _finding_lines(result: FileFindings) -> Iterable[str]:
    if not result.findings:
        yield f"{result.file}: nothing found"
    for each in result.findings:
        severity = styled(f"{each.severity!s:7}", COLOURS[each.severity])
        yield f"{result.file}: 0x{each.offset:03x} {severity} {each.rule} {each.message}"


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.id,
        "severity": str(rule.severity),
        "title": rule.title,
        "meaning": rule.meaning,
        "section": rule.section,
        "needs": rule.needs,
        "software": enforcement(rule),
    }


@app.command("rules")
def rules_command(format: Output = Format.TEXT) -> None:
    """List every rule with its severity."""
    rows = [_rule_json(rule) for rule in RULES.values()]
    show(CommandAnswer(rows, rows, map(_rule_line, RULES.values())), format)


def _rule_line(rule: Rule) -> str:
    severity = styled(f"{rule.severity!s:7}", COLOURS[rule.severity])
    needs = f" (needs {rule.needs})" if rule.needs else ""
    return f"{rule.id} {severity} {rule.title}{needs}"


@app.command("show")
def show_command(
    file: TableFile,
    offsets: Annotated[
        bool, typer.Option("--offsets", help="Every field with its offset, length and bytes.")
    ] = False,
    format: Output = Format.TEXT,
) -> None:
    """Show what a table says."""
    from vtd.commands.show import offset_lines, tree_lines  # noqa: PLC0415 - rich is slow to import

    for name, data in read_tables(file):
        with unusable_input(name):
            table = Table.parse(data)
        row = {"file": name, "decoded": decoded(table)}
        lines = offset_lines(table) if offsets else tree_lines(table, name)
        show(CommandAnswer(row, [row], map(Verbatim, lines)), format)


@app.command("build")
def build_command(
    specification: Annotated[
        str, typer.Argument(metavar="SPEC.toml", help="As export writes it; - is stdin.")
    ],
    output: OutputFile,
) -> None:
    """Build a table from a TOML description; Length and Checksum are computed."""
    with unusable_input(specification):
        text = read_text(specification)
        if not text.strip():
            raise ValueError("empty")
        data = build_table(text).pack()
    _write(output, data)


@app.command("export")
def export_command(
    file: TableFile,
    output: OutputFile = Path("-"),
) -> None:
    """Write a table as the TOML description that build turns into the same bytes."""
    _write(output, describe(read_table(file)).encode())


def _write(output: Path, data: bytes) -> None:
    if str(output) == "-":
        typer.echo(data, nl=False)
        return
    with unusable_input(str(output)):
        output.write_bytes(data)


@app.command("edit")
def edit_command(
    file: TableFile,
    output: OutputFile,
    drop_rmrr: Annotated[
        list[str] | None, typer.Option(metavar="BASE", help="Drop the RMRR with this base.")
    ] = None,
    add_rmrr: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BASE-LIMIT=BDF[,BDF]", help="Add an RMRR; the limit is its last byte."
        ),
    ] = None,
    move: Annotated[
        list[str] | None,
        typer.Option(metavar="BDF=BASE", help="List a device under the unit with this base."),
    ] = None,
    set_flag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLAG[@WHERE]=0|1",
            help="Set or clear a flag of the table, or of the structure with this base or offset.",
        ),
    ] = None,
) -> None:
    """Change a table; Length and Checksum stay right. Edits apply in the order of these options."""
    table = read_table(file)
    with unusable_input("edit"):
        edit.require_whole(table)
        for base in drop_rmrr or []:
            table = edit.drop_rmrr(table, _address(base))
        for region in add_rmrr or []:
            bounds, devices = _halves(region, "=", "BASE-LIMIT=BDF")
            base, limit = _halves(bounds, "-", "BASE-LIMIT")
            table = edit.add_rmrr(table, _address(base), _address(limit), devices.split(","))
        for change in move or []:
            device, base = _halves(change, "=", "BDF=BASE")
            table = edit.move_device(table, device, _address(base))
        for change in set_flag or []:
            flag, value = _halves(change, "=", "FLAG=0|1")
            if value not in ("0", "1"):
                raise edit.EditError(f"{change!r}: a flag is 0 or 1")
            table = edit.set_flag(table, flag, value == "1")
    _write(output, table.pack())


def _address(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise edit.EditError(f"{text!r} is no number, such as 0x7b000000") from error


def _halves(text: str, separator: str, form: str) -> tuple[str, str]:
    first, found, second = text.partition(separator)
    if not found:
        raise edit.EditError(f"{text!r} is not {form}")
    return first, second


@app.command("diff")
def diff_command(
    before: TableFile,
    after: TableFile,
    format: Output = Format.TEXT,
) -> None:
    """Compare two tables by meaning: units, regions, scopes. Exit code 1 if they differ."""
    changes = diff_tables(read_table(before), read_table(after))
    rows = [change._asdict() for change in changes]
    show(CommandAnswer(rows, rows, map(str, changes)), format)
    if changes:
        raise typer.Exit(FINDINGS)


@app.command("scope")
def scope_command(
    file: TableFile,
    device: Annotated[str, typer.Argument(metavar="BDF", help="Such as 0000:00:02.0.")],
    lspci: Lspci = None,
    format: Output = Format.TEXT,
) -> None:
    """Tell which unit owns a device, its regions, ATS, the bridges above it, and its alias.

    Exit code 1 if no unit covers the device.
    """
    with unusable_input(device):
        bdf = Bdf.parse(device)
    pci = read_pci_tree(lspci)
    scopes = Scopes(read_table(file), pci)
    owner, sidp, atsr = scopes.owner(bdf), scopes.properties(bdf), scopes.root_port_ats(bdf)
    satc, alias = scopes.translation_cache(bdf), pci.alias(bdf) if pci else None
    answer: dict[str, Any] = {
        "device": str(bdf),
        "unit": f"0x{owner.unit.register_base:x}" if owner else None,
        "reason": owner.reason.value if owner else "no unit covers it",
        "entry": str(owner.entry) if owner and owner.entry else None,
        "regions": [f"0x{each.base:x}-0x{each.limit:x}" for each in scopes.regions(bdf)],
        "bridges": [str(bridge) for bridge in scopes.bridges_above(bdf)],
        "alias": str(alias) if alias else None,
        "atsr": f"at 0x{atsr.offset:x}" if atsr else None,
        "satc": f"at 0x{satc.offset:x}, flags 0x{int(satc.flags):x}" if satc else None,
        "sidp": {name: bool(value) for name, value in sidp.fields().items()} if sidp else None,
    }
    shown = ((name, _plain(value)) for name, value in answer.items())
    show(CommandAnswer(answer, [answer], (f"{name:8} {value}" for name, value in shown)), format)
    if owner is None:
        raise typer.Exit(FINDINGS)


def _plain(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(name for name, number in value.items() if number) or "none"
        case list():
            return ", ".join(value) or "none"
    return "none" if value is None else str(value)


@app.command("rmrr")
def rmrr_command(
    file: TableFile,
    memory_map: MemoryMap = None,
    lspci: Lspci = None,
    format: Output = Format.TEXT,
) -> None:
    """Tell for every device with a reserved region what hypervisors say about assigning it."""
    platform = read_platform(memory_map=memory_map, lspci=lspci)
    found = assignment.reserved_regions(read_table(file), platform)
    answers = [
        {
            "device": str(each.device or each.entry),
            "base": f"0x{each.region.base:x}",
            "limit": f"0x{each.region.limit:x}",
            "reserved": each.reserved,
            "policies": each.policies,
        }
        for each in found
    ]
    lines = [line for each in found for line in _region_lines(each)]
    show(CommandAnswer(answers, answers, lines or ["no device has a reserved region"]), format)


def _region_lines(each: assignment.ReservedRegion) -> Iterable[str]:
    size = max(0, each.region.end - each.region.base) >> 10
    reserved = {True: "reserved", False: "NOT reserved", None: "memory map not given"}
    yield (
        f"{each.device or each.entry}: 0x{each.region.base:x}-0x{each.region.limit:x}, "
        f"{size} KiB, {reserved[each.reserved]}"
    )
    for name, policy in each.policies.items():
        yield f"  {name}: {policy}"


@app.command("audit")
def audit_command(
    file: TableFile,
    lspci: Lspci = None,
    format: Output = Format.TEXT,
) -> None:
    """Tell what the table proves about protection from DMA, and what it can't prove."""
    statements = audit_table(read_table(file), read_pci_tree(lspci))
    answers = [
        {
            "topic": each.topic,
            "verdict": each.verdict.value,
            "text": each.text,
            "offset": each.place.offset if each.place else None,
        }
        for each in statements
    ]
    lines = (f"{each.verdict.value:5} {each.topic}: {each.text}" for each in statements)
    show(CommandAnswer(answers, answers, lines), format)
