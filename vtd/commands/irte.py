"""``vtd irte``: the interrupt-remapping table decoded, and who may use each entry."""

from __future__ import annotations

import json

import typer

from vtd.commands.images import (
    AsSpecified,
    Base,
    Cap,
    ChosenDepartures,
    Ecap,
    Format,
    HostWidth,
    Image,
    InterruptTable,
    Output,
    Profile,
    open_image,
)
from vtd.commands.show_interrupt import (
    entry_json,
    entry_text,
    fault_json,
    fault_text,
    sender_names,
)
from vtd.inspection.interrupt_table import list_entries, requesters


def irte(
    image: Image,
    interrupt_table: InterruptTable = None,
    base: Base = None,
    profile: Profile = None,
    cap: Cap = None,
    ecap: Ecap = None,
    host_width: HostWidth = None,
    as_specified: AsSpecified = False,
    departures: ChosenDepartures = None,
    format: Output = Format.TEXT,
) -> None:
    """List the present entries of the interrupt-remapping table, with who may use each.

    Exit code 0: listed. 2: wrong use or unusable input.
    """
    inspected = open_image(
        image,
        interrupt_table=interrupt_table,
        base=base,
        profile=profile,
        cap=cap,
        ecap=ecap,
        host_width=host_width,
        as_specified=as_specified,
        departures=departures,
    )
    interrupts = inspected.unit.interrupts
    table = interrupts.table
    entries = []
    if inspected.status.irtps:
        entries = list(list_entries(interrupts, inspected.unit.remapping.memory))
    if format is Format.JSON:
        answer = {
            "table": {
                "base": hex(table.irta),
                "entries": 2 << table.s,
                "eime": table.eime,
                "enabled": inspected.status.ires,
            },
            "entries": [
                {"index": each.number, **entry_json(each.entry), "fault": fault_json(each.fault)}
                for each in entries
            ],
        }
        typer.echo(json.dumps(answer, indent=1))
        return
    names = sender_names(inspected.capture)
    state = "on" if inspected.status.ires else "off"
    typer.echo(
        f"table of {2 << table.s} entries at {table.irta:#x}, interrupt remapping is {state}, "
        f"{'x2APIC' if table.eime else 'xAPIC'} destinations: {len(entries)} present"
    )
    for number, entry, fault in entries:
        name = f" ({names[entry.sid]})" if entry.sid in names else ""
        typer.echo(f"{number:6} {entry_text(entry)}; used by {requesters(entry)}{name}")
        if fault is not None:
            typer.echo(f"       {fault_text(fault)}")
