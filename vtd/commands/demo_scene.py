"""What a demo shows: scenes of steps, each something that somebody does and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class DemoStep(NamedTuple):
    """Something that somebody does, and what comes of it."""

    who: str
    does: str
    outcome: str
    finding: str | None = None
    """What an audit says of it."""


@dataclass(frozen=True)
class Scene:
    """A few steps that show one thing."""

    title: str
    steps: tuple[DemoStep, ...]
    figures: Mapping[str, object] = field(default_factory=dict)
    """Numbers that it comes to."""
