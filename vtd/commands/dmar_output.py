"""Forms and severities that the commands of ``vtd dmar`` share, and how answers are printed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.reading import unusable_input
from vtd.severity import Severity

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


class Level(StrEnum):
    """Severities by name."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def severity(self) -> Severity:
        return Severity[self.name]


OutputFile = Annotated[Path, typer.Option("-o", "--output", help="File to write; - is stdout.")]


def write_output(output: Path, data: bytes) -> None:
    """Write a file, or stdout for ``-``."""
    if str(output) == "-":
        typer.echo(data, nl=False)
        return
    with unusable_input(str(output)):
        output.write_bytes(data)
