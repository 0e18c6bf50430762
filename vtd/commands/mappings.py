"""``vtd mappings``: what each device may reach through a capture's tables, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from devices.source_id import SourceId
from vtd.commands.images import Image, ImageOptions, RootTable, open_image
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.show_mappings import reach_lines
from vtd.inspection.reach import list_reach, reach_row
from vtd.inspection.request_text import fault_text
from vtd.unit.requests.faults import TranslationFault


@with_option_groups
def mappings(
    image: Image,
    device: Annotated[
        str | None, typer.Option(metavar="BDF", help="Only this requester, such as 00:02.0.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Table entries to look at for one source.")
    ] = 10_000_000,
    root_table: RootTable = None,
    *,
    options: ImageOptions,
    format: Output = Format.TEXT,
) -> None:
    """List, for each source-id (and PASID), address, length, physical address and permissions.

    What is present and can't be used is listed with the fault that its requests meet.
    Exit code 0: listed. 2: wrong use or unusable input.
    """
    with unusable_input("--device"):
        wanted = None if device is None else SourceId.parse(device)
    inspected = open_image(image, options, root_table=root_table)
    on = inspected.status.tes
    with unusable_input(str(image)):
        try:
            listed = list(list_reach(inspected.unit.remapping, wanted, limit=limit)) if on else []
        except TranslationFault as fault:
            raise ValueError(f"RTADDR_REG: {fault_text(fault)}") from fault
        if wanted is not None and not listed:
            raise ValueError(f"--device: {wanted} has no context entry")
    nothing = ["no context entry is present" if on else "DMA remapping is off"]
    rows = (reach_row(each) for each in listed)
    lines = (line for each in listed for line in reach_lines(each))
    show(CommandAnswer({"sources": rows}, rows, lines if listed else nothing, compact=True), format)
