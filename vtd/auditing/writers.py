"""Who stored a word: the call of the project that did, and the calls of others that led there."""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from pathlib import Path, PurePath
from typing import NamedTuple

from pagetables import memory, stores

DEPTH = 4
"""How many calls are named."""


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
_ROOT = Path(__file__).parents[2]
_NOBODY = (
    *(f"{_ROOT / package}/" for package in ("vtd", "devices", "pagetables")),
    *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib", "scripts")),
    "<",  # code without a file
)
"""Where the code lies that is not the one who is looked for: the project's and Python's."""


@cache
def _is_user(file: str) -> bool:
    return not file.startswith(_NOBODY)


def calls() -> Calls:
    """The calls that led here, without those of memory and the audit.

    Of the project's own only the innermost, if somebody else's led to it.
    """
    users: list[tuple[str, int, str]] = []
    own: list[tuple[str, int, str]] = []
    frame = sys._getframe(1)
    while frame is not None and len(users) < DEPTH:
        code = frame.f_code
        if _is_user(code.co_filename):
            users.append((code.co_filename, frame.f_lineno, code.co_name))
        elif users:
            break  # who called them is their runner
        elif len(own) < DEPTH and code.co_filename not in _OWN:
            own.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    return Calls((*own[:1], *users) if users else tuple(own))
