"""A number of things, as it is written in a sentence."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """``1 page``, ``2 pages``; ``many`` is the form for several where that is not ``one`` + s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
