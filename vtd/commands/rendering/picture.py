"""An answer drawn instead of printed: ``--svg FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.dmar_output import write_output
from vtd.commands.extras import refuse_without
from vtd.commands.rendering.answer import CommandAnswer, Format, show

SvgFile = Annotated[
    Path | None,
    typer.Option(
        "--svg",
        metavar="FILE",
        help="Draw it into this file, - is stdout; a name in .png makes it PNG (extra plots).",
    ),
]


def show_or_draw(
    answer: CommandAnswer, form: Format, file: Path | None, draw: Callable[[], str]
) -> None:
    """Print the answer, or write its picture where a file for that is given."""
    if file is None:
        show(answer, form)
    elif file.suffix == ".png":
        write_output(file, _png(draw))
    else:
        write_output(file, f"{draw()}\n".encode())


def _png(draw: Callable[[], str]) -> bytes:
    """The picture as PNG, in twice its size."""
    try:
        import vl_convert  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        refuse_without("plots", error)
    drawn: bytes = vl_convert.svg_to_png(draw(), scale=2)
    return drawn
