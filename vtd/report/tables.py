"""The section about a DMAR table: bytes and fields side by side, findings, what it protects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from vtd.dmar.assignment import region_row, reserved_regions
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.protection import audit, statement_row
from vtd.dmar.rules import RULES, Finding, check, validate
from vtd.dmar.table import Table, TableError
from vtd.dmar.table_picture import table_blocks
from vtd.pictures.byte_map import MOST_LINES, PER_LINE, Block, Mark, marked_bytes
from vtd.report.section import TONES, Section, command, counted, worst
from vtd.ruling import finding_object
from vtd.severity import Severity

MOST_FIELDS, MOST_BLOCKS = 256, 400
"""Fields of a structure, and structures, that are listed; more are counted."""


def table_section(name: str, data: bytes, platform: PlatformData | None = None) -> Section:
    """The section about the bytes of one table."""
    findings = validate(data, platform)
    shown: dict[str, Any] = {
        "findings": [{**finding_object(each), "where": each.where, "length": each.length,
                      "tone": TONES[each.severity], "title": _title(each.rule)}
                     for each in findings],
        "bytes": len(data),
    }  # fmt: skip
    try:
        shown |= _decoded(Table.parse(data), findings, platform)
    except TableError as error:
        shown["unreadable"] = str(error)
    counts = [
        counted(number, str(severity), "info" if severity is Severity.INFO else "")
        for severity in TONES
        if (number := sum(each.severity == severity for each in findings))
    ]
    return Section(
        "table",
        "DMAR table",
        name,
        ", ".join(counts) or "no rule is broken",
        worst([TONES[each.severity] for each in findings]),
        shown,
        tuple(command("dmar", each, name) for each in ("show", "validate", "audit", "rmrr")),
    )


def _title(rule: str) -> str:
    return RULES[rule].title if rule in RULES else ""


def _decoded(
    table: Table, findings: Sequence[Finding], platform: PlatformData | None
) -> dict[str, Any]:
    blocks = list(table_blocks(table, findings))
    known = not check(table, rules={"DMAR-H01"})
    pci = platform.pci if platform else None
    return {
        "blocks": [_block(each) for each in blocks[:MOST_BLOCKS]],
        "more_blocks": max(0, len(blocks) - MOST_BLOCKS),
        "statements": [statement_row(each) for each in audit(table, pci)] if known else [],
        "regions": [region_row(each) for each in reserved_regions(table, platform)]
        if known
        else [],
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "offset": f"{block.offset:#05x}",
        "length": len(block.data),
        "lines": list(_lines(block)),
        "more_bytes": max(0, len(block.data) - MOST_LINES * PER_LINE),
        "fields": [each._asdict() for each in block.fields[:MOST_FIELDS]],
        "more_fields": max(0, len(block.fields) - MOST_FIELDS),
        "remarks": [each._asdict() for each in block.remarks],
    }


def _lines(block: Block) -> Iterator[dict[str, Any]]:
    """Lines of bytes, each cut where field or remark change."""
    marked = marked_bytes(block)
    for start in range(0, min(len(block.data), MOST_LINES * PER_LINE), PER_LINE):
        runs = []
        line = marked[start : start + PER_LINE]
        for mark, group in groupby(enumerate(line, start), lambda each: each[1]):
            data = bytes(block.data[at] for at, _ in group)
            runs.append({"hex": data.hex(" "), **_mark(mark)})
        yield {"offset": f"{block.offset + start:03x}", "runs": runs}


def _mark(mark: Mark) -> dict[str, Any]:
    return {"field": mark.field, "tone": mark.tone}
