"""The bridges of a PCI tree as device scopes need them: what is behind each, and what above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from devices.source_id import Bdf


class BridgeLookup(Protocol):
    """What a PCI tree has to answer."""

    def secondary_bus(self, bridge: Bdf) -> int | None:
        """The bus behind a bridge; None if it is no bridge or not known."""
        ...

    def bridge_above(self, bdf: Bdf) -> Bdf | None:
        """The bridge whose secondary bus the function is on; None on a root bus."""
        ...

    def physical_function(self, bdf: Bdf) -> Bdf | None:
        """The physical function of a virtual function; None for all others."""
        ...


def bridges_above(topology: BridgeLookup, bdf: Bdf) -> list[Bdf]:
    """The bridges above a function, nearest first; each once, even if their numbers make a ring."""
    bridges: list[Bdf] = []
    above = topology.bridge_above(bdf)
    while above is not None and above not in bridges:
        bridges.append(above)
        above = topology.bridge_above(above)
    return bridges


class Bridges:
    """A topology from the secondary bus of each bridge."""

    def __init__(self, secondary_buses: Mapping[Bdf, int] | None = None) -> None:
        self._below = dict(secondary_buses or {})
        self._above = {(bdf.segment, bus): bdf for bdf, bus in self._below.items() if bus}

    def secondary_bus(self, bridge: Bdf) -> int | None:
        return self._below.get(bridge)

    def bridge_above(self, bdf: Bdf) -> Bdf | None:
        return self._above.get((bdf.segment, bdf.source_id.bus))

    def physical_function(self, bdf: Bdf) -> Bdf | None:
        return None
