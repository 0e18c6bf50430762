"""PCI functions from the tree that ``lspci -t`` draws: addresses, and the buses of bridges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from devices.source_id import Bdf, SourceId
from vtd.dmar.pci_tree import PciFunction

TREE_START = re.compile(r"-\[[0-9a-f]{4,8}:[0-9a-f]{2}\]-", re.ASCII)
"""A root bus."""
_PART = re.compile(
    r"(?P<fork>[+\\])-|\[(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<bus>[0-9a-f]{2})"
    r"(?:-(?P<last>[0-9a-f]{2}))?\]|(?P<device>[01][0-9a-f])\.(?P<function>[0-7])(?P<name>  .*)?",
    re.ASCII,
)


def tree_functions(lines: Iterable[str]) -> Iterator[PciFunction]:
    """The functions of a drawing; a bus goes on below the column where it forks first."""
    forks: dict[int, tuple[int, int]] = {}
    bus: tuple[int, int] | None = None
    for line in lines:
        bus = None
        above: Bdf | None = None
        for part in _PART.finditer(line):
            if part["fork"]:
                if bus is not None and above is None:
                    forks[part.start()] = bus
                bus = forks.get(part.start(), bus)
            elif part["bus"]:
                segment = int(part["domain"], 16) if part["domain"] else bus[0] if bus else 0
                bus = segment, int(part["bus"], 16)
                if above is not None:
                    last = int(part["last"] or part["bus"], 16)
                    yield _drawn(above, secondary=bus[1], subordinate=last)
                above = None
            elif bus is not None:
                if above is not None:
                    yield _drawn(above)
                device, function = int(part["device"], 16), int(part["function"])
                above = Bdf(bus[0], SourceId.of(bus[1], device, function))
                if part["name"]:
                    yield _drawn(above, name=part["name"].strip())
                    above = None
        if above is not None:
            yield _drawn(above)


def _drawn(
    bdf: Bdf, name: str = "", secondary: int | None = None, subordinate: int | None = None
) -> PciFunction:
    """A function of the drawing, which shows the buses of every bridge and nothing else."""
    return PciFunction(
        bdf,
        name,
        secondary_bus=secondary,
        subordinate_bus=subordinate,
        express_known=False,
        acs_known=False,
    )
