"""Drills of devices that keep to no rule: each behaviour of :mod:`devices.rogue`."""

from __future__ import annotations

from collections.abc import Iterator

from devices.rogue import BEHAVIOURS, Behaviour, Defence
from vtd.defences import harm_of
from vtd.host.drills.drill import Check, Drill, Play


def _drill(behaviour: Behaviour) -> Drill:
    guard = behaviour.stopped_by[0]
    return Drill(
        f"rogue-{behaviour.name}",
        f"a device {behaviour.text}",
        guard.text.partition(" (")[0],
        behaviour.source,
        _play(behaviour, guard),
    )


def _play(behaviour: Behaviour, guard: Defence) -> Play:
    def play(guarded: bool) -> Iterator[Check]:
        harmed = harm_of(behaviour, (*behaviour.in_place, *([guard] if guarded else [])))
        yield Check(f"it does no harm{f' to {harmed[0]}' if harmed else ''}", not harmed)

    return play


DRILLS = tuple(map(_drill, BEHAVIOURS))
