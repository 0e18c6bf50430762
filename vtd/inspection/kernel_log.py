"""Linux kernel log text: the faults in it, whichever kernel wrote them, and the other DMAR lines.

Reads ``dmesg`` and journal text of kernels from 2.6.30 on. Fault reasons are decimal without a
``0x`` in front (before 5.14) and hexadecimal with it; older kernels print a fault in two lines.
What the lines mean is in :mod:`vtd.inspection.kernel_log_messages` and
:mod:`vtd.inspection.fault_causes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from devices.source_id import Bdf, SourceId

PAGE = 0x1000
NO_PASID = 0xFFFFFFFF
"""What kernels from 4.20 to 5.13 print for a request without PASID."""


class RequestKind(Enum):
    """What a device tried to do."""

    READ = "DMA read"
    WRITE = "DMA write"
    INTERRUPT = "interrupt"


@dataclass(frozen=True)
class LoggedFault:
    """One fault of the log."""

    line: int
    kind: RequestKind
    source: Bdf
    target: int
    """The address, or the index of an interrupt."""
    reason: int
    pasid: int | None
    level: int | None = None
    """Level of the page tables that a dump after the fault found empty."""


class LogLine(NamedTuple):
    """A line about DMAR that is no fault."""

    line: int
    text: str
    """The line without time, host and log level in front."""


@dataclass(frozen=True)
class FoldedFaults:
    """Faults that differ in their address only."""

    kind: RequestKind
    source: Bdf
    reason: int
    pasid: int | None
    count: int
    lines: tuple[int, int]
    """First and last line."""
    ranges: tuple[tuple[int, int], ...]
    """The pages of the addresses merged, half-open; for interrupts the indices."""
    levels: tuple[int, ...] = ()
    """Levels of the page tables that the dumps after the faults found empty."""


_HEX = r"(?:0x)?([0-9a-f]+)"
_FAULT = re.compile(
    r"(?:\[(DMA Read|DMA Write)(?: (?:NO_PASID|w/o PASID|PASID (?:0x)?([0-9a-f]+)))?\]"
    r"|\[?INTR-REMAP\]?:?) ?"
    r"Request device \[{1,2}(?:([0-9a-f]{4}):)?"
    r"(?:0x)?([0-9a-f]{2}):(?:0x)?([01][0-9a-f])\.([0-7])\]"
    rf"(?: PASID {_HEX})? fault (?:addr|index) {_HEX}",
    re.ASCII,
)
_KINDS = {
    "DMA Read": RequestKind.READ,
    "DMA Write": RequestKind.WRITE,
    None: RequestKind.INTERRUPT,
}
_REASON = re.compile(r"\[fault reason (0x[0-9a-f]+|\d+)\]", re.ASCII)
_EMPTY_LEVEL = re.compile(r"not present at level (\d+)", re.ASCII)
_ABOUT_DMAR = re.compile(r"DMAR|dmar|INTR-REMAP|Intel-IOMMU|has no mapping iommu|x2apic:")
_PREFIX = re.compile(r"^(?:<\d+>)?(?:.*?\bkernel: ?)?(?:\[ *\d+\.\d+\] ?)?(?:kernel: ?)?", re.ASCII)


def parse_log(text: str) -> tuple[list[LoggedFault], list[LogLine]]:
    """The faults of a log, and the other lines about DMAR, both in the order of the log."""
    faults: list[LoggedFault] = []
    others: list[LogLine] = []
    waiting: tuple[int, re.Match[str]] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        match = _FAULT.search(line)
        reason = _REASON.search(line)
        level = _EMPTY_LEVEL.search(line)
        if level is not None and faults:
            faults[-1] = replace(faults[-1], level=int(level[1]))
        if match is not None:
            waiting = number, match
        if reason is not None and waiting is not None:
            faults.append(_fault(*waiting, int(reason[1], 0 if "x" in reason[1] else 10)))
            waiting = None
        elif match is None and reason is None and _ABOUT_DMAR.search(line):
            others.append(LogLine(number, _PREFIX.sub("", line.strip())))
    return faults, others


def _fault(line: int, match: re.Match[str], reason: int) -> LoggedFault:
    access, pasid_in_front, segment, bus, device, function, pasid_behind, target = match.groups()
    source_id = SourceId.of(int(bus, 16), int(device, 16), int(function))
    pasid = int(pasid_in_front or pasid_behind or hex(NO_PASID), 16)
    return LoggedFault(
        line,
        _KINDS[access],
        Bdf(int(segment or "0", 16), source_id),
        int(target, 16),
        reason,
        None if pasid == NO_PASID else pasid,
    )


def fold(faults: Iterable[LoggedFault]) -> list[FoldedFaults]:
    """Faults of one device, kind, reason and PASID as one, in the order they first appear."""
    groups: dict[tuple[RequestKind, Bdf, int, int | None], list[LoggedFault]] = {}
    for fault in faults:
        key = fault.kind, fault.source, fault.reason, fault.pasid
        groups.setdefault(key, []).append(fault)
    return [
        FoldedFaults(
            *key,
            count=len(group),
            lines=(group[0].line, group[-1].line),
            ranges=tuple(_ranges(group, 1 if key[0] is RequestKind.INTERRUPT else PAGE)),
            levels=tuple(sorted({fault.level for fault in group if fault.level is not None})),
        )
        for key, group in groups.items()
    ]


def _ranges(faults: Iterable[LoggedFault], unit: int) -> list[tuple[int, int]]:
    """The units that hold the targets, adjacent ones merged."""
    ranges: list[tuple[int, int]] = []
    for start in sorted({fault.target // unit * unit for fault in faults}):
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], start + unit
        else:
            ranges.append((start, start + unit))
    return ranges
