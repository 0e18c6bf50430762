"""What happened where in files: a lane for each, from its first line to its last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vtd.pictures.canvas import CHARACTER, LINE, MARGIN, Canvas, Tone, clipped, columns
from vtd.pictures.markup import Markup

WIDTH, ROW, NARROWEST = 760, 34, 5
"""Pixels: of a lane, its height, and of a mark."""
MOST_MARKS = 400
"""Marks of a lane; those of one place are one, the worst."""
ORDER = (Tone.QUIET, Tone.PLAIN, Tone.GOOD, Tone.NOTE, Tone.WARN, Tone.BAD)


class Mark(NamedTuple):
    """Something on the lines from ``first`` to ``last``."""

    first: int
    last: int
    text: str
    tone: Tone


class Lane(NamedTuple):
    """A file, how many lines it has, and what happened in it."""

    name: str
    lines: int
    marks: tuple[Mark, ...]


def timeline_svg(title: str, lanes: Sequence[Lane], *, inline: bool = False) -> Markup:
    """The lanes below each other."""
    canvas = Canvas()
    canvas.text(MARGIN, MARGIN, title, "bold large")
    left = (
        MARGIN
        + 12
        + max((columns(clipped(each.name, 28)) for each in lanes), default=0) * (CHARACTER)
    )
    top = MARGIN + 32.0
    for lane in lanes:
        canvas.text(MARGIN, top, clipped(lane.name, 28), "bold", tip=lane.name)
        canvas.box(left, top + 2, WIDTH, 12, Tone.PLAIN)
        scale = WIDTH / max(1, lane.lines)
        for place, mark in _places(lane, scale).items():
            wide = max(NARROWEST, (mark.last - mark.first + 1) * scale)
            canvas.box(
                left + place, top, min(wide, WIDTH - place), 16, mark.tone, tip=mark.text, round=1
            )
        canvas.text(left, top + LINE, "line 1", "small quiet")
        end = f"line {lane.lines}"
        canvas.text(left + WIDTH - columns(end) * CHARACTER, top + LINE, end, "small quiet")
        top += ROW
    return canvas.svg(title, inline=inline)


def _places(lane: Lane, scale: float) -> dict[float, Mark]:
    """Marks by the place where they are drawn."""
    found: dict[float, Mark] = {}
    step = WIDTH / MOST_MARKS
    for mark in sorted(lane.marks, key=lambda each: ORDER.index(each.tone)):
        place = min(WIDTH - NARROWEST, (max(1, mark.first) - 1) * scale // step * step)
        found[place] = mark
    return found
