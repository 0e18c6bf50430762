"""``vtd explore``: a capture or a machine in a window, table by table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.exit_codes import UNUSABLE
from vtd.commands.extras import needing
from vtd.commands.images import ImageOptions, InterruptTable, RootTable, open_image
from vtd.commands.machine import load_machine
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.exploring.places import Place, of_functions, of_machine, of_table
from vtd.exploring.unit_places import UnitPlaces
from vtd.recordings.capture import Capture


@with_option_groups
def explore(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTURE_OR_MACHINE",
            help="A capture, live recording or image, as walk opens it; or a machine in TOML.",
        ),
    ],
    root_table: RootTable = None,
    interrupt_table: InterruptTable = None,
    *,
    options: ImageOptions,
) -> None:
    """Browse units, devices and tables entry by entry; search addresses, follow faults.

    Exit code 0, 2 for wrong use, unusable input, or where there is no terminal.
    """
    places, unit = places_of(image, options, root_table, interrupt_table)
    with needing("tui", "explore"):
        from vtd.exploring.window import Explorer  # noqa: PLC0415 - an extra
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        typer.echo("vtd: explore: needs a terminal; vtd walk and mappings print", err=True)
        raise typer.Exit(UNUSABLE)
    Explorer(str(image), places, unit).run()


def places_of(
    image: Path,
    options: ImageOptions,
    root_table: int | None = None,
    interrupt_table: int | None = None,
) -> tuple[list[Place], UnitPlaces | None]:
    """What is at the top of the window, and the unit to search in, None for a description."""
    if image.suffix == ".toml":
        return of_machine(load_machine(str(image))), None
    unit, capture = open_image(
        image, options, root_table=root_table, interrupt_table=interrupt_table
    )
    with unusable_input(str(image)):
        records = [] if capture is None else capture.fault_records()
    places = UnitPlaces(unit, records)
    return [*_of_firmware(capture), *places.all()], places


def _of_firmware(capture: Capture | None) -> list[Place]:
    if capture is None:
        return []
    return [of_table(capture.dmar), of_functions(capture.dmar, capture.pci)]
