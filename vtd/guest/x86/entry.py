"""Whether a VMCS can be entered: the checks of a VM entry in order (SDM 26.2 to 26.4).

A pure judgement: nothing is loaded, and the entry MSR-load area is only looked at.
"""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from vtd.guest.x86 import entry_controls, entry_guest, entry_host
from vtd.guest.x86.entry_rules import Entry, Group, Rule
from vtd.guest.x86.exits import ENTRY_FAILURE, ExitReason
from vtd.guest.x86.fields import FIELDS, FieldType
from vtd.guest.x86.msrs import bad_load

RULES: tuple[Rule, ...] = (*entry_controls.RULES, *entry_host.RULES, *entry_guest.RULES)
"""All rules in order; the MSR-load area is checked after them."""
ERRORS = {Group.CONTROLS: 7, Group.HOST: 8}
"""VM-instruction errors of the groups that fail before the exit (30.4)."""
MSR_LOAD_RULE = "msr_load"


class EntryCheck(NamedTuple):
    """What the checks of one entry come to."""

    group: Group | None
    """The group that failed first; None also for the MSR-load area."""
    error: int | None
    """VM-instruction error of a VMfailValid."""
    exit_reason: int | None
    """Of an entry that fails late."""
    qualification: int | None
    rules: tuple[str, ...]
    """Names of the rules of that group that are broken, in order."""

    @property
    def enters(self) -> bool:
        """Whether the guest runs."""
        return self.error is None and self.exit_reason is None


ENTERS = EntryCheck(None, None, None, None, ())


def check_entry(entry: Entry) -> EntryCheck:
    """The first group with broken rules, and all of them in that group."""
    for group, rules in _GROUPS:
        broken = [rule for rule in rules if rule.broken(entry)]
        if broken:
            return _failure(group, broken)
    failing = bad_load(
        entry.memory, entry.state.entry_msr_load_address, entry.state.entry_msr_load_count,
        entry.capabilities,
    )  # fmt: skip
    if failing is not None:
        reason = ENTRY_FAILURE | ExitReason.MSR_LOADING
        return EntryCheck(None, None, reason, failing, (MSR_LOAD_RULE,))
    return ENTERS


_CHECKED = attrgetter(*(each.name for each in FIELDS if each.type is not FieldType.READ_ONLY))


class EntryChecks:
    """The checks of one processor: what has passed is not looked at again while nothing changes.

    Most entries of a guest have the fields of the one before, the exit information apart. States
    whose rules ask memory are checked every time.
    """

    def __init__(self) -> None:
        self._passed: tuple[object, ...] | None = None

    def check(self, entry: Entry) -> EntryCheck:
        """The same as :func:`check_entry`."""
        looked = _CHECKED(entry.state), entry.capabilities, entry.ia32e, entry.current
        if looked == self._passed:
            return ENTERS
        found = check_entry(entry)
        if found.enters and not entry.asked_memory and not entry.state.entry_msr_load_count:
            self._passed = looked
        return found


_GROUPS = (
    (Group.CONTROLS, entry_controls.RULES),
    (Group.HOST, entry_host.RULES),
    (Group.GUEST, entry_guest.RULES),
)


def _failure(group: Group, broken: list[Rule]) -> EntryCheck:
    names = tuple(rule.name for rule in broken)
    if group is Group.GUEST:
        reason = ENTRY_FAILURE | ExitReason.INVALID_GUEST_STATE
        return EntryCheck(group, None, reason, broken[0].qualification, names)
    return EntryCheck(group, ERRORS[group], None, None, names)
