"""How VMCS fields, entry checks and EPT walks look: lines of text, or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pagetables.bits import BitRecord
from vtd.guest.x86.controls import (
    AccessRights,
    EntryControls,
    EntryEvent,
    EptPointer,
    ExitControls,
    ExitEvent,
    Interruptibility,
    InterruptStatus,
    PendingDebug,
    PinControls,
    PrimaryControls,
    SecondaryControls,
    TertiaryControls,
)
from vtd.guest.x86.entry import EntryCheck
from vtd.guest.x86.ept import EptStep
from vtd.guest.x86.exits import ERRORS, VmExit
from vtd.guest.x86.fields import FIELDS
from vtd.guest.x86.judgement import Judgement

RECORDS: dict[str, type[BitRecord]] = {
    "pin_controls": PinControls,
    "primary_controls": PrimaryControls,
    "secondary_controls": SecondaryControls,
    "tertiary_controls": TertiaryControls,
    "exit_controls": ExitControls,
    "entry_controls": EntryControls,
    "entry_interruption_info": EntryEvent,
    "exit_interruption_info": ExitEvent,
    "idt_vectoring_info": ExitEvent,
    "guest_interruptibility": Interruptibility,
    "guest_interrupt_status": InterruptStatus,
    "guest_pending_debug_exceptions": PendingDebug,
    "eptp": EptPointer,
    **{
        f"guest_{name}_access_rights": AccessRights
        for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
    },
}
"""Fields that are records."""
LEVELS = {12: "EPT PTE", 21: "EPT PDE", 30: "EPT PDPTE", 39: "EPT PML4E", 48: "EPT PML5E"}


def field_lines(values: dict[str, int]) -> Iterator[str]:
    """Fields that are not 0, each with its encoding and what its bits mean."""
    for field in FIELDS:
        value = values.get(field.name, 0)
        if value:
            yield f"{field.encoding:04x}  {field.name:36} {value:#x}{_meaning(field.name, value)}"


def _meaning(name: str, value: int) -> str:
    if name == "instruction_error" and value in ERRORS:
        return f"  {ERRORS[value]}"
    if name == "exit_reason":
        return f"  {str(VmExit(value)).removesuffix(', qualification 0x0')}"
    record = RECORDS.get(name)
    return "" if record is None else f"  {record_text(record(value))}"


def record_text(record: BitRecord) -> str:
    """The fields of a record that are not 0, then the bits that belong to none."""
    parts = []
    for name, value in record.fields().items():
        if value is True:
            parts.append(name)
        elif value:
            number = int(value)
            parts.append(f"{name}={number:#x}" if number > 9 else f"{name}={number}")
    reserved = record & record.RESERVED
    if reserved:
        parts.append(f"others={int(reserved):#x}")
    return " ".join(parts)


def judgement_lines(judged: Judgement) -> Iterator[str]:
    """The broken rules, and those of which nobody can tell."""
    for rule in judged.broken:
        yield f"broken: {rule.name}: {rule.text}"
    if not judged.broken:
        yield "no rule of a VM entry is broken"
    for rule in judged.unknown:
        yield f"unknown without the memory: {rule.name}: {rule.text}"


def judgement_json(values: dict[str, int], judged: Judgement) -> dict[str, Any]:
    """Fields and broken rules as JSON."""
    return {
        "fields": {field.name: hex(values[field.name]) for field in FIELDS if field.name in values},
        "broken": [
            {"rule": rule.name, "group": rule.group.value, "text": rule.text}
            for rule in judged.broken
        ],
        "unknown": [rule.name for rule in judged.unknown],
    }


def check_text(check: EntryCheck, texts: dict[str, str]) -> str:
    """One state: how the entry ends, and the rules that it breaks."""
    if check.enters:
        return "enters"
    rules = "".join(f"\n  {name}: {texts.get(name, '')}" for name in check.rules)
    if check.error is not None:
        return f"fails with error {check.error}: {ERRORS[check.error]}{rules}"
    assert check.exit_reason is not None  # one of the two there is
    return f"fails late: {VmExit(check.exit_reason, check.qualification or 0)}{rules}"


def check_json(check: EntryCheck) -> dict[str, Any]:
    """One state as JSON."""
    return {
        "enters": check.enters,
        "group": None if check.group is None else check.group.value,
        "error": check.error,
        "exit_reason": check.exit_reason,
        "qualification": check.qualification,
        "rules": list(check.rules),
    }


def step_line(step: EptStep) -> str:
    """One entry of an EPT walk."""
    reserved = f" ({step.reserved:#x})" if step.reserved else ""
    return (
        f"  {LEVELS[step.shift]:10} at {step.address:#014x}  {record_text(step.record) or '-'}"
        f"\n    {step.rule.value}{reserved}"
    )


def step_json(step: EptStep) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "level": LEVELS[step.shift],
        "address": hex(step.address),
        "entry": hex(step.entry),
        "fields": {name: int(value) for name, value in step.record.fields().items()},
        "rule": step.rule.name.lower(),
        "reserved": hex(step.reserved),
    }
