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
    colours = _colours(block)
    marks = _marks(block)
    shown = block.data[: MOST_LINES * PER_LINE]
    down = top
    for start in range(0, len(shown), PER_LINE):
        canvas.text(MARGIN, down, f"{block.offset + start:03x}", "quiet")
        for column, byte in enumerate(shown[start : start + PER_LINE]):
            at = start + column
            x = left + column * BYTE
            tone = marks.get(at)
            kind = f"chip{colours[at] % CHIPS}" if at in colours else "plain"
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


def _colours(block: Block) -> dict[int, int]:
    """The field of each byte, by its position in the block."""
    return {
        at - block.offset: number
        for number, each in enumerate(block.fields)
        for at in range(each.offset, each.offset + each.length)
    }


def _marks(block: Block) -> dict[int, Tone]:
    """The tone of the worst remark on each byte."""
    found: dict[int, Tone] = {}
    for each in reversed(block.remarks):
        last = min(each.offset + max(1, each.length), block.offset + len(block.data))
        for at in range(max(each.offset, block.offset), last):
            tone = found.get(at - block.offset)
            found[at - block.offset] = Tone.BAD if Tone.BAD in (tone, each.tone) else each.tone
    return found
