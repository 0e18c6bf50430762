"""``vtd plot``: charts of what ``vtd sweep`` counted."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.extras import needing
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show


def plot(
    files: Annotated[
        list[str], typer.Argument(metavar="RESULTS...", help="Files that vtd sweep -o wrote.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", help="File to write: .svg, .png or .html.")
    ],
    chart: Annotated[
        str | None,
        typer.Option(
            help="curves (misses by ways), heat (by sets and ways), history (reads over time), "
            "tenants (by requesters); several with commas. Default: all that say something."
        ),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Draw results: an HTML file has everything in it and needs no network."""
    with needing("plots", "plot"):
        from vtd.plots.charts import CHARTS, plot, rendered  # noqa: PLC0415 - needs an extra
        from vtd.sweeps.designs import chosen  # noqa: PLC0415
        from vtd.sweeps.results import load  # noqa: PLC0415
        from vtd.traces.places import replacing  # noqa: PLC0415

        found = []
        for place in files:
            with unusable_input(place), needing("batch", "plot"):
                found += load(place)
        with unusable_input("vtd plot"):
            names = None if chart is None else chosen("--chart", chart, CHARTS)
            data = rendered(plot(found, names), PurePosixPath(output).suffix.lower())
        with unusable_input(output), replacing(output) as stream:
            stream.write(data)
    row = {"file": output, "bytes": len(data), "designs": len(found)}
    line = f"{output}: {counted(len(found), 'design')}, {counted(len(data), 'byte')}"
    show(CommandAnswer(row, [row], [line]), format)
