"""An access of a guest by its EPT, explained: each entry, and the page or the exit it comes to."""

from __future__ import annotations

from typing import NamedTuple

from pagetables.memory import TableMemory
from pagetables.walk import output
from vtd.guest.x86.ept import EptFaultError, EptStage, EptStep, examine, violation, walk_ept
from vtd.guest.x86.exits import ExitReason, VmExit


class EptExplanation(NamedTuple):
    """What became of an access."""

    steps: tuple[EptStep, ...]
    rights: int | None
    """Of the page that maps the address; None if there is none."""
    physical: int | None
    """Where the access ends; None if it exits."""
    exits: VmExit | None


def explain_access(memory: TableMemory, stage: EptStage, gpa: int, access: int) -> EptExplanation:
    """What READ, WRITE or EXECUTE at a guest-physical address comes to; sets no flag."""
    steps = tuple(examine(memory, stage, gpa))
    try:
        leaf = _, _, rights, _, _ = walk_ept(memory, stage, gpa)
    except EptFaultError as fault:
        exits = VmExit(ExitReason.EPT_MISCONFIGURATION)
        if fault.violation:
            exits = _violation(stage, access, fault.rights)
        return EptExplanation(steps, None, None, exits)
    if not rights & access:
        return EptExplanation(steps, rights, None, _violation(stage, access, rights))
    return EptExplanation(steps, rights, output(leaf, gpa), None)


def _violation(stage: EptStage, access: int, rights: int) -> VmExit:
    qualification = violation(stage, access, rights, linear=True, final=True)
    return VmExit(ExitReason.EPT_VIOLATION, int(qualification))
