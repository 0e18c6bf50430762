"""How commands are given cache designs: shapes, pages, tables, and what invalidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from vtd.sweeps.designs import Space

IotlbShapes = Annotated[
    str,
    typer.Option(
        "--iotlb", metavar="SHAPES", help="sets=16..256 ways=1..16 policy=lru,fifo,random index=0"
    ),
]
StructureShapes = Annotated[
    str,
    typer.Option(
        "--paging-structure",
        metavar="SHAPES",
        help="The same, of the paging-structure cache; off.",
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile", help="Shapes that somebody published, by name, instead: see docs/traces.md."
    ),
]
PageSizes = Annotated[str, typer.Option("--page-size", help="4K, 2M, 1G; several with commas.")]
TableKinds = Annotated[
    str, typer.Option("--tables", help="3-level, 4-level, 5-level, nested; several with commas.")
]
Invalidations = Annotated[
    str,
    typer.Option(
        "--invalidation",
        help="trace: its own rows; by its unmaps: strict, strict-leaves (IH), deferred; none",
    ),
]
SHAPES = ("--iotlb", "--paging-structure")
"""Options whose value is several words."""


class DesignCommand(TyperCommand):
    """A command whose shapes may be written without quotes: ``--iotlb sets=16 ways=1..16``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the words of a shape, which have an equals sign, before they are parsed."""
        joined: list[str] = []
        within = False
        for word in args:
            if within and "=" in word and not word.startswith("-"):
                joined[-1] += f" {word}"
                continue
            within = bool(joined) and joined[-1] in SHAPES
            joined.append(word)
        return super().parse_args(ctx, joined)


def space_of(
    iotlb: str,
    structures: str,
    profile: str | None,
    page_size: str,
    tables: str,
    invalidation: str,
) -> Space:
    """The designs of these options; ValueError."""
    from vtd.sweeps.designs import (  # noqa: PLC0415 - needs an extra
        INVALIDATING,
        PAGE_SIZES,
        TABLES,
        Space,
        chosen,
        parse_shapes,
    )
    from vtd.sweeps.profiles import PUBLISHED  # noqa: PLC0415

    if profile is not None:
        names = chosen("--profile", profile, PUBLISHED)[:1]
        iotlbs = tuple(PUBLISHED[name].iotlb for name in names)
        tables_cached = tuple(PUBLISHED[name].structures for name in names)
    else:
        iotlbs, tables_cached = parse_shapes(iotlb), parse_shapes(structures)
        if not all(each.ways for each in iotlbs):
            raise ValueError("--iotlb: off is no design")
    modes = chosen("--invalidation", invalidation, INVALIDATING)
    return Space(
        iotlbs,
        tables_cached,
        chosen("--page-size", page_size, PAGE_SIZES),
        chosen("--tables", tables, TABLES),
        tuple(INVALIDATING[each] for each in modes),
    )
