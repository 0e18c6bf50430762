"""A DMAR table as a picture: bytes and fields side by side, findings at their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from vtd.dmar.field_lines import FieldLine, field_lines
from vtd.dmar.rules import Finding
from vtd.dmar.table import Table
from vtd.pictures.byte_map import Block, FieldBytes, Remark, byte_map_svg
from vtd.pictures.canvas import Tone
from vtd.pictures.markup import Markup
from vtd.severity import Severity

TONES = {Severity.ERROR: Tone.BAD, Severity.WARNING: Tone.WARN, Severity.INFO: Tone.NOTE}


def table_svg(
    table: Table, findings: Sequence[Finding], title: str, *, inline: bool = False
) -> Markup:
    """A table with what the rules find in it as SVG."""
    return byte_map_svg(title, list(table_blocks(table, findings)), inline=inline)


def table_blocks(table: Table, findings: Sequence[Finding] = ()) -> Iterator[Block]:
    """Header, structures, and the bytes that are in none of them."""
    data = table.pack()
    starts = {0: "header"}
    starts |= {each.offset: f"{each.name} (type {each.type})" for each in table.structures}
    if table.rest:
        starts[table.rest_place.offset] = "unreadable"
    if table.trailing:
        starts[table.size - len(table.trailing)] = "after the table"
    offsets = sorted(starts)

    def block_of(offset: int) -> int:
        return max((each for each in offsets if each <= offset), default=0)

    lines = {
        start: tuple(_field(each) for each in found)
        for start, found in groupby(field_lines(table), lambda each: block_of(each.place.offset))
    }
    for start, end in zip(offsets, (*offsets[1:], len(data)), strict=True):
        remarks = tuple(_remark(each) for each in findings if block_of(each.offset) == start)
        yield Block(starts[start], start, data[start:end], lines.get(start, ()), remarks)


def _field(line: FieldLine) -> FieldBytes:
    return FieldBytes(*line.place, line.name, line.value)


def _remark(finding: Finding) -> Remark:
    text = f"{finding.severity} {finding.rule}: {finding.message}"
    return Remark(finding.offset, finding.length, text, TONES[finding.severity])
