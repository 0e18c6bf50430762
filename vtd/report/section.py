"""A part of a report: what it is about, the rows that it shows, and the commands that give them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vtd.pictures.canvas import Tone
from vtd.pictures.timeline import Lane
from vtd.severity import Severity

TONES = {Severity.ERROR: Tone.BAD, Severity.WARNING: Tone.WARN, Severity.INFO: Tone.NOTE}


@dataclass(frozen=True)
class Section:
    """One section; ``kind`` names the template that knows ``data``."""

    kind: str
    title: str
    about: str
    """The input that it is made of."""
    headline: str
    """The most important of it in a few words."""
    tone: Tone
    data: Mapping[str, Any]
    commands: tuple[str, ...] = ()
    """Command lines that give the same as JSON."""
    lane: Lane | None = field(default=None)
    """What of it is on the time line."""


def command(*words: str) -> str:
    """A command line that gives JSON."""
    return shlex.join(("vtd", *words, "--format", "json"))


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its word."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def worst(tones: list[Tone]) -> Tone:
    """The tone that matters most."""
    for tone in (Tone.BAD, Tone.WARN, Tone.NOTE):
        if tone in tones:
            return tone
    return Tone.GOOD
