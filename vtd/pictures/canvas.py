"""A picture that grows as shapes are put on it, and becomes SVG in the colours of day or night.

Text is set in a monospaced font of known width, so that layouts need no font.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from enum import StrEnum

from vtd.pictures.markup import Markup, element, visible

CHARACTER, LINE = 7.25, 18
"""Pixels: width of a character, height of a line."""
MARGIN = 16
CHIPS = 8
"""Chips have so many colours; their text tells them apart."""


class Tone(StrEnum):
    """What a shape stands for, which decides its colours."""

    PLAIN = "plain"
    QUIET = "quiet"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    NOTE = "note"


_DAY = {
    "paper": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "edge": "#6e7781",
    "plain": "#f6f8fa", "good": "#dafbe1", "warn": "#fff3c4", "bad": "#ffe3e0", "note": "#ddf4ff",
    "good-edge": "#1a7f37", "warn-edge": "#8a6100", "bad-edge": "#b3261e", "note-edge": "#0a5cad",
    "set": "#0a5cad", "set-ink": "#ffffff",
}  # fmt: skip
_DAY_CHIPS = (
    *("#d6e8ff", "#d7f5d9", "#ffe9c7", "#f6dcff"),
    *("#cff3f1", "#ffdfe4", "#e9ecc3", "#e3e0ff"),
)
_NIGHT = {
    "paper": "#0d1117", "ink": "#e6edf3", "quiet": "#9aa5b1", "edge": "#7d8590",
    "plain": "#161b22", "good": "#12321d", "warn": "#3a2c05", "bad": "#4a1714", "note": "#0c2a4a",
    "good-edge": "#4ac26b", "warn-edge": "#d8a52b", "bad-edge": "#ff8a80", "note-edge": "#6cb6ff",
    "set": "#6cb6ff", "set-ink": "#0d1117",
}  # fmt: skip
_NIGHT_CHIPS = (
    *("#17365c", "#1b4223", "#4d3608", "#43265a"),
    *("#0f4441", "#57222c", "#3c4011", "#312d63"),
)


def _rules(colours: Mapping[str, str], chips: Sequence[str]) -> str:
    """The style rules of a set of colours."""
    tones = "".join(
        f".vtd .{tone}{{fill:{colours[tone]};stroke:{colours[f'{tone}-edge']}}}"
        f".vtd text.{tone}{{fill:{colours[f'{tone}-edge']};stroke:none}}"
        f".vtd .mark.{tone}{{fill:none;stroke:{colours[f'{tone}-edge']}}}"
        for tone in (Tone.GOOD, Tone.WARN, Tone.BAD, Tone.NOTE)
    )
    return (
        f".vtd .paper{{fill:{colours['paper']};stroke:none}}"
        f".vtd text{{fill:{colours['ink']};stroke:none}}"
        f".vtd .plain{{fill:{colours['plain']};stroke:{colours['edge']}}}"
        f".vtd .line{{fill:none;stroke:{colours['edge']}}}"
        f".vtd .set{{fill:{colours['set']};stroke:{colours['edge']}}}"
        f".vtd text.plain{{fill:{colours['ink']};stroke:none}}"
        f".vtd text.quiet{{fill:{colours['quiet']};stroke:none}}"
        f".vtd text.set{{fill:{colours['set-ink']};stroke:none}}"
        + tones
        + "".join(
            f".vtd .chip{number}{{fill:{colour};stroke:{colours['edge']}}}"
            for number, colour in enumerate(chips)
        )
    )


STYLE = Markup(
    ".vtd text{font-family:ui-monospace,'DejaVu Sans Mono',Consolas,monospace;font-size:12px;"
    "white-space:pre}"
    ".vtd .bold{font-weight:bold}.vtd .small{font-size:10px}.vtd .large{font-size:14px}"
    ".vtd .line{stroke-width:1.2}.vtd .line:hover{stroke-width:3}"
    ".vtd .grid{stroke-width:.6}.vtd .mark{stroke-width:2.5}"
    ".vtd .dash1{stroke-dasharray:7 3}.vtd .dash2{stroke-dasharray:2 3}"
    + _rules(_DAY, _DAY_CHIPS)
    + "@media (prefers-color-scheme:dark){"
    f"{_rules(_NIGHT, _NIGHT_CHIPS)}}}"
)
"""The style sheet of every picture."""


def columns(text: str) -> int:
    """Columns of a monospaced font that a text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide


