"""Who stored a word: the calls that led to the store, as far as they are not the project's own."""

from __future__ import annotations

import sys
from pathlib import Path, PurePath
from typing import NamedTuple

from pagetables import memory, stores

DEPTH = 4
"""How many callers are named."""


class Calls(NamedTuple):
    """The innermost calls, as file, line and function."""

    places: tuple[tuple[str, int, str], ...]

    def __str__(self) -> str:
        return " < ".join(
            f"{PurePath(file).name}:{line} in {name}" for file, line, name in self.places
        )


_OWN = {memory.__file__, stores.__file__} | {
    str(Path(__file__).with_name(name)) for name in ("writers.py", "audit.py", "stored_words.py")
}


def calls() -> Calls:
    """The calls that led here, without those of memory and the audit."""
    places: list[tuple[str, int, str]] = []
    frame = sys._getframe(1)
    while frame is not None and len(places) < DEPTH:
        code = frame.f_code
        if code.co_filename not in _OWN:
            places.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    return Calls(tuple(places))
