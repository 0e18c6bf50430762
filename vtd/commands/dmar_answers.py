"""``vtd dmar scope``, ``rmrr`` and ``audit``: who owns a device, who may have it, what protects."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from devices.source_id import Bdf
from vtd.commands.dmar_output import COLOURS, FINDINGS, Level
from vtd.commands.platform_files import MemoryMap, PlatformFiles, read_platform
from vtd.commands.reading import Lspci, TableFile, read_table, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.terminal import styled
from vtd.dmar import assignment, report
from vtd.dmar.pci_tree import LAST_SEGMENT, PciTree, parse_address
from vtd.dmar.protection import Statement, Verdict
from vtd.dmar.protection import audit as audit_table
from vtd.dmar.records import Atsr, Drhd, Rmrr
from vtd.dmar.rules import Severity, check
from vtd.dmar.scopes import Owner, Scopes
from vtd.dmar.table import Table

UNDECIDED = "can't tell without the bus tree (--lspci with the buses of bridges: lspci -v or -t)"


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
    owner = scopes.owner(bdf)
    undecided = _undecided(scopes, bdf, owner, platform.pci)
    answer = _scope_answer(scopes, bdf, None if undecided else owner, platform.pci)
    if undecided:
        answer["reason"] = undecided
    shown = ((name, _plain(value)) for name, value in answer.items())
    show(CommandAnswer(answer, [answer], (f"{name:8} {value}" for name, value in shown)), format)
    if owner is None or undecided:
        raise typer.Exit(FINDINGS)


def _undecided(scopes: Scopes, bdf: Bdf, owner: Owner | None, pci: PciTree | None) -> str | None:
    """Why the unit of a function can't be told; None if it can."""
    if owner is not None and owner.entry is not None:
        return None
    if scopes.undecided(bdf, Drhd):
        return UNDECIDED
    maybe = pci.possible_physical_function(bdf) if pci else None
    if maybe is None:
        return None
    other = scopes.owner(maybe)
    if other is not None and owner is not None and other.unit is owner.unit:
        return None
    return (
        f"can't tell: it may be a virtual function of {maybe}, whose capabilities are not shown "
        "(run lspci -vv as root)"
    )


def _scope_answer(
    scopes: Scopes, bdf: Bdf, owner: Owner | None, pci: PciTree | None
) -> dict[str, Any]:
    sidp, atsr, satc = (
        scopes.properties(bdf), scopes.root_port_ats(bdf), scopes.translation_cache(bdf),
    )  # fmt: skip
    regions = [f"0x{each.base:x}-0x{each.limit:x}" for each in scopes.regions(bdf)]
    device = scopes.device(bdf)
    answer: dict[str, Any] = {
        "device": str(bdf),
        "unit": f"0x{owner.unit.register_base:x}" if owner else None,
        "reason": owner.reason.value if owner else _nobody(scopes, bdf),
        "entry": str(owner.entry) if owner and owner.entry else None,
        "regions": UNDECIDED if not regions and scopes.undecided(bdf, Rmrr) else regions,
        "bridges": [str(bridge) for bridge in scopes.bridges_above(bdf)],
        "alias": _alias(bdf, pci),
        "atsr": f"at 0x{atsr.offset:x}" if atsr else _no_atsr(scopes, bdf),
        "satc": f"at 0x{satc.offset:x}, flags 0x{int(satc.flags):x}" if satc else None,
        "sidp": {name: bool(value) for name, value in sidp.fields().items()} if sidp else None,
    }
    return answer if device == bdf else {**answer, "counts_as": str(device)}


def _no_atsr(scopes: Scopes, bdf: Bdf) -> str | None:
    segment = scopes.device(bdf).segment
    listed = any(each.segment == segment for each in scopes.table.all(Atsr))
    return UNDECIDED if listed and scopes.hidden(bdf) else None


def _nobody(scopes: Scopes, bdf: Bdf) -> str:
    segment = scopes.device(bdf).segment
    if segment > LAST_SEGMENT:
        return f"domain {segment:x} is behind a VMD controller; which one is not known"
    if not scopes.table.segment_units(segment):
        return f"no unit covers it: segment {segment} has no DRHD"
    return "no unit covers it"


def _alias(bdf: Bdf, pci: PciTree | None) -> str | None:
    if pci is None:
        return None if bdf.source_id.bus == 0 else "not known: needs the PCI tree (--lspci)"
    if pci.may_be_below_a_bridge(bdf):
        return "not known: the listing has no buses of bridges (lspci -v or -t)"
    alias, unknown = pci.alias(bdf), pci.alias_unknown(bdf)
    if unknown:
        return f"not known: the listing has no capabilities of {unknown} (run lspci -vv as root)"
    return str(alias) if alias else _quirk_alias(bdf, pci)


def _quirk_alias(bdf: Bdf, pci: PciTree) -> str | None:
    """The id that a device may send with beside its own; how many, where there are several."""
    ids = pci.quirk_aliases(bdf)
    if len(ids) < 2:
        return str(*ids) or None
    return f"any of {len(ids)} ids of its bus"


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
    cut = table.truncated or table.rest
    where = " in the part of the table that can be read" if cut else ""
    lines = lines or [f"no device has a reserved region{where}"]
    show(CommandAnswer(answers, answers, lines), format)
    if any(each.refused for each in found):
        raise typer.Exit(FINDINGS)


def _dmar_table(file: str) -> Table:
    """The table of a file; ends the command if it is no DMAR table, which reading it has told."""
    table = read_table(file)
    if check(table, rules={"DMAR-H01"}):
        raise typer.Exit(FINDINGS)
    return table


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
        rows = list(map(_statement, statements))
        show(CommandAnswer(rows, rows, map(_line, statements)), Format(format.value))
    worst = (SEVERITIES[each.verdict] for each in statements if each.verdict in SEVERITIES)
    if any(severity >= fail_on.severity for severity in worst):
        raise typer.Exit(FINDINGS)


def _statement(each: Statement) -> dict[str, Any]:
    return {
        "topic": each.topic,
        "verdict": each.verdict.value,
        "text": each.text,
        "offset": each.place.offset if each.place else None,
    }


def _line(each: Statement) -> str:
    colour = COLOURS[SEVERITIES[each.verdict]] if each.verdict is Verdict.BAD else None
    verdict = f"{each.verdict.value:5}"
    return f"{styled(verdict, colour) if colour else verdict} {each.topic}: {each.text}"
