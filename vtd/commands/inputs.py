"""Several inputs of one command: what can't be used is told, and the others are answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from vtd.commands.exit_codes import FOUND, UNUSABLE
from vtd.commands.reading import unusable_input


class Inputs:
    """The inputs of a command; each is read within :meth:`reading`, and :meth:`end` comes last."""

    def __init__(self) -> None:
        self.unusable = False
        """Whether some input can't be read or understood."""

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Say on stderr why ``what``, - for stdin, can't be used, and go on without it."""
        try:
            with unusable_input(what):
                yield
        except typer.Exit as ended:
            if ended.exit_code != UNUSABLE:
                raise
            self.unusable = True

    def end(self, *, found: bool) -> None:
        """End the command with exit code 2 after an unusable input, with 1 if something was found.

        Nothing happens otherwise.
        """
        if self.unusable or found:
            raise typer.Exit(UNUSABLE if self.unusable else FOUND)
