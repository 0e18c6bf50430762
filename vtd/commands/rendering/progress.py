"""How far a long command is, told on stderr where that is a terminal that can take text back."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

from vtd.commands.rendering.terminal import dumb

if TYPE_CHECKING:
    from rich.live import Live

T = TypeVar("T")


def shown_progress(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a bar that says how many are done."""
    if not _movable():
        yield from items
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import track  # noqa: PLC0415

    yield from track(items, what, console=Console(stderr=True), transient=True)


class StatusLine:
    """One line that changes and is gone at the end."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if _movable():
            from rich.console import Console  # noqa: PLC0415 - slow to import
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(console=Console(stderr=True), transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def visible(self) -> bool:
        """Whether anybody sees it."""
        return self._live is not None

    def show(self, text: str) -> None:
        """Put a text in the line."""
        if self._live is not None:
            from rich.text import Text  # noqa: PLC0415 - slow to import

            self._live.update(Text(text))


def _movable() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and not dumb()
