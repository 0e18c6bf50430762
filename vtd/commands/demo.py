"""``vtd demo``: one DMA translated, one refused, both explained; or other demos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from devices.dma import READ, WRITE
from devices.source_id import SourceId
from vtd.commands import demo_machine as example
from vtd.commands.counted import counted
from vtd.commands.demo_machine import Demo, Transfer
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.terminal import styled
from vtd.commands.show_walk import walk_lines
from vtd.inspection.request_rows import request_row
from vtd.inspection.request_text import request_text, verdict
from vtd.layouts.registers import FaultRecording
from vtd.rows import Hex


class DemoName(StrEnum):
    """Other demos."""

    GUEST = "guest"
    CONNECTIVITY = "connectivity"


def demo(
    name: Annotated[
        DemoName | None,
        typer.Argument(
            metavar="[guest|connectivity]",
            help="guest: a guest and its device, one page, invalidations left out, posted "
            "interrupts, and two virtual processors of Itanium. connectivity: SR-IOV, VMDq and "
            "I/OAT, and what each keeps apart.",
        ),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Build tables for an edu device, let it do DMA, and explain what happens."""
    if name is DemoName.GUEST:
        from vtd.commands import demo_guest  # noqa: PLC0415 - not needed by the other one

        show(demo_guest.answer(), format)
        return
    if name is DemoName.CONNECTIVITY:
        from vtd.commands import demo_connectivity  # noqa: PLC0415 - the same

        show(demo_connectivity.answer(), format)
        return
    shown = example.run()
    rows = [_row(each) for each in shown.transfers]
    document = {
        "device": str(shown.device),
        "unit": Hex(shown.owner.unit.register_base),
        "transfers": rows,
    }
    show(CommandAnswer(document, rows, _lines(shown)), format)


def _row(transfer: Transfer) -> Mapping[str, object]:
    return {
        "title": transfer.title,
        "walk": request_row(transfer.explained),
        "cached": transfer.cached is not None,
        "arrived": transfer.arrived.hex(),
        "fault_record": Hex.known(transfer.record),
        "iotlb": {
            "hits": transfer.hits,
            "misses": transfer.misses,
            "entries": [
                (Hex(entry.address), Hex(1 << entry.shift), Hex(entry.physical))
                for entry in transfer.entries
            ],
        },
    }


def _lines(shown: Demo) -> Iterator[str]:
    yield (
        f"The DMAR table gives {shown.device} to the unit at "
        f"{shown.owner.unit.register_base:#x} ({shown.owner.reason.value})."
    )
    start, end = example.IOVA, example.IOVA + example.LENGTH
    yield (
        f"Software maps {start:#x}-{end - 1:#x} to {example.PHYSICAL:#x} for it, in domain "
        f"{example.DOMAIN}, and enables translation."
    )
    for number, transfer in enumerate(shown.transfers, 1):
        yield ""
        yield styled(f"{number}. {transfer.title}", bold=True)
        yield from _transfer_lines(transfer)


def _transfer_lines(transfer: Transfer) -> Iterator[str]:
    explained = transfer.explained
    if transfer.cached is None:
        yield from list(walk_lines(explained))[:-1]
    else:
        yield request_text(explained.request)
        yield "  the IOTLB has the answer: no table is read"
    colour = "green" if explained.outcome is not None else "red"
    yield styled(f"  => {verdict(explained)}", colour)
    if explained.outcome is not None:
        yield f"  the bytes that arrived: {transfer.arrived.decode('ascii', 'replace')!r}"
    if transfer.record is not None:
        yield f"  the fault record: {_record_text(transfer.record)}"
    hits, misses = counted(transfer.hits, "hit"), counted(transfer.misses, "miss", "misses")
    yield f"  IOTLB: {hits}, {misses}, {len(transfer.entries)} held"
    for entry in transfer.entries:
        yield (
            f"    {entry.address:#x} -> {entry.physical:#x} "
            f"{'r' if entry.rights & READ else '-'}{'w' if entry.rights & WRITE else '-'} "
            f"domain {entry.tags.domain_id}"
        )


def _record_text(record: FaultRecording) -> str:
    kind = record.request_type.name.lower()
    return f"{SourceId(record.sid)}, {kind} request, page {record.fi:#x}, reason {record.fr:02X}h"
