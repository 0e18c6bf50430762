"""Names that options are given: each has to be one of those known."""

from __future__ import annotations

from collections.abc import Collection

import typer


def check_name(name: str, known: Collection[str], option: str) -> None:
    """Wrong use of an option, if a name is none of those known."""
    if name not in known:
        raise typer.BadParameter(f"{name!r}: not one of {', '.join(known)}", param_hint=option)
