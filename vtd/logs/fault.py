"""A fault of a log, what may be missing of it, and faults that are alike folded into one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from devices.source_id import Bdf

PAGE = 0x1000


class RequestKind(Enum):
    """What a device tried to do."""

    READ = "DMA read"
    WRITE = "DMA write"
    ATOMIC = "atomic operation"
    PAGE_REQUEST = "page request"
    INTERRUPT = "interrupt"
    UNKNOWN = "request"


class LoggedFault(NamedTuple):
    """One fault of a log; None stands for what the log does not tell."""

    line: int
    kind: RequestKind = RequestKind.UNKNOWN
    source: Bdf | None = None
    target: int | None = None
    """The address, or the index of an interrupt."""
    reason: int | None = None
    pasid: int | None = None
    system: str = "Linux"
    note: str = ""
    """What else the line tells, in words."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What the log does not tell of the fault."""
        target = "index" if self.kind is RequestKind.INTERRUPT else "address"
        parts = {"device": self.source, target: self.target, "reason": self.reason}
        return tuple(name for name, value in parts.items() if value is None)


@dataclass(frozen=True)
class FoldedFaults:
    """Faults that differ in their address only."""

    kind: RequestKind
    source: Bdf | None
    reason: int | None
    pasid: int | None
    system: str
    note: str
    count: int
    lines: tuple[int, int]
    """First and last line."""
    ranges: tuple[tuple[int, int], ...]
    """The pages of the addresses merged, half-open; for interrupts the indices."""
    levels: tuple[int, ...] = ()
    """Levels of the page tables that the dumps after the faults found empty."""
    contradictions: tuple[str, ...] = ()
    """What a dump after a fault shows that does not go with its reason."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What the log does not tell of the faults."""
        target = None if not self.ranges else self.ranges[0][0]
        return LoggedFault(0, self.kind, self.source, target, self.reason).missing


class FaultGroup:
    """Faults alike, as far as they were read."""

    def __init__(self, line: int, unit: int) -> None:
        self.count = 0
        self.first = self.last = line
        self.unit = unit
        """Size of what targets are gathered in: a page, or one index."""
        self.units: set[int] = set()
        self.levels: set[int] = set()
        self.contradictions: dict[str, None] = {}

    def add(self, line: int, target: int | None) -> None:
        """Count one more fault in."""
        self.count += 1
        if line > self.last:
            self.last = line
        elif line < self.first:
            self.first = line
        if target is not None:
            self.units.add(target // self.unit)


class FaultGroups:
    """Faults folded as they are read; groups stay in the order in which they first appear."""

    def __init__(self) -> None:
        self._groups: dict[tuple[LoggedFault, bool], FaultGroup] = {}
        self.latest: FaultGroup | None = None
        """The group of the fault that was counted last."""

    def add(self, fault: LoggedFault) -> FaultGroup:
        """Count a fault in; the group that it belongs to."""
        key = fault._replace(line=0, target=None), fault.target is None
        group = self._groups.get(key)
        if group is None:
            unit = 1 if fault.kind is RequestKind.INTERRUPT else PAGE
            group = self._groups[key] = FaultGroup(fault.line, unit)
        group.add(fault.line, fault.target)
        self.latest = group
        return group

    def add_dump(self, level: int | None = None, contradiction: str = "") -> None:
        """What a dump of the tables tells of the fault before it."""
        if self.latest is not None:
            if level is not None:
                self.latest.levels.add(level)
            if contradiction:
                self.latest.contradictions[contradiction] = None

    def folded(self) -> list[FoldedFaults]:
        """The groups."""
        return [
            FoldedFaults(
                fault.kind,
                fault.source,
                fault.reason,
                fault.pasid,
                fault.system,
                fault.note,
                count=group.count,
                lines=(group.first, group.last),
                ranges=tuple(_ranges(group.units, group.unit)),
                levels=tuple(sorted(group.levels)),
                contradictions=tuple(group.contradictions),
            )
            for (fault, _), group in self._groups.items()
        ]


def _ranges(units: set[int], size: int) -> list[tuple[int, int]]:
    """Ranges of the units of a size, adjacent ones merged."""
    ranges: list[tuple[int, int]] = []
    for unit in sorted(units):
        start = unit * size
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], start + size
        else:
            ranges.append((start, start + size))
    return ranges
