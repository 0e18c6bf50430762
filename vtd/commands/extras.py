"""What a command says where it needs an extra that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from vtd.commands.exit_codes import UNUSABLE

MISSING_EXTRA = (
    "vtd{0}: needs the {1} extra: in the clone, uv tool install '.[{1}]' or pip install '.[{1}]'"
)


def refuse_without(extra: str, error: ModuleNotFoundError, command: str = "") -> NoReturn:
    """End the command with exit code 2 and the advice how to install an extra."""
    name = f" {command}" if command else ""
    typer.echo(MISSING_EXTRA.format(name, extra), err=True)
    raise typer.Exit(UNUSABLE) from error


OWN = ("vtd", "devices", "pagetables")


@contextmanager
def needing(extra: str, command: str) -> Iterator[None]:
    """End the command with the advice if a package that the extra brings is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OWN:
            raise
        refuse_without(extra, error, command)
