"""A tree of lines, as a listing has them: what is below is further in, what belongs has a chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vtd.pictures.canvas import CHARACTER, LINE, MARGIN, Canvas, Tone, clipped, columns, folded
from vtd.pictures.markup import Markup

WIDEST = 72
"""Columns of a text before it is cut; a tip has all of it."""
STEP, ROW = 20, 24
"""Pixels: indentation, height of a row."""


class Chip(NamedTuple):
    """A word that marks a row."""

    text: str
    kind: str = Tone.PLAIN


class Row(NamedTuple):
    """A line of the tree."""

    depth: int
    name: str
    text: str = ""
    chips: tuple[Chip, ...] = ()
    remarks: tuple[str, ...] = ()
    """Sentences below it."""
    tone: Tone = Tone.QUIET
    """Of the remarks."""


def tree_svg(
    title: str, rows: Sequence[Row], notes: Sequence[str] = (), *, inline: bool = False
) -> Markup:
    """The rows below each other, joined to what is above them; ``notes`` stand below all."""
    canvas = Canvas()
    canvas.text(MARGIN, MARGIN, clipped(title, WIDEST + 20), "bold large", tip=title)
    first = max((_chips_at(each) for each in rows), default=0.0)
    top = MARGIN + 30.0
    above: list[tuple[int, float]] = []
    for each in rows:
        x = MARGIN + each.depth * STEP
        while above and above[-1][0] >= each.depth:
            above.pop()
        if above:
            trunk = MARGIN + above[-1][0] * STEP + 5
            canvas.path(f"M{trunk:.6g} {above[-1][1] + LINE:.6g}V{top + 9:.6g}H{x - 2:.6g}")
        above.append((each.depth, top))
        end = canvas.text(x, top, clipped(each.name, WIDEST), "bold", tip=each.name)
        if each.text:
            canvas.text(end + 8, top, clipped(each.text, WIDEST), "quiet", tip=each.text)
        at = first
        for chip in each.chips:
            at = canvas.chip(at, top, clipped(chip.text, WIDEST), chip.kind) + 6
        top += ROW
        for remark in each.remarks:
            for line in folded(remark):
                canvas.text(x + STEP, top - 4, line, each.tone)
                top += LINE
    for note in notes:
        for line in folded(note):
            canvas.text(MARGIN, top + 6, line, "quiet")
            top += LINE
    return canvas.svg(title, inline=inline)


def _chips_at(row: Row) -> float:
    text = columns(clipped(row.name, WIDEST)) * CHARACTER
    if row.text:
        text += columns(clipped(row.text, WIDEST)) * CHARACTER + 8
    return MARGIN + row.depth * STEP + text + 14
