"""Names that options are given: each has to be one of those known, such as what caches keep."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from vtd.unit.caching.policy import POLICIES

CACHES = "--caches", "--cache"
"""The option that names a policy, and what it was called elsewhere."""
CachesOption = Annotated[
    str, typer.Option(*CACHES, help=f"What the units keep: {', '.join(POLICIES)}.")
]


def check_name(name: str, known: Collection[str], option: str) -> None:
    """Wrong use of an option, if a name is none of those known."""
    if name not in known:
        raise typer.BadParameter(f"{name!r}: not one of {', '.join(known)}", param_hint=option)
