"""What a boot shows: checks that failed, stale uses, warnings, faults that nobody provoked.

Each line of the kernel about a fault is laid beside what the unit recorded: one without the other
is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from devices.source_id import SourceId
from vtd.live import xen
from vtd.live.boot import Blocked, Outcome
from vtd.logs.fault import LoggedFault, RequestKind
from vtd.logs.fault_forms import Role, read_fault
from vtd.logs.fault_record import settled
from vtd.logs.pairing import Pairing

PROVOKING = ("edu",)
"""Models whose checks provoke faults."""
PROVOKE = ("vfio unmapped", "stray DMA")
"""Those checks."""
_WARNING = re.compile(
    r"WARNING: |\bBUG\b:|Oops|Kernel panic|general protection|soft lockup|hung task|"
    r"blocked for more than|unable to handle|timeout, (?:completion|aborting)|I/O error|"
    r"nobody cared",
    re.ASCII,
)
_PROVOKED = "sysrq triggered crash"
_TIME = re.compile(r"^\[ *\d+\.\d+\] ")
MOST = 20
"""Lines of one kind that are listed."""


class FaultLine(NamedTuple):
    """A line of the kernel about a fault, beside what the unit recorded."""

    line: str
    recorded: Blocked | None
    """None if the unit recorded nothing like it."""


def fault_lines(outcome: Outcome) -> Iterator[FaultLine]:
    """The fault lines of the console; the kernel prints only some when there are many."""
    known = {each for blocked in set(outcome.blocked) for each in _as_recorded(blocked)}
    lines = outcome.console.splitlines()
    for fault in _told(lines):
        if fault.source is None or fault.reason is None or fault.target is None:
            continue
        interrupt = fault.kind is RequestKind.INTERRUPT
        target = 0 if interrupt else fault.target & ~0xFFF
        wanted = Blocked(fault.source.source_id, target, fault.reason, interrupt)
        line = _TIME.sub("", lines[fault.line - 1])
        yield FaultLine(line, wanted if wanted in known else None)


def _told(lines: list[str]) -> Iterator[LoggedFault]:
    """The faults that lines tell of: Linux has one line for each, Xen two."""
    pairing = Pairing()
    for number, line in enumerate(lines, 1):
        if "Request device" not in line and "reason" not in line:
            continue
        reading = read_fault(line, number)
        if reading is None or reading.fault is None:
            continue
        if reading.form.role is Role.WHOLE:
            yield settled(reading.fault)
        elif reading.form.role is Role.BEGINS:
            pairing.begin(reading.fault)
        else:
            yield from pairing.complete(reading.fault)


def _as_recorded(blocked: Blocked) -> Iterator[Blocked]:
    """What the record may hold: FI has no bits above the largest AGAW (11.4.7.6)."""
    for width in (39, 48, 57, 64):
        yield blocked._replace(target=blocked.target & (1 << width) - 1)


def findings(outcome: Outcome, most: int | None = MOST) -> Iterator[str]:
    """What is wrong, a line each, ``most`` of a kind; nothing if the boot went as it has to."""
    if not outcome.ended:
        words = f": {outcome.why}" if outcome.why else ""
        yield f"the guest did not come to its end{words}"
    for verdict in outcome.verdicts:
        if verdict.state == "FAILED":
            yield f"check {verdict.name}: {verdict.why}"
    if "(XEN) " in outcome.console and xen.WORKING not in outcome.console:
        yield "Xen does not use the units"
    yield from _first(iter(outcome.audited), most)
    yield from _first(_warnings(outcome), most)
    yield from _first(_unprovoked(outcome), most)
    yield from _first(_fault_reports(outcome), most)


def _first(lines: Iterator[str], most: int | None) -> Iterator[str]:
    told: dict[str, None] = dict.fromkeys(lines)
    yield from list(told)[:most]
    if most is not None and len(told) > most:
        yield f"and {len(told) - most} more like these"


def _warnings(outcome: Outcome) -> Iterator[str]:
    for line in outcome.console.splitlines():
        if _WARNING.search(line) and not (_PROVOKED in line or _crashed_on_purpose(outcome, line)):
            yield f"kernel: {_TIME.sub('', line)}"


def _crashed_on_purpose(outcome: Outcome, line: str) -> bool:
    return _PROVOKED in outcome.console and "Kernel panic" in line


def _unprovoked(outcome: Outcome) -> Iterator[str]:
    for source_id, target, reason, interrupt in outcome.blocked:
        if outcome.devices.get(source_id) not in PROVOKING:
            what = "interrupt" if interrupt else "address"
            yield f"fault {reason:02X}h of {SourceId(source_id)}, {what} {target:#x}"


def _fault_reports(outcome: Outcome) -> Iterator[str]:
    reported = 0
    for line, recorded in fault_lines(outcome):
        reported += 1
        if recorded is None:
            yield f"the unit did not block what the kernel reports: {line}"
    if not reported and any(verdict.name in PROVOKE for verdict in outcome.verdicts):
        yield "the kernel reports none of the faults that the checks provoked"
