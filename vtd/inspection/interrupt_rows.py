"""Interrupts, and the entries that remap them, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vtd.inspection.interrupt_message import DecodedMessage, FollowedMessage
from vtd.inspection.interrupt_table import TableEntry, requesters
from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte
from vtd.layouts.registers import InterruptRemappingTableAddress
from vtd.rows import Hex, field_values
from vtd.unit.interrupts.interrupt_remapping import InterruptFault
from vtd.unit.interrupts.outcome import Interrupt, Posted


@dataclass(frozen=True)
class InterruptTableRow:
    """The table itself."""

    base: Hex
    entries: int
    eime: bool
    """Whether destinations have 32 bits."""
    enabled: bool


@dataclass(frozen=True)
class IrteRow:
    """An entry of the interrupt-remapping table."""

    lo: str
    hi: str
    """The halves, 16 hexadecimal digits each."""
    kind: str
    fields: Mapping[str, int]
    requesters: str


@dataclass(frozen=True)
class InterruptFaultRow:
    """Why an interrupt request is blocked."""

    reason: int
    text: str
    index: int
    recorded: bool


def table_row(table: InterruptRemappingTableAddress, *, enabled: bool) -> InterruptTableRow:
    """The row of a table."""
    return InterruptTableRow(Hex(table.irta), 2 << table.s, table.eime, enabled)


def listed_row(listed: TableEntry) -> Mapping[str, object]:
    """The row of a listed entry: its number, the entry, and the fault that its users meet."""
    return {
        "index": listed.number,
        **vars(irte_row(listed.entry)),
        "fault": interrupt_fault_row(listed.fault),
    }


def irte_row(entry: RemappedIrte | PostedIrte) -> IrteRow:
    """The row of an entry, with all its fields."""
    return IrteRow(
        lo=f"{entry & (1 << 64) - 1:#018x}",
        hi=f"{entry >> 64:#018x}",
        kind="posted" if isinstance(entry, PostedIrte) else "remapped",
        fields=field_values(entry),
        requesters=requesters(entry),
    )


def interrupt_fault_row(fault: InterruptFault | None) -> InterruptFaultRow | None:
    """The row of a fault, if there is one."""
    if fault is None:
        return None
    return InterruptFaultRow(fault.reason, fault.reason.text, fault.index, fault.recorded)


def interrupt_row(interrupt: Interrupt) -> Mapping[str, int]:
    """An interrupt with numbers for its modes."""
    return {name: int(value) for name, value in interrupt._asdict().items()}


def outcome_row(outcome: Interrupt | Posted | None) -> Mapping[str, object] | None:
    """What became of an interrupt request, None if it is blocked."""
    if outcome is None:
        return None
    if isinstance(outcome, Interrupt):
        return {"delivered": interrupt_row(outcome)}
    sent = outcome.notification
    return {
        "posted": {
            "descriptor": Hex(outcome.descriptor),
            "vector": outcome.vector,
            "notification": interrupt_row(sent) if sent else None,
        }
    }


def message_row(message: DecodedMessage, followed: FollowedMessage | None) -> Mapping[str, object]:
    """A message, and its way through the table if it has been followed."""
    row: dict[str, object] = {"format": "remappable"}
    if message.compatibility is not None:
        row = {"format": "compatibility", **(outcome_row(message.compatibility) or {})}
    else:
        row |= {
            "handle": message.handle,
            "subhandle": message.subhandle,
            "index": message.index,
        }
    if followed is not None:
        entry = followed.entry
        row |= {
            "sender": int(followed.sender),
            "entry_address": Hex.known(followed.entry_address),
            "entry": None if entry is None else irte_row(entry),
            "outcome": outcome_row(followed.outcome),
            "fault": interrupt_fault_row(followed.fault),
        }
    return row
