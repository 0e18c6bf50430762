"""Bytes and what they mean, side by side: blocks of fields, and remarks at their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vtd.pictures.canvas import CHARACTER, CHIPS, LINE, MARGIN, Canvas, Tone, clipped
from vtd.pictures.markup import Markup

PER_LINE = 16
BYTE = 3 * CHARACTER
"""Pixels of two digits and a blank."""
FIELD, NAME = 356, 19
"""Pixels of a field, columns of its name."""
MOST_LINES = 64
"""Lines of bytes of one block; what a longer one has beyond is counted only."""


class FieldBytes(NamedTuple):
    """A field: which bytes, and what they say."""

    offset: int
    length: int
    name: str
    text: str


class Remark(NamedTuple):
    """Something about some bytes."""

    offset: int
    length: int
    text: str
    tone: Tone


class Mark(NamedTuple):
    """What a byte belongs to: the number of its field, and the tone of a remark."""

    field: int | None
    tone: Tone | None


class Block(NamedTuple):
    """Bytes that belong together."""

    name: str
    offset: int
    data: bytes
    fields: tuple[FieldBytes, ...]
    remarks: tuple[Remark, ...] = ()


def byte_map_svg(title: str, blocks: Sequence[Block], *, inline: bool = False) -> Markup:
    """The blocks below each other: bytes at the left, fields at the right, remarks below both."""
    canvas = Canvas()
    canvas.text(MARGIN, MARGIN, clipped(title, 110), "bold large", tip=title)
    top = MARGIN + 34.0
    for each in blocks:
        top = _block(canvas, each, top) + 14
    return canvas.svg(title, inline=inline)


def _block(canvas: Canvas, block: Block, top: float) -> float:
    where = f"at {block.offset:#05x}, {len(block.data)} bytes"
    end = canvas.text(MARGIN, top, clipped(block.name, 60), "bold")
    canvas.text(end + 10, top, where, "quiet")
    top += LINE + 4
    left = MARGIN + 5 * CHARACTER
    marks = marked_bytes(block)
    shown = block.data[: MOST_LINES * PER_LINE]
    down = top
    for start in range(0, len(shown), PER_LINE):
        canvas.text(MARGIN, down, f"{block.offset + start:03x}", "quiet")
        for column, byte in enumerate(shown[start : start + PER_LINE]):
            field, tone = marks[start + column]
            x = left + column * BYTE
            kind = "plain" if field is None else f"chip{field % CHIPS}"
            canvas.box(x - 3, down, BYTE - 1, LINE - 2, kind, round=0)
            if tone is not None:
                canvas.path(f"M{x - 3:.6g} {down + LINE - 3:.6g}h{BYTE - 1:.6g}", f"mark {tone}")
            canvas.text(x, down, f"{byte:02x}", "" if tone is None else f"bold {tone}")
        down += LINE
    if len(block.data) > len(shown):
        canvas.text(left, down, f"and {len(block.data) - len(shown)} bytes more", "quiet")
        down += LINE
    down = max(down, _fields(canvas, block.fields, left + PER_LINE * BYTE + 24, top))
    for remark in block.remarks:
        canvas.text(MARGIN, down, clipped(f"{remark.offset:#05x} {remark.text}", 120),
                    f"bold {remark.tone}", tip=remark.text)  # fmt: skip
        down += LINE
    return down


def _fields(canvas: Canvas, fields: Sequence[FieldBytes], x: float, top: float) -> float:
    """What the bytes say, in two columns; where they end."""
    half = -(-len(fields) // 2)
    for number, each in enumerate(fields):
        column, row = divmod(number, half)
        at, down = x + column * FIELD, top + row * LINE
        canvas.box(at, down + 2, 12, LINE - 6, f"chip{number % CHIPS}", round=2)
        end = canvas.text(at + 20, down, clipped(each.name, 24), tip=each.name)
        room = int((at + FIELD - 8 - max(end, at + 20 + NAME * CHARACTER)) / CHARACTER)
        canvas.text(max(end + 8, at + 20 + NAME * CHARACTER), down, clipped(each.text, room),
                    "bold", tip=each.text)  # fmt: skip
    return top + half * LINE


def marked_bytes(block: Block) -> list[Mark]:
    """Of each byte of a block its field and the worst remark on it."""
    fields: dict[int, int] = {}
    for number, field in enumerate(block.fields):
        for at in range(field.offset, field.offset + field.length):
            fields.setdefault(at, number)
    tones: dict[int, Tone] = {}
    last = block.offset + len(block.data)
    for remark in block.remarks:
        for at in range(remark.offset, min(last, remark.offset + max(1, remark.length))):
            if tones.get(at) is not Tone.BAD:
                tones[at] = remark.tone
    places = range(block.offset, block.offset + len(block.data))
    return [Mark(fields.get(at), tones.get(at)) for at in places]
