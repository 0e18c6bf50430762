"""The interrupt-remapping table as a list: what each entry does, and who may use it.

VT-d 5.1.3, 9.9, 9.10. For people; nothing is cached and no fault recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from devices.source_id import SourceId
from pagetables.memory import BusError, TableMemory
from vtd.layouts.interrupt_entries import (
    PostedIrte,
    RemappedIrte,
    SourceIdQualifier,
    SourceValidationType,
)
from vtd.unit.interrupts.interrupt_remapping import IRTE_SIZE, InterruptFault, InterruptRemapping

COMPARED = {
    SourceIdQualifier.ALL_BITS: "",
    SourceIdQualifier.IGNORE_BIT_2: ", bit 2 of the function left out",
    SourceIdQualifier.IGNORE_BITS_2_1: ", bits 2:1 of the function left out",
    SourceIdQualifier.IGNORE_BITS_2_0: ", any function",
}


class TableEntry(NamedTuple):
    """A present entry."""

    number: int
    entry: RemappedIrte | PostedIrte
    fault: InterruptFault | None
    """What every request meets that names it, whoever sends it."""


def list_entries(interrupts: InterruptRemapping, memory: TableMemory) -> Iterator[TableEntry]:
    """The present entries in ascending order; entries where there is no memory are left out."""
    for index in range(2 << interrupts.table.s):
        try:
            raw = RemappedIrte(
                memory.read_record(interrupts.table.irta + index * IRTE_SIZE, IRTE_SIZE)
            )
        except BusError:
            continue
        if not raw.p:
            continue
        fault = None
        try:
            interrupts.entry(index)
        except InterruptFault as found:
            fault = found
        yield TableEntry(index, PostedIrte(raw) if raw.im else raw, fault)


def requesters(entry: RemappedIrte | PostedIrte) -> str:
    """Who may use an entry: SVT, SQ and SID in words."""
    match entry.svt:
        case SourceValidationType.NONE:
            return "anyone"
        case SourceValidationType.SOURCE_ID:
            return f"{SourceId(entry.sid)}{COMPARED[entry.sq]}"
        case SourceValidationType.BUS_RANGE:
            return f"buses {entry.sid >> 8:02x} to {entry.sid & 0xFF:02x}"
    return "no one: the validation type is reserved"
