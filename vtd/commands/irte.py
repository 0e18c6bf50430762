"""``vtd irte``: the interrupt-remapping table decoded, and who may use each entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtd.commands.dumps import Inspected
from vtd.commands.images import Image, ImageOptions, InterruptTable, open_image
from vtd.commands.option_groups import with_option_groups
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.inspection.interrupt_rows import listed_row, table_row
from vtd.inspection.interrupt_table import TableEntry, list_entries, requesters
from vtd.inspection.interrupt_text import entry_text, fault_text, sender_names


@with_option_groups
def irte(
    image: Image,
    interrupt_table: InterruptTable = None,
    *,
    options: ImageOptions,
    format: Output = Format.TEXT,
) -> None:
    """List the present entries of the interrupt-remapping table, with who may use each.

    Exit code 0: listed. 2: wrong use or unusable input.
    """
    inspected = open_image(image, options, interrupt_table=interrupt_table)
    interrupts = inspected.unit.interrupts
    entries: list[TableEntry] = []
    if inspected.status.irtps:
        entries = list(list_entries(interrupts, inspected.unit.remapping.memory))
    rows = [listed_row(each) for each in entries]
    table = table_row(interrupts.table, enabled=inspected.status.ires)
    document = {"table": table, "entries": rows}
    show(CommandAnswer(document, rows, _lines(inspected, entries)), format)


def _lines(inspected: Inspected, entries: Sequence[TableEntry]) -> Iterator[str]:
    table = inspected.unit.interrupts.table
    names = sender_names(inspected.capture.dmar if inspected.capture else None)
    state = "on" if inspected.status.ires else "off"
    yield (
        f"table of {2 << table.s} entries at {table.irta:#x}, interrupt remapping is {state}, "
        f"{'x2APIC' if table.eime else 'xAPIC'} destinations: {len(entries)} present"
    )
    for number, entry, fault in entries:
        name = f" ({names[entry.sid]})" if entry.sid in names else ""
        yield f"{number:6} {entry_text(entry)}; used by {requesters(entry)}{name}"
        if fault is not None:
            yield f"       {fault_text(fault)}"
