"""Sections as one HTML file that needs nothing beside it and asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vtd.pictures.canvas import STYLE
from vtd.pictures.markup import Markup, visible
from vtd.pictures.timeline import timeline_svg
from vtd.report.section import Section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What a browser lets the page do: show itself."""


def render(title: str, sections: Sequence[Section]) -> str:
    """The page; ``title`` names what it is about."""
    lanes = [each.lane for each in sections if each.lane is not None and each.lane.marks]
    numbered = [(f"section-{number}", each) for number, each in enumerate(sections, 1)]
    page: str = (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            policy=POLICY,
            picture_style=STYLE,
            sections=numbered,
            inputs=[
                (about, list(found))
                for about, found in groupby(numbered, lambda each: each[1].about)
            ],
            lanes=lanes,
            timeline=timeline_svg("Time line", lanes, inline=True) if lanes else None,
        )
    )
    return page


@cache
def _templates() -> Environment:
    """The templates, which are compiled once."""
    environment = Environment(
        loader=PackageLoader("vtd.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters["size"] = size
    return environment


def size(number: int) -> str:
    """Bytes in the largest unit that divides them."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number and not number & (1 << shift) - 1:
            return f"{number >> shift} {unit}"
    return f"{number} bytes"


def _shown(value: Any) -> Any:
    """What comes from files, without characters that can't be seen."""
    if isinstance(value, str) and not isinstance(value, Markup) and not hasattr(value, "__html__"):
        return visible(value)
    return value
