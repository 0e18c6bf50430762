"""``vtd msi``: an interrupt message decoded and, with a capture, followed through the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from devices.interrupt_messages import INTERRUPT_RANGE
from devices.source_id import SourceId
from vtd.commands.images import ImageOptions, InterruptTable, open_image, parse_address
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.inspection.interrupt_message import (
    DecodedMessage,
    FollowedMessage,
    decode_message,
    follow_message,
)
from vtd.inspection.interrupt_rows import message_row
from vtd.inspection.interrupt_table import requesters
from vtd.inspection.interrupt_text import entry_text, fault_text, outcome_text


@with_option_groups
def msi(
    address: Annotated[
        int,
        typer.Argument(
            parser=parse_address, metavar="ADDRESS", help="fee00000 to feefffff, hexadecimal."
        ),
    ],
    data: Annotated[
        int,
        typer.Argument(
            parser=parse_address, metavar="DATA", help="What is written there, hexadecimal."
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CAPTURE_OR_IMAGE]",
            help="Where to follow it: a capture folder, an ELF core, LiME or raw memory.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="BDF", help="Who sends it; otherwise whoever the entry accepts."),
    ] = None,
    interrupt_table: InterruptTable = None,
    *,
    options: ImageOptions,
    format: Output = Format.TEXT,
) -> None:
    """Decode a message; with a capture or image, follow it through the table step by step.

    Exit code 0: decoded, whether delivered or blocked. 2: wrong use or unusable input.
    """
    with unusable_input("--device"):
        sender = None if device is None else SourceId.parse(device)
    if address not in INTERRUPT_RANGE:
        raise typer.BadParameter(f"{address:#x} is not 0xfeexxxxx", param_hint="ADDRESS")
    if data >> 32:
        raise typer.BadParameter(f"{data:#x} has more than 32 bits", param_hint="DATA")
    message, followed = decode_message(address, data), None
    if image is not None:
        inspected = open_image(image, options, interrupt_table=interrupt_table)
        followed = follow_message(inspected.unit, sender, address, data)
    row = message_row(message, followed)
    show(CommandAnswer(row, [row], _lines(message, followed)), format)


def _lines(message: DecodedMessage, followed: FollowedMessage | None) -> Iterator[str]:
    if message.compatibility is not None:
        yield f"compatibility format: {outcome_text(message.compatibility)}"
    else:
        added = "" if message.subhandle is None else f" + subhandle {message.subhandle:#x}"
        yield f"remappable format: handle {message.handle:#x}{added}, index {message.index}"
    if followed is not None:
        yield from _steps(followed)


def _steps(followed: FollowedMessage) -> Iterator[str]:
    yield f"interrupt remapping is {'on' if followed.remapping else 'off'}"
    if followed.entry_address is not None:
        found = "can't be read" if followed.entry is None else entry_text(followed.entry)
        yield f"entry at {followed.entry_address:#x}: {found}"
    if followed.entry is not None:
        yield f"  used by {requesters(followed.entry)}; sent by {followed.sender}"
    if followed.outcome is not None:
        yield f"=> {outcome_text(followed.outcome)}"
    elif followed.fault is not None:
        yield f"=> {fault_text(followed.fault)}"
