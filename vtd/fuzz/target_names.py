"""Targets by name: what opens one, what each can be asked, and those that a process keeps."""

from __future__ import annotations

from collections.abc import Callable

from vtd.fuzz.properties import BYTE_PROPERTIES, CASE_PROPERTIES
from vtd.fuzz.qemu import QemuTarget
from vtd.fuzz.targets import (
    CommandTarget,
    FuzzTarget,
    JudgingTarget,
    LibraryProcess,
    OracleTarget,
    TargetError,
)
from vtd.unit.registers.capabilities import unit_named

PROPERTIES = (*CASE_PROPERTIES, *BYTE_PROPERTIES)
TARGETS = "oracle, library:PATH, command:COMMAND, qemu[:PREFIX] or guest:MACHINE"
TARGET_PROPERTIES = {
    "oracle": PROPERTIES,
    "library": ("tables", "driver"),
    "command": ("protocol", "driver", "tables", "interrupts", "requests"),
    "qemu": ("tables", "interrupts"),
    "guest": ("protocol", "driver", "tables", "interrupts"),
}
"""Properties whose cases a kind of target can be given."""
OPENERS: dict[str, Callable[[str], JudgingTarget]] = {}
"""Targets of packages above this one, by kind: what makes one of the argument."""


def default_properties(target: str, unit: str = "") -> tuple[str, ...]:
    """All properties that a target can be asked, which are those that are checked by default.

    With a unit those that are about units with its functions.
    """
    asked = TARGET_PROPERTIES.get(target.partition(":")[0], PROPERTIES)
    if not unit:
        return asked
    left_out = set() if "ir" in unit_named(unit).features else {"interrupts"}
    return tuple(name for name in asked if name in CASE_PROPERTIES and name not in left_out)


def open_target(name: str) -> FuzzTarget:
    """The target of a ``--target`` argument; TargetError for one that is none."""
    kind, _, argument = name.partition(":")
    match kind:
        case "oracle":
            return OracleTarget()
        case "library" if argument:
            return LibraryProcess(argument)
        case "command" if argument:
            return CommandTarget(argument)
        case "qemu":
            return QemuTarget(argument)
        case _ if kind in OPENERS:
            return OPENERS[kind](argument)
    raise TargetError(f"target {name!r}: not {TARGETS}")


_TARGETS: dict[str, FuzzTarget] = {}


def kept_target(name: str) -> FuzzTarget:
    """A target that this worker keeps from seed to seed."""
    if name not in _TARGETS:
        _TARGETS[name] = open_target(name)
    return _TARGETS[name]


def close_targets() -> None:
    """Give back the targets that this process keeps."""
    while _TARGETS:
        _TARGETS.popitem()[1].close()
