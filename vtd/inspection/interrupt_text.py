"""Interrupts, and the entries that remap them, in a few words."""

from __future__ import annotations

from vtd.dmar.records import DeviceScope
from vtd.dmar.table import Table
from vtd.layouts.interrupt_entries import DeliveryMode, DestinationMode, PostedIrte, RemappedIrte
from vtd.unit.interrupts.interrupt_remapping import InterruptFault
from vtd.unit.interrupts.outcome import Interrupt, Posted


def entry_text(entry: RemappedIrte | PostedIrte) -> str:
    """What an entry makes of a request."""
    if isinstance(entry, PostedIrte):
        urgent = ", urgent" if entry.urg else ""
        return f"posts vector {entry.vv:#04x} in {entry.descriptor_address:#x}{urgent}"
    where = "logical" if entry.dm is DestinationMode.LOGICAL else "physical"
    return (
        f"vector {entry.v:#04x}, {_mode(entry.dlm)}, {entry.tm.name.lower()}, "
        f"{where} destination field {entry.dst:#x}{', redirectable' if entry.rh else ''}"
    )


def outcome_text(outcome: Interrupt | Posted) -> str:
    """What became of an interrupt request."""
    if isinstance(outcome, Posted):
        told = outcome.notification
        notified = f"notification: {_interrupt_text(told)}" if told else "no notification"
        return f"posted: vector {outcome.vector:#04x} in {outcome.descriptor:#x}; {notified}"
    return f"delivered: {_interrupt_text(outcome)}"


def fault_text(fault: InterruptFault) -> str:
    """A fault with its code, and whether it is recorded."""
    recorded = "recorded" if fault.recorded else "not recorded: fault processing is disabled"
    return f"blocked: fault {fault.reason:02X}h, {fault.reason.text}; {recorded}"


def sender_names(table: Table | None) -> dict[int, str]:
    """Source-ids that a DMAR table gives to I/O APICs and HPETs."""
    if table is None:
        return {}
    kinds = {DeviceScope.IOAPIC: "I/O APIC", DeviceScope.MSI_CAPABLE_HPET: "HPET"}
    return {
        entry.start_bus << 8 | entry.path[0][0] << 3 | entry.path[0][1]: (
            f"{kinds[entry.type]} {entry.enumeration_id}"
        )
        for unit in table.units
        for entry in unit.scopes
        if entry.type in kinds and len(entry.path) == 1
    }


def _mode(mode: DeliveryMode) -> str:
    return mode.name.lower().replace("_", " ")


def _interrupt_text(interrupt: Interrupt) -> str:
    where = "logical" if interrupt.destination_mode is DestinationMode.LOGICAL else "physical"
    hint = ", redirectable" if interrupt.redirection_hint else ""
    return (
        f"vector {interrupt.vector:#04x} to {where} APIC {interrupt.destination:#x}, "
        f"{_mode(interrupt.delivery_mode)}, {interrupt.trigger_mode.name.lower()}{hint}"
    )
