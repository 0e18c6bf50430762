"""What is wrong with a VMCS of which nobody has the memory: a region from a file, or a dump."""

from __future__ import annotations

from typing import NamedTuple

from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.entry import RULES
from vtd.guest.x86.entry_rules import Entry, Rule
from vtd.guest.x86.vmcs import VmcsState


class UnknownMemoryError(Exception):
    """Memory was asked for that nobody has."""


class UnknownMemory:
    """Memory that nobody has."""

    def read(self, address: int, length: int) -> bytes:
        """Not known."""
        raise UnknownMemoryError(hex(address))

    def write(self, address: int, data: bytes) -> None:
        """Not possible."""
        raise UnknownMemoryError(hex(address))


class Judgement(NamedTuple):
    """What the rules of a VM entry say."""

    broken: tuple[Rule, ...]
    unknown: tuple[Rule, ...]
    """Rules that need memory, so nobody can tell."""


def judge(state: VmcsState, capabilities: VmxCapabilities) -> Judgement:
    """Every rule of a VM entry on a state."""
    entry = Entry(state, capabilities, UnknownMemory())
    broken, unknown = [], []
    for rule in RULES:
        try:
            if rule.broken(entry):
                broken.append(rule)
        except UnknownMemoryError:
            unknown.append(rule)
    return Judgement(tuple(broken), tuple(unknown))


def with_ordinary(values: dict[str, int], capabilities: VmxCapabilities) -> VmcsState:
    """A state with these fields, the others ordinary."""
    return base_state(capabilities).replace(values)
