"""Names of files to write: stdout, written -, has what is said about them and is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

import typer

FORMS_OF_TEXT = frozenset({".csv", ".json", ".jsonl", ".tsv", ".txt"})
"""Suffixes under which nobody looks for Parquet."""


def file_to_write(name: str | Path | None) -> str | Path | None:
    """The name of a file, if one is given; wrong use for -."""
    if str(name) == "-":
        raise typer.BadParameter("'-': stdout is not for this; name a file")
    return name


def parquet_or(form: str) -> Callable[[str | None], str | None]:
    """Such a name of a file that is Parquet unless it has this suffix; wrong use for others."""

    def checked(name: str | None) -> str | None:
        if PurePath(name or "").suffix.lower() in FORMS_OF_TEXT - {form}:
            raise typer.BadParameter(f"{name!r}: neither {form} nor .parquet")
        file_to_write(name)
        return name

    return checked
