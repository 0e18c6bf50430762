"""Text as the terminal wants it: colours unless they are unwanted, lines no wider than it is.

NO_COLOR (https://no-color.org) and TERM=dumb switch colours off, and what moves the cursor. Output
that goes to a file or a pipe has neither colours nor folded lines.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator

import typer

NARROWEST = 20
"""Columns below which folding helps nobody."""
DEEPER = 4
"""Columns by which the rest of a folded line is further in than its beginning."""
STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Verbatim(str):
    """A line that is never folded: a command to copy."""

    __slots__ = ()


def styled(text: str, colour: str | None = None, *, bold: bool = False) -> str:
    """Text in a colour, or bold, where the terminal is to show colours."""
    return typer.style(text, fg=colour, bold=bold or None) if colours() else text


def colours() -> bool:
    """Whether colours are wanted, if stdout is a terminal."""
    return not os.environ.get("NO_COLOR") and not dumb()


def dumb() -> bool:
    """Whether the terminal does nothing but print."""
    return os.environ.get("TERM", "") in ("dumb", "unknown")


def columns() -> int | None:
    """The width of the terminal that stdout is, None if it is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def folded(lines: Iterable[str]) -> Iterator[str]:
    """Lines broken at blanks where they are wider than the terminal."""
    width = columns()
    for line in lines:
        if width is None or isinstance(line, Verbatim):
            yield line
        else:
            yield from fold_line(line, width)


def fold_line(line: str, width: int) -> Iterator[str]:
    """The line in pieces of ``width`` columns; a word that is wider stays whole."""
    start = len(line) - len(line.lstrip())
    piece, used = line[:start], start
    fresh = True
    for word in re.findall(r"\S+ *", line[start:]):
        taken = len(STYLES.sub("", word.rstrip()))
        if not fresh and used + taken > width:
            yield piece.rstrip()
            deeper = min(start + DEEPER, width // 2)
            used = width - taken if taken <= width < deeper + taken else deeper
            piece = " " * used
        piece += word
        used += len(STYLES.sub("", word))
        fresh = False
    yield piece.rstrip()
