"""Verdicts on a passthrough plan, and changes of it that help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from vtd.host.plan import Assignment, Guest, Plan
from vtd.host.reasons import Reason
from vtd.host.rules import Kind, Rule
from vtd.machine.reading import Where


class Change(NamedTuple):
    """A change of a plan: in words, and what it makes of the plan."""

    text: str
    apply: Callable[[Plan], Plan]


@dataclass(frozen=True)
class Verdict:
    """What a rule says about one part of a plan."""

    reason: Reason
    where: Where
    subject: str
    """The device, guest or policy that it is about."""
    text: str
    changes: tuple[Change, ...] = ()
    """What would help, the least first."""

    @property
    def rule(self) -> Rule:
        """The rule that speaks."""
        return self.reason.rule

    @property
    def kind(self) -> Kind:
        """What it means for the plan."""
        return self.reason.kind

    @property
    def stops(self) -> bool:
        """Whether the plan does not work as it stands."""
        return self.reason.stops


def set_policy(assignment: Assignment, **values: Any) -> Change:
    """Give one assignment another policy."""
    words = ", ".join(f"{name} = {_toml(value)}" for name, value in values.items())

    def apply(plan: Plan) -> Plan:
        return _replaced(
            plan,
            assignment.where,
            lambda each: replace(each, policy=replace(each.policy, **values)),
        )

    return Change(f"{', '.join(assignment.devices)}: policy {words}", apply)


def set_override(*parts: str) -> Change:
    """Have the ACS override hide what can't be kept apart."""

    def apply(plan: Plan) -> Plan:
        return replace(plan, policy=replace(plan.policy, acs_override=parts))

    return Change(f"policy acs_override = {list(parts)}", apply)


def add_devices(assignment: Assignment, names: tuple[str, ...]) -> Change:
    """Give the guest of an assignment further devices."""

    def apply(plan: Plan) -> Plan:
        return _replaced(
            plan, assignment.where, lambda each: replace(each, devices=each.devices + names)
        )

    return Change(f"assign {', '.join(names)} to {assignment.guest} too", apply)


def drop_device(assignment: Assignment, name: str) -> Change:
    """Leave a device with the host."""

    def without(each: Assignment) -> Assignment:
        return replace(each, devices=tuple(other for other in each.devices if other != name))

    def apply(plan: Plan) -> Plan:
        changed = _replaced(plan, assignment.where, without)
        left = tuple(each for each in changed.assignments if each.devices)
        named = {other for each in left for other in each.devices}
        work = tuple(each for each in plan.work if each.device in named)
        return replace(changed, assignments=left, work=work)

    return Change(f"leave {name} with the host", apply)


def set_memory(guest: Guest, changed: Guest, text: str) -> Change:
    """Give a guest other memory."""

    def apply(plan: Plan) -> Plan:
        guests = tuple(changed if each.name == guest.name else each for each in plan.guests)
        return replace(plan, guests=guests)

    return Change(f"guest {guest.name}: {text}", apply)


def _replaced(plan: Plan, where: Where, change: Callable[[Assignment], Assignment]) -> Plan:
    """The plan with one assignment changed; two may be alike but for where they stand."""
    assignments = tuple(change(each) if each.where == where else each for each in plan.assignments)
    return replace(plan, assignments=assignments)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, StrEnum):
        return f'"{value.value}"'
    sizes = {12: "4K", 21: "2M", 30: "1G"}
    return f'"{sizes[value]}"' if isinstance(value, int) and value in sizes else str(value)
