"""Names of files to write: stdout, written -, has what is said about them and is none.

That a file can't be written is told before the work whose results it is to have.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path, PurePath

import typer

from vtd.commands.reading import unusable_input

FORMS_OF_TEXT = frozenset({".csv", ".json", ".jsonl", ".tsv", ".txt"})
"""Suffixes under which nobody looks for Parquet."""


def file_to_write(name: str | Path | None) -> str | Path | None:
    """The name of a file, if one is given; wrong use for -, or what can't be written."""
    if str(name) == "-":
        raise typer.BadParameter("'-': stdout is not for this; name a file")
    if name is not None and "://" not in str(name):
        with unusable_input(str(name)):
            _check_place(Path(name))
    return name


def _check_place(file: Path) -> None:
    """OSError if a file can be neither made nor written."""
    wrong = 0
    if file.is_dir():
        wrong = errno.EISDIR
    elif not file.parent.is_dir():
        wrong = errno.ENOTDIR if file.parent.exists() else errno.ENOENT
    elif not os.access(file if file.exists() else file.parent, os.W_OK):
        wrong = errno.EACCES
    if wrong:
        raise OSError(wrong, os.strerror(wrong))


def parquet_or(form: str) -> Callable[[str | None], str | None]:
    """Such a name of a file that is Parquet unless it has this suffix; wrong use for others."""

    def checked(name: str | None) -> str | None:
        if PurePath(name or "").suffix.lower() in FORMS_OF_TEXT - {form}:
            raise typer.BadParameter(f"{name!r}: neither {form} nor .parquet")
        file_to_write(name)
        return name

    return checked
