"""Lines over a logarithmic axis, with their names below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vtd.pictures.canvas import CHARACTER, MARGIN, Canvas, Tone, clipped, columns
from vtd.pictures.markup import Markup

WIDTH, HEIGHT, LEFT = 620, 260, 64
TONES = (Tone.NOTE, Tone.GOOD, Tone.BAD, Tone.WARN)
MOST_LINES = 12
"""Lines that can be told apart; those beyond are counted."""


class Series(NamedTuple):
    """A line: points with ascending, positive ``x``."""

    name: str
    points: tuple[tuple[float, float], ...]


def chart_svg(
    title: str, across: str, up: str, series: Sequence[Series], *, inline: bool = False
) -> Markup:
    """The lines; ``across`` and ``up`` name the axes, the first of which doubles."""
    canvas = Canvas()
    canvas.text(MARGIN, MARGIN, clipped(title, 96), "bold large", tip=title)
    shown = series[:MOST_LINES]
    points = [each for line in shown for each in line.points]
    low = math.log2(min((x for x, _ in points), default=1))
    high = max(low + 1, math.log2(max((x for x, _ in points), default=1)))
    most = max((y for _, y in points), default=0) or 1.0
    top, left = MARGIN + 34.0, MARGIN + LEFT

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log2(x) - low) / (high - low)
        return left + across * WIDTH, top + HEIGHT * (1 - y / most)

    canvas.box(left, top, WIDTH, HEIGHT, round=0)
    for part in range(5):
        value = most * part / 4
        _, at = place(2**low, value)
        canvas.path(f"M{left} {at:.6g}h{WIDTH}", "line grid")
        text = f"{value:.3g}"
        canvas.text(left - 6 - columns(text) * CHARACTER, at - 9, text, "quiet")
    for power in range(math.ceil(low), math.floor(high) + 1):
        at, _ = place(2.0**power, 0)
        text = f"{2**power:g}"
        canvas.text(at - columns(text) * CHARACTER / 2, top + HEIGHT + 2, text, "quiet")
    canvas.text(left, top + HEIGHT + 20, across, "quiet")
    canvas.text(MARGIN, top - 20, up, "quiet")
    below = top + HEIGHT + 46
    for number, line in enumerate(shown):
        tone = TONES[number % len(TONES)]
        dash = f"dash{number // len(TONES)}"
        route = "L".join(f"{x:.6g} {y:.6g}" for x, y in (place(*each) for each in line.points))
        canvas.path(f"M{route}", f"mark {tone} {dash}", tip=line.name)
        for each in line.points:
            x, y = place(*each)
            tip = f"{line.name}: {each[0]:g}, {each[1]:.4g}"
            canvas.box(x - 3, y - 3, 6, 6, tone, tip=tip, round=3)
        canvas.path(f"M{left} {below + 8:.6g}h24", f"mark {tone} {dash}")
        canvas.text(left + 34, below, clipped(line.name, 84), tip=line.name)
        below += 20
    if len(series) > len(shown):
        rest = f"and {len(series) - len(shown)} more"
        canvas.text(left + 34, below, rest, "quiet")
    return canvas.svg(title, inline=inline)
