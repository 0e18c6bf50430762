"""A walk through tables: each entry with its bits, and where it leads.

A walk of one dimension is a column of entries; where every step needs a walk of its own, a row for
each, from left to right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vtd.pictures.canvas import CHARACTER, LINE, MARGIN, Canvas, Tone, clipped, columns, folded
from vtd.pictures.markup import Markup

CELL, BIT, WORD = 11, 12, 64
"""Pixels: width and height of a bit. Bits in a line."""
WIDE = WORD * CELL + 24
"""Pixels of an entry that shows its bits."""
SMALL, GAP = 196, 26
"""Pixels of an entry in a row, and between two."""


class NamedBits(NamedTuple):
    """A field of an entry, bits ``high`` to ``low``, and its value in words."""

    name: str
    high: int
    low: int
    value: str


class Entry(NamedTuple):
    """What was read on the way; ``raw`` None where that failed."""

    name: str
    address: str
    raw: int | None
    width: int
    """In bits."""
    fields: tuple[NamedBits, ...]
    """Those that are not 0."""
    remark: str = ""
    """What it comes to, where it is not just a pointer to the next."""
    tone: Tone = Tone.PLAIN
    way: tuple[Entry, ...] = ()
    """The walk that finds the address of this entry."""


class Part(NamedTuple):
    """Some bits of the address, and the entry that they select."""

    name: str
    value: str


class Walk(NamedTuple):
    """All there is to draw."""

    title: str
    parts: tuple[Part, ...]
    """The address from its highest bits to its lowest."""
    entries: tuple[Entry, ...]
    verdict: str
    tone: Tone


def walk_svg(walk: Walk, *, inline: bool = False) -> Markup:
    """The walk as SVG."""
    canvas = Canvas()
    canvas.text(MARGIN, MARGIN, clipped(walk.title, 96), "bold large", tip=walk.title)
    top = _address(canvas, walk.parts, MARGIN + 30.0)
    left = MARGIN + 20.0
    for each in walk.entries:
        bottom = _row(canvas, each, top) if each.way else _entry(canvas, each, top)
        end = MARGIN + len(each.way) * (SMALL + GAP) + 20.0 if each.way else left
        top = bottom + (24 if each.way else 16)
        canvas.arrow([(end, bottom + 2), (end, top - 12), (left, top - 12), (left, top)])
    lines = folded(walk.verdict, 94)
    canvas.box(MARGIN, top, WIDE, LINE * len(lines) + 10, walk.tone)
    for number, line in enumerate(lines):
        canvas.text(MARGIN + 12, top + 4 + LINE * number, line, "bold")
    return canvas.svg(walk.title, inline=inline)


def _address(canvas: Canvas, parts: Sequence[Part], top: float) -> float:
    """The address cut into the parts that select entries."""
    if not parts:
        return top
    x = float(MARGIN)
    for each in parts:
        wide = max(columns(each.name), columns(each.value)) * CHARACTER + 14
        canvas.box(x, top, wide, 2 * LINE + 4, Tone.NOTE)
        canvas.text(x + 7, top + 2, each.name, "small quiet")
        canvas.text(x + 7, top + LINE, each.value)
        x += wide
    return top + 2 * LINE + 20


def _entry(canvas: Canvas, entry: Entry, top: float) -> float:
    """An entry with its bits; where it ends."""
    words = _words(entry)
    listed = _listed(entry.fields, int((WIDE - 24) / CHARACTER))
    remarks = 1 if entry.remark else 0
    high = 26 + len(words) * 26 + (len(listed) + remarks) * LINE + 8
    canvas.box(MARGIN, top, WIDE, high, entry.tone)
    end = canvas.text(MARGIN + 12, top + 4, entry.name, "bold")
    end = canvas.text(end + 12, top + 4, f"at {entry.address}", "quiet")
    raw = "can't be read" if entry.raw is None else f"{entry.raw:#0{2 + entry.width // 4}x}"
    if entry.width <= 128:
        canvas.text(MARGIN + WIDE - 12 - columns(raw) * CHARACTER, top + 4, raw)
    at = top + 26
    for word in words:
        _bits(canvas, entry, word, at)
        at += 26
    for line in listed:
        canvas.text(MARGIN + 12, at, line)
        at += LINE
    if entry.remark:
        canvas.text(MARGIN + 12, at, clipped(entry.remark, 94), _worded(entry.tone))
    return top + high


def _worded(tone: Tone) -> str:
    return f"{tone} bold" if tone is not Tone.PLAIN else "quiet"


def _words(entry: Entry) -> list[int]:
    """The first bit of each line of bits: of a long entry, of lines that are not 0."""
    if entry.raw is None:
        return []
    first = range(0, entry.width, WORD)
    set_ = [low for low in first if entry.raw >> low & (1 << WORD) - 1]
    return [*reversed(set_)] or [0]


def _bits(canvas: Canvas, entry: Entry, low: int, top: float) -> None:
    """64 bits, the highest first: fields that are not 0 shaded, bits that are set filled."""
    assert entry.raw is not None
    high = low + WORD - 1

    def left_of(bit: int) -> float:
        return MARGIN + 12.0 + (high - bit) * CELL

    canvas.box(left_of(high), top, WORD * CELL, BIT, Tone.PLAIN, round=0)
    for field in entry.fields:
        first, last = min(field.high, high), max(field.low, low)
        if first >= last:
            span = f"bits {field.high}:{field.low}" if field.high > field.low else f"bit {first}"
            tip = f"{span}, {field.name} = {field.value}"
            wide = (first - last + 1) * CELL
            canvas.box(left_of(first), top, wide, BIT, Tone.NOTE, tip=tip, round=0)
    for bit in range(low, high + 1):
        if entry.raw >> bit & 1:
            canvas.box(left_of(bit), top, CELL, BIT, "set", round=0)
    grid = "".join(f"M{left_of(bit):.6g} {top:.6g}v{BIT}" for bit in range(low, high))
    canvas.path(grid, "line grid")
    for bit in (*range(low + 7, high + 1, 8), low):
        canvas.text(left_of(bit), top + 9, str(bit), "small quiet")


def _listed(fields: Sequence[NamedBits], width: int) -> list[str]:
    """Names and values on lines of at most ``width`` columns."""
    lines = [""]
    for each in fields:
        word = f"{each.name}={each.value}"
        if lines[-1] and len(lines[-1]) + 2 + len(word) > width:
            lines.append(clipped(word, width))
        else:
            lines[-1] = clipped(f"{lines[-1]}  {word}".strip(), width)
    return lines if fields else ["all zero"]


def _row(canvas: Canvas, entry: Entry, top: float) -> float:
    """The walk that finds an entry, and the entry at its end, from left to right."""
    x, bottom = float(MARGIN), top
    for number, each in enumerate((*entry.way, entry)):
        last = number == len(entry.way)
        if number:
            canvas.arrow([(x - GAP + 2, top + 34), (x - 2, top + 34)])
        bottom = max(bottom, _card(canvas, each, x, top, own=last))
        x += SMALL + GAP
    return bottom


def _card(canvas: Canvas, entry: Entry, x: float, top: float, *, own: bool) -> float:
    """An entry in a few words."""
    limit = int((SMALL - 16) / CHARACTER)
    tone = Tone.NOTE if own and entry.tone is Tone.PLAIN else entry.tone
    raw = "can't be read" if entry.raw is None else f"{entry.raw:#018x}"
    where, guest, seen = entry.address.partition(" (")
    lines = [(f"at {where}", "quiet")]
    if guest:
        lines.append((seen.rstrip(")"), "quiet"))
    lines.append((raw, ""))
    lines += [(each, "") for each in _listed(entry.fields, limit)[:4]]
    lines += [(each, _worded(entry.tone)) for each in folded(entry.remark, limit)]
    high = 28 + LINE * len(lines)
    canvas.box(x, top, SMALL, high, tone)
    canvas.text(x + 8, top + 4, entry.name, "bold")
    for number, (text, kind) in enumerate(lines):
        canvas.text(x + 8, top + 24 + LINE * number, clipped(text, limit), kind)
    return top + high