def clipped(text: object, limit: int) -> str:
    """Text of at most ``limit`` columns, with a mark where it was longer."""
    shown = visible(text).replace("\n", " ")
    if columns(shown) <= limit:
        return shown
    while columns(shown) > limit - 1:
        shown = shown[: min(len(shown) - 1, limit - 1)]
    return f"{shown}…"


def folded(text: str, width: int = 100) -> list[str]:
    """The words of a sentence on lines of at most ``width`` columns; no line without words."""
    lines: list[str] = []
    for word in text.split():
        shown = clipped(word, width)
        if lines and columns(lines[-1]) + 1 + columns(shown) <= width:
            lines[-1] += f" {shown}"
        else:
            lines.append(shown)
    return lines


class Canvas:
    """Shapes, and the room that they take."""

    def __init__(self) -> None:
        self._shapes: list[Markup] = []
        self._width = self._height = 0.0

    def text(
        self, x: float, y: float, text: object, kind: str = "", *, tip: str | None = None
    ) -> float:
        """Text whose line begins at ``x``, ``y``; where it ends."""
        shown = visible(text)
        tips = () if tip is None else (element("title", tip),)
        self._add("text", shown, *tips, x=float(x), y=y + 13.0, class_=kind or None)
        scale = 10 / 12 if "small" in kind else 14 / 12 if "large" in kind else 1
        end = x + columns(shown) * CHARACTER * scale
        self._grow(end, y + LINE)
        return end

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str = Tone.PLAIN,
        *,
        tip: str | None = None,
        round: float = 4,
    ) -> None:
        """A rectangle."""
        tips = () if tip is None else (element("title", tip),)
        self._add(
            "rect", *tips, x=float(x), y=float(y), width=float(width), height=float(height),
            rx=float(round), class_=kind,
        )  # fmt: skip
        self._grow(x + width, y + height)

    def chip(self, x: float, y: float, text: object, kind: str = Tone.PLAIN) -> float:
        """A short text in a box of its own; where it ends."""
        wide = columns(visible(text)) * CHARACTER + 10
        self.box(x, y + 1, wide, LINE - 3, kind, round=7)
        self.text(x + 5, y - 1, text)
        return x + wide

    def path(
        self, route: str, kind: str = "line", *, tip: str | None = None, reach: float = 0
    ) -> None:
        """A line along an SVG path, that goes as far to the right as ``reach``."""
        self._grow(reach, 0)
        tips = () if tip is None else (element("title", tip),)
        self._add("path", *tips, d=route, class_=kind)

    def arrow(self, points: list[tuple[float, float]]) -> None:
        """A broken line with a tip at its end."""
        (x, y), (before, above) = points[-1], points[-2]
        route = "M" + "L".join(f"{a:.6g} {b:.6g}" for a, b in points)
        if y != above:
            back = -5 if y > above else 5
            route += f"M{x - 4:.6g} {y + back:.6g}L{x:.6g} {y:.6g}L{x + 4:.6g} {y + back:.6g}"
        else:
            back = -5 if x > before else 5
            route += f"M{x + back:.6g} {y - 4:.6g}L{x:.6g} {y:.6g}L{x + back:.6g} {y + 4:.6g}"
        self.path(route)

    def svg(self, title: str, *, inline: bool = False) -> Markup:
        """The picture; ``inline`` in a page that has :data:`STYLE` and shows the title itself."""
        width, height = self._width + MARGIN, self._height + MARGIN
        style = () if inline else (element("style", STYLE),)
        paper = element("rect", width=float(width), height=float(height), class_="paper")
        return element(
            "svg",
            element("title", title),
            *style,
            paper,
            *(Markup(f"\n{each}") for each in self._shapes),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width:.6g} {height:.6g}",
            width=float(width),
            height=float(height),
            class_="vtd",
            role="img",
        )

    def _add(self, name: str, *content: object, **attributes: object) -> None:
        self._shapes.append(element(name, *content, **attributes))

    def _grow(self, x: float, y: float) -> None:
        self._width, self._height = max(self._width, x), max(self._height, y)
