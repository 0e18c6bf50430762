"""``vtd walk``: one translation, entry by entry."""

from __future__ import annotations

from typing import Annotated

import typer

from devices.dma import READ, WRITE, AddressType, NoWrite, Request
from devices.source_id import SourceId
from vtd.commands.exit_codes import UNUSABLE
from vtd.commands.images import (
    Image,
    ImageOptions,
    RootTable,
    open_image,
    parse_address,
    parse_number,
)
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output
from vtd.commands.rendering.picture import SvgFile, show_or_draw
from vtd.commands.show_walk import walk_lines
from vtd.inspection.request_explanation import (
    explain_request,
    explain_translation_request,
    is_interrupt,
)
from vtd.inspection.request_picture import request_svg
from vtd.inspection.request_rows import request_row


@with_option_groups
def walk(
    image: Image,
    iova: Annotated[
        int,
        typer.Argument(
            parser=parse_address,
            metavar="IOVA",
            help="The address that the device uses, hexadecimal.",
        ),
    ],
    device: Annotated[str, typer.Option(metavar="BDF", help="The requester, such as 00:02.0.")],
    pasid: Annotated[
        int | None, typer.Option(parser=parse_number, metavar="PASID", help="PASID of the request.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="A write instead of a read.")] = False,
    privileged: Annotated[
        bool, typer.Option("--privileged", help="Privileged mode requested; needs --pasid.")
    ] = False,
    ats: Annotated[
        bool,
        typer.Option("--ats", help="A translation request; without --write, not for writing."),
    ] = False,
    root_table: RootTable = None,
    svg: SvgFile = None,
    *,
    options: ImageOptions,
    format: Output = Format.TEXT,
) -> None:
    """Explain one translation: each structure and entry read, and the rule that decides.

    Exit code 0: explained, whether allowed or refused. 2: wrong use or unusable input.
    """
    with unusable_input("--device"):
        source_id = SourceId.parse(device)
    if iova >> 64:
        raise typer.BadParameter(f"{iova:#x} has more than 64 bits", param_hint="IOVA")
    if pasid is not None and pasid >> 20:
        raise typer.BadParameter(f"{pasid:#x} has more than 20 bits", param_hint="--pasid")
    if privileged and pasid is None:
        raise typer.BadParameter("only a request with PASID is", param_hint="--privileged")
    inspected = open_image(image, options, root_table=root_table)
    request = Request(source_id, iova, WRITE if write else READ, 1, pasid, privileged)
    if is_interrupt(request) and not ats:
        raise typer.BadParameter(
            f"{iova:#x} is in the interrupt range: see vtd msi", param_hint="IOVA"
        )
    if not inspected.status.tes:
        typer.echo(f"vtd: {image}: DMA remapping is off, requests pass unchanged", err=True)
        raise typer.Exit(UNUSABLE)
    remapping = inspected.unit.remapping
    if ats:
        request = request._replace(
            access=READ,
            length=8,
            address_type=AddressType.TRANSLATION_REQUEST,
            payload=None if write else NoWrite(),
        )
        explained = explain_translation_request(remapping, request)
    else:
        explained = explain_request(remapping, request)
    row = request_row(explained)
    answer = CommandAnswer(row, [row], walk_lines(explained))
    show_or_draw(answer, format, svg, lambda: request_svg(explained))
