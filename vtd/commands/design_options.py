"""How commands are given cache designs: shapes, pages, tables, and what invalidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from vtd.sweeps.designs import Space

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


@dataclass(frozen=True)
class Designs:
    """Which designs there are: every combination of these."""

    iotlb: Annotated[
        str,
        typer.Option(
            metavar="SHAPES", help="sets=16..256 ways=1..16 policy=lru,fifo,random index=0"
        ),
    ] = "sets=1 ways=64"
    paging_structure: Annotated[
        str,
        typer.Option(metavar="SHAPES", help="The same, of the paging-structure cache; off."),
    ] = "off"
    profile: Annotated[
        str | None,
        typer.Option(help="Shapes that somebody published, by name, instead: see docs/traces.md."),
    ] = None
    page_size: Annotated[str, typer.Option(help="4K, 2M, 1G; several with commas.")] = "4K"
    tables: Annotated[
        str, typer.Option(help="3-level, 4-level, 5-level, nested; several with commas.")
    ] = "4-level"
    invalidation: Annotated[
        str,
        typer.Option(
            help="trace: its own rows; by its unmaps: strict, strict-leaves (IH), deferred; none"
        ),
    ] = "trace"

    def space(self) -> Space:
        """The designs; ValueError says what is wrong."""
        from vtd.sweeps.designs import (  # noqa: PLC0415 - needs an extra
            INVALIDATING,
            PAGE_SIZES,
            TABLES,
            Space,
            chosen,
            parse_shapes,
        )
        from vtd.sweeps.profiles import PUBLISHED  # noqa: PLC0415

        if self.profile is not None:
            names = chosen("--profile", self.profile, PUBLISHED)[:1]
            iotlbs = tuple(PUBLISHED[name].iotlb for name in names)
            structures = tuple(PUBLISHED[name].structures for name in names)
        else:
            iotlbs, structures = parse_shapes(self.iotlb), parse_shapes(self.paging_structure)
            if not all(each.ways for each in iotlbs):
                raise ValueError("--iotlb: off is no design")
        modes = chosen("--invalidation", self.invalidation, INVALIDATING)
        return Space(
            iotlbs,
            structures,
            chosen("--page-size", self.page_size, PAGE_SIZES),
            chosen("--tables", self.tables, TABLES),
            tuple(INVALIDATING[each] for each in modes),
        )
