"""``vtd msi``: an interrupt message decoded and, with a capture, followed through the table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from devices.source_id import SourceId
from pagetables.memory import BusError
from vtd.commands.dumps import Inspected
from vtd.commands.images import (
    AsSpecified,
    Base,
    Cap,
    Ecap,
    Format,
    HostWidth,
    InterruptTable,
    Output,
    Profile,
    open_image,
    parse_number,
)
from vtd.commands.reading import unusable_input
from vtd.commands.show_interrupt import (
    entry_json,
    entry_text,
    fault_json,
    fault_text,
    outcome_json,
    outcome_text,
)
from vtd.inspection.interrupt_table import requesters
from vtd.layouts.interrupt_entries import (
    INTERRUPT_ADDRESS,
    PostedIrte,
    RemappableAddress,
    RemappableData,
    RemappedIrte,
    SourceValidationType,
)
from vtd.unit.interrupts.interrupt_remapping import IRTE_SIZE, InterruptFault
from vtd.unit.interrupts.outcome import Interrupt, Posted, compatibility_interrupt


def msi(
    address: Annotated[
        int,
        typer.Argument(parser=parse_number, metavar="ADDRESS", help="0xfee00000 to 0xfeefffff."),
    ],
    data: Annotated[
        int, typer.Argument(parser=parse_number, metavar="DATA", help="What is written there.")
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
    base: Base = None,
    profile: Profile = None,
    cap: Cap = None,
    ecap: Ecap = None,
    host_width: HostWidth = None,
    as_specified: AsSpecified = False,
    format: Output = Format.TEXT,
) -> None:
    """Decode a message; with a capture or image, follow it through the table step by step.

    Exit code 0: decoded, whether delivered or blocked. 2: wrong use or unusable input.
    """
    with unusable_input("--device"):
        sender = None if device is None else SourceId.parse(device)
    if address >> 20 != INTERRUPT_ADDRESS:
        raise typer.BadParameter(f"{address:#x} is not 0xfeexxxxx", param_hint="ADDRESS")
    if data >> 32:
        raise typer.BadParameter(f"{data:#x} has more than 32 bits", param_hint="DATA")
    followed = None
    if image is not None:
        inspected = open_image(
            image,
            interrupt_table=interrupt_table,
            base=base,
            profile=profile,
            cap=cap,
            ecap=ecap,
            host_width=host_width,
            as_specified=as_specified,
        )
        followed = Followed(inspected, sender, address, data)
    if format is Format.JSON:
        answer = _message(address, data)
        if followed is not None:
            answer |= followed.to_json()
        typer.echo(json.dumps(answer, indent=1))
    else:
        typer.echo("\n".join(_lines(address, data)))
        if followed is not None:
            typer.echo("\n".join(followed.lines()))


class Followed:
    """A message on its way through the table of a unit."""

    def __init__(
        self, inspected: Inspected, sender: SourceId | None, address: int, data: int
    ) -> None:
        status, interrupts = inspected.status, inspected.unit.interrupts
        self._remapping = status.ires
        self.where: int | None = None
        self.entry: RemappedIrte | PostedIrte | None = None
        if status.ires and RemappableAddress(address).format:
            self.where = interrupts.table.irta + index_of(address, data) * IRTE_SIZE
            self.entry = _read(inspected, self.where)
        self.sender = _accepted_by(self.entry) if sender is None else sender
        self.outcome: Interrupt | Posted | None = None
        self.fault: InterruptFault | None = None
        try:
            self.outcome = interrupts.remap(status, self.sender, address, data)
        except InterruptFault as fault:
            self.fault = fault

    def lines(self) -> Iterator[str]:
        """Each step on a line."""
        yield f"interrupt remapping is {'on' if self._remapping else 'off'}"
        if self.where is not None:
            found = "can't be read" if self.entry is None else entry_text(self.entry)
            yield f"entry at {self.where:#x}: {found}"
        if self.entry is not None:
            yield f"  used by {requesters(self.entry)}; sent by {self.sender}"
        if self.outcome is not None:
            yield f"=> {outcome_text(self.outcome)}"
        elif self.fault is not None:
            yield f"=> {fault_text(self.fault)}"

    def to_json(self) -> dict[str, Any]:
        """The steps as JSON."""
        return {
            "sender": int(self.sender),
            "entry_address": None if self.where is None else hex(self.where),
            "entry": None if self.entry is None else entry_json(self.entry),
            "outcome": outcome_json(self.outcome),
            "fault": fault_json(self.fault),
        }


def index_of(address: int, data: int) -> int:
    """The interrupt index of a remappable message (5.1.3)."""
    request = RemappableAddress(address)
    subhandle = RemappableData(data).subhandle if request.shv else 0
    return request.handle + subhandle


def _accepted_by(entry: RemappedIrte | PostedIrte | None) -> SourceId:
    """A requester that may use the entry; 00:00.0 if it does not say."""
    if entry is None or entry.svt is SourceValidationType.NONE:
        return SourceId(0)
    bus_range = entry.svt is SourceValidationType.BUS_RANGE
    return SourceId(entry.sid & 0xFF00 if bus_range else entry.sid)


def _read(inspected: Inspected, address: int) -> RemappedIrte | PostedIrte | None:
    try:
        entry = RemappedIrte(inspected.unit.remapping.memory.read_record(address, IRTE_SIZE))
    except BusError:
        return None
    return PostedIrte(entry) if entry.im else entry


def _message(address: int, data: int) -> dict[str, Any]:
    request = RemappableAddress(address)
    if not request.format:
        interrupt = compatibility_interrupt(address, data)
        return {"format": "compatibility", **(outcome_json(interrupt) or {})}
    return {
        "format": "remappable",
        "handle": request.handle,
        "subhandle": RemappableData(data).subhandle if request.shv else None,
        "index": index_of(address, data),
    }


def _lines(address: int, data: int) -> Iterator[str]:
    request = RemappableAddress(address)
    if not request.format:
        yield f"compatibility format: {outcome_text(compatibility_interrupt(address, data))}"
        return
    subhandle = f" + subhandle {RemappableData(data).subhandle:#x}" if request.shv else ""
    index = index_of(address, data)
    yield f"remappable format: handle {request.handle:#x}{subhandle}, index {index}"
