"""What the audits of a live machine hold against its software and units, when it has gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vtd.auditing.debt import Debt, Kind
from vtd.auditing.log_report import LogReport
from vtd.auditing.unit_audit import AuditFinding, audits_of
from vtd.live.invalidated_interrupts import InvalidatedInterrupts
from vtd.severity import ERROR
from vtd.unit.unit import RemappingUnit


class Blame(NamedTuple):
    """What was found."""

    found: list[str]
    uses: int
    """Uses of cached entries that were checked."""
    window: int
    """Uses between a change and the invalidation that followed, which are legal."""


class LiveAudit:
    """Audits of all units of a machine, from now on; ``writer`` names who stores a word."""

    def __init__(self, units: Sequence[RemappingUnit], writer: Callable[[], object]) -> None:
        self._audits = audits_of(units, writer)
        self._interrupts = [InvalidatedInterrupts(unit) for unit in units]

    def blame(self) -> Blame:
        """What is held against anybody if the machine has gone now."""
        report = LogReport("live")
        for each in self._audits:
            report.add(each)
        found = [str(use) for use in _blamed(report)]
        found += [line for each in self._interrupts for line in each.findings]
        return Blame(found, report.uses, len(report.window))


def _blamed(report: LogReport) -> Iterator[AuditFinding]:
    """The errors; that memory is gone with the client is no change of the software's own."""
    for _, use, _ in report.findings:
        gone = isinstance(use, Debt) and use.now is None and use.kind is Kind.WRONG_ORDER
        if use.severity >= ERROR and not gone:
            yield use
