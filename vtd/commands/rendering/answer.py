"""What a command found, and its printing in the form that ``--format`` names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from vtd.commands.rendering.terminal import folded
from vtd.plain import plain


class Format(StrEnum):
    """Forms of an answer."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


Output = Annotated[Format, typer.Option("--format", help="Form of the output.")]


@dataclass(frozen=True)
class CommandAnswer:
    """One answer; only the part that its form needs is ever asked for."""

    document: object
    """All of it as one row, or a list of rows: JSON."""
    rows: Iterable[object]
    """What it lists, one after the other: JSON lines."""
    lines: Iterable[str]
    """The same for people: text."""
    compact: bool = False
    """Whether the document is too large to be read by people: JSON on one line."""


def show(answer: CommandAnswer, form: Format) -> None:
    """Print an answer to stdout."""
    match form:
        case Format.JSON:
            typer.echo(json.dumps(plain(answer.document), indent=None if answer.compact else 1))
        case Format.JSONL:
            for row in answer.rows:
                typer.echo(json.dumps(plain(row)))
        case Format.TEXT:
            for line in folded(answer.lines):
                typer.echo(line)
