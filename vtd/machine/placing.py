"""Where the parts of a machine are plugged in, and in which order: bridges before what is behind.

Whatever can't be is noted: a place taken twice, a bridge that is not there or is behind itself, a
device number that no link has, a switch without ports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from vtd.dmar.pci_tree import LAST_SEGMENT
from vtd.machine.description import (
    BridgeKind,
    DescribedBridge,
    DescribedFunction,
    DescribedSwitch,
    DescribedVmd,
    Machine,
    Slot,
)
from vtd.machine.reading import Problems, Where

LINKS = (BridgeKind.ROOT_PORT, BridgeKind.DOWNSTREAM_PORT)
"""What has a link behind it, at whose other end there is device 0 alone."""
BELOW = {
    BridgeKind.UPSTREAM_PORT: LINKS,
    BridgeKind.DOWNSTREAM_PORT: (BridgeKind.UPSTREAM_PORT,),
}
"""What ports have to be behind."""
_NAME = re.compile(r"[A-Za-z_][\w.+-]*", re.ASCII)


@dataclass(frozen=True)
class Part:
    """A function or bridge, and its place."""

    name: str
    at: Slot
    where: Where
    made_of: DescribedBridge | DescribedFunction | DescribedVmd

    @property
    def kind(self) -> BridgeKind | None:
        """Its kind of bridge; None for other functions."""
        return self.made_of.kind if isinstance(self.made_of, DescribedBridge) else None


def parts_in_order(machine: Machine, problems: Problems) -> list[Part]:
    """Everything to be plugged in, bridges first; without what has no place, which is noted."""
    parts = list(_parts(machine, problems))
    by_name: dict[str, Part] = {}
    by_place: dict[Slot, Part] = {}
    for part in parts:
        other = by_place.setdefault(part.at, part)
        if by_name.setdefault(part.name, part) is not part and part.made_of.name:
            problems.add(part.where, "name", f"there is another {part.name}")
        if other is not part:
            problems.add(part.where, "at", f"{part.at} is taken by {other.name}")
    for part in parts:
        _check_place(part, by_name, problems)
    _check_domains(machine, parts, problems)
    behind: dict[object, list[Part]] = {}
    for part in parts:
        behind.setdefault(part.at.bus, []).append(part)
        if part.kind is BridgeKind.UPSTREAM_PORT and not any(
            each.at.bus == part.name for each in parts
        ):
            problems.add(part.where, "", "a switch without ports")
    ordered = [part for part in parts if not isinstance(part.at.bus, str)]
    for part in ordered:  # which grows by what is behind
        ordered += behind.get(part.name, ())
    return ordered


def _check_domains(machine: Machine, parts: list[Part], problems: Problems) -> None:
    """Each domain beyond those of tables belongs to one VMD endpoint, which is outside of them."""
    domains = {vmd.domain for vmd in machine.vmds}
    for vmd in machine.vmds:
        if vmd.domain <= LAST_SEGMENT:
            problems.add(vmd.where, "domain", f"{vmd.domain:#x} is that of a table, not above ffff")
        elif sum(other.domain == vmd.domain for other in machine.vmds) > 1:
            problems.add(vmd.where, "domain", f"{vmd.domain:#x} belongs to another one too")
    for part in parts:
        if isinstance(part.at.bus, tuple) and part.at.bus[0] > LAST_SEGMENT:
            if part.at.bus[0] not in domains:
                text = f"domain {part.at.bus[0]:x} belongs to no VMD endpoint"
                problems.add(part.where, "at", text)
            if isinstance(part.made_of, DescribedVmd):
                problems.add(part.where, "at", "a VMD endpoint in the domain of another one")


def _parts(machine: Machine, problems: Problems) -> Iterator[Part]:
    switches = [port for switch in machine.switches for port in _ports(switch, problems)]
    for bridge in (*machine.bridges, *switches):
        if not _NAME.fullmatch(bridge.name):
            problems.add(bridge.where, "name", f"{bridge.name!r} is no name")
        yield Part(bridge.name, bridge.at, bridge.where, bridge)
    for vmd in machine.vmds:
        yield Part(vmd.name, vmd.at, vmd.where, vmd)
    for function in machine.functions:
        name = function.name or str(function.at)
        if function.name and not _NAME.fullmatch(name):
            problems.add(function.where, "name", f"{name!r} is no name")
        yield Part(name, function.at, function.where, function)


def _ports(switch: DescribedSwitch, problems: Problems) -> Iterator[DescribedBridge]:
    """The ports of a switch as bridges."""
    yield DescribedBridge(
        name=switch.name, at=switch.at, kind=BridgeKind.UPSTREAM_PORT, where=switch.where
    )
    if switch.ports > 32:
        problems.add(switch.where, "ports", f"{switch.ports} are more than a bus has devices")
    for number in range(min(switch.ports, 32)):
        yield DescribedBridge(
            name=f"{switch.name}.{number}",
            at=Slot(switch.name, number, 0),
            kind=BridgeKind.DOWNSTREAM_PORT,
            acs=switch.acs,
            acs_enabled=switch.acs_enabled,
            where=switch.where,
        )


def _check_place(part: Part, by_name: dict[str, Part], problems: Problems) -> None:
    wrong = partial(problems.add, part.where, "at")
    above = _above(part, by_name)
    needed = BELOW.get(part.kind) if part.kind is not None else None
    if not isinstance(part.at.bus, str):
        if needed:
            wrong(f"{part.kind} on a root bus, not behind {_any(needed)}")
    elif above is None:
        wrong(f"there is no {part.at.bus}")
    elif above.kind is None:
        wrong(f"{above.name} is no bridge")
    elif _loops(part, by_name):
        wrong(f"{part.name} is behind itself")
    elif part.kind is BridgeKind.ROOT_PORT:
        wrong("root_port behind a bridge, not on a root bus")
    elif needed and above.kind not in needed:
        wrong(f"{part.kind} behind {above.kind}, not {_any(needed)}")
    elif above.kind is BridgeKind.UPSTREAM_PORT and part.kind is not BridgeKind.DOWNSTREAM_PORT:
        wrong(f"{above.name} is an upstream_port: use one of its ports")
    elif above.kind in LINKS and part.at.device:
        wrong(f"device {part.at.device:#x} of the link of {above.name}, which has 0")


def _any(kinds: tuple[BridgeKind, ...]) -> str:
    return " or ".join(kinds)


def _above(part: Part, by_name: dict[str, Part]) -> Part | None:
    return by_name.get(part.at.bus) if isinstance(part.at.bus, str) else None


def _loops(part: Part, by_name: dict[str, Part]) -> bool:
    """Whether a part is behind itself."""
    seen = {part.name}
    above = _above(part, by_name)
    while above is not None and above.name not in seen:
        seen.add(above.name)
        above = _above(above, by_name)
    return above is part
