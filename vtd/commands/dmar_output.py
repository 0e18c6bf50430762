"""Forms and severities that the commands of ``vtd dmar`` share, and how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vtd.commands.reading import unusable_input
from vtd.dmar.rules import Severity

FINDINGS = 1
"""Exit code when something was found."""
COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


class PlainFormat(StrEnum):
    """Formats of answers."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """Severities by name."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def severity(self) -> Severity:
        return Severity[self.name]


AnswerFormat = Annotated[PlainFormat, typer.Option("--format", help="Form of the output.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write; - is stdout.")]


def print_answer(format: PlainFormat, values: Any, lines: Iterable[str]) -> None:
    """Print an answer as JSON or as lines of text."""
    text = json.dumps(values, indent=1) if format is PlainFormat.JSON else "\n".join(lines)
    if text:
        typer.echo(text)


def write_output(output: Path, data: bytes) -> None:
    """Write a file, or stdout for ``-``."""
    if str(output) == "-":
        typer.echo(data, nl=False)
        return
    with unusable_input(str(output)):
        output.write_bytes(data)
