"""The planner: what works of a plan, what does not and why, and the nearest one that does."""

from __future__ import annotations

from dataclasses import dataclass

from vtd.host import abilities, ownership
from vtd.host.costs import GuestCost, guest_costs
from vtd.host.ownership import Assigned
from vtd.host.plan import Plan
from vtd.host.rules import Kind
from vtd.host.surroundings import Surroundings
from vtd.host.verdicts import Change, Verdict

ROUNDS = 64
"""Changes that are tried one after the other before a plan counts as hopeless."""


@dataclass(frozen=True)
class Nearest:
    """The plan that works with the fewest changes found, and these in words."""

    plan: Plan
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """All that can be said of a plan before it is run."""

    plan: Plan
    devices: tuple[Assigned, ...]
    """Those that are there, each once."""
    rivals: tuple[Assigned, ...]
    """Those that are there and can't be given away: to a second guest, or bridges."""
    verdicts: tuple[Verdict, ...]
    costs: tuple[GuestCost, ...]

    @property
    def works(self) -> bool:
        """Whether nothing stands against it."""
        return not any(each.stops for each in self.verdicts)

    @property
    def contradictory(self) -> bool:
        """Whether it asks for what can't be."""
        return any(each.kind is Kind.CONTRADICTION for each in self.verdicts)

    @property
    def undecided(self) -> bool:
        """Whether what is known of the machine leaves something open."""
        return any(each.kind is Kind.UNKNOWN for each in self.verdicts)


def judge(plan: Plan, around: Surroundings) -> Judgement:
    """Hold a plan against every rule."""
    devices, rivals, wrong = ownership.assigned_devices(plan, around)
    found = [
        *wrong,
        *ownership.units(around, devices),
        *ownership.groups(plan, around, devices),
        *ownership.peers(around, devices),
        *ownership.functions_of_one_device(around, devices),
        *ownership.virtual_functions(around, devices),
        *ownership.regions(plan, around, devices),
        *abilities.interrupt_isolation(devices),
        *abilities.unit_capabilities(devices),
        *abilities.address_widths(plan, devices),
        *abilities.device_features(around, devices),
        *abilities.behaviour(plan, devices),
        *abilities.room_for_tables(plan, devices),
        *abilities.memory(plan, around),
    ]
    costs = guest_costs(plan, devices)
    return Judgement(plan, tuple(devices), tuple(rivals), tuple(found), costs)


def nearest(judgement: Judgement, around: Surroundings) -> Nearest | None:
    """A plan that works, by the first change that each thing wrong asks for; None if none is found.

    A change that did not help is not tried again: the next one of that verdict is.
    """
    changes: list[str] = []
    tried: set[str] = set()
    current = judgement
    for _ in range(ROUNDS):
        if current.works:
            return Nearest(current.plan, tuple(changes)) if current.devices else None
        change = _next_change(current, tried)
        if change is None:
            return None
        tried.add(change.text)
        changes.append(change.text)
        current = judge(change.apply(current.plan), around)
    return None


def _next_change(judgement: Judgement, tried: set[str]) -> Change | None:
    for verdict in judgement.verdicts:
        if verdict.stops:
            for change in verdict.changes:
                if change.text not in tried:
                    return change
    return None
