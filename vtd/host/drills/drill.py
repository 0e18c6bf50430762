"""What a drill is: a scene that goes wrong, the guard that catches it, and what has to be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Check(NamedTuple):
    """Something that has to hold after a drill, and whether it does."""

    text: str
    holds: bool


Play = Callable[[bool], Iterator[Check]]
"""Plays the scene, with its guard if the argument is true."""


class Drill(NamedTuple):
    """A drill by name. ``section`` is that of VT-d, or of the manual it names."""

    name: str
    title: str
    guard: str
    section: str
    play: Play

    def run(self, *, guarded: bool = True) -> DrillResult:
        """Play it."""
        return DrillResult(self, guarded, tuple(self.play(guarded)))


class DrillResult(NamedTuple):
    """How a drill went."""

    drill: Drill
    guarded: bool
    checks: tuple[Check, ...]

    @property
    def green(self) -> bool:
        """Whether everything that has to hold does."""
        return all(each.holds for each in self.checks)
