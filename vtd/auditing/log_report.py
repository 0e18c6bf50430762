"""What the audit of one log found, and at which lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from vtd.auditing.debt import Debt
from vtd.auditing.unit_audit import AuditFinding, UnitAudit
from vtd.recordings.values import Json
from vtd.severity import WARNING


class Finding(NamedTuple):
    """What was found, at the line where it showed."""

    line: int
    use: AuditFinding
    unit: int = 0
    """The number of the unit, where there are several."""


@dataclass
class LogReport:
    """What the audit of one log found."""

    kind: str = "empty"
    lines: int = 0
    uses: int = 0
    """Uses of cached entries that were checked."""
    findings: list[Finding] = field(default_factory=list)
    window: list[Finding] = field(default_factory=list)
    """Uses between a change and the invalidation that followed, which are legal."""
    descriptors: int = 0
    """Invalidations."""
    wasteful: int | None = 0
    """Those of them that met nothing outdated; None where the log does not show all changes."""

    def add(self, audits: UnitAudit, unit: int = 0) -> None:
        """What the audits of one unit found, in the order of the lines."""
        for line, judgement in audits.judged():
            legal = judgement.severity < WARNING
            (self.window if legal else self.findings).append(Finding(line, judgement, unit))
        self.findings.sort(key=lambda finding: finding.line)
        self.uses += audits.debts.uses + audits.devices.uses
        self.descriptors += audits.debts.descriptors
        if self.wasteful is not None:
            self.wasteful += audits.debts.wasteful

    def to_json(self) -> Json:
        """The report in the form of ``vtd audit --format json``."""
        return {
            "kind": self.kind,
            "lines": self.lines,
            "uses": self.uses,
            "invalidations": self.descriptors,
            "wasteful": self.wasteful,
            "findings": [_row(finding) for finding in self.findings],
            "window": [_row(finding) for finding in self.window],
        }


def _row(finding: Finding) -> dict[str, Json]:
    use = finding.use
    row: dict[str, Json] = {
        "line": finding.line,
        "unit": finding.unit,
        "verdict": use.title,
        "severity": str(use.severity),
        "text": str(use),
    }
    if isinstance(use, Debt):
        row |= {
            "rule": use.rule.name if use.rule else None,
            "cache": use.cache.value,
            "owner": str(use.owner),
            "structure": use.changed.structure.value,
            "address": use.changed.address if use.changed.size else None,
            "was": use.changed.value,
            "now": use.now,
            "writer": use.writer,
            "missing": use.missing,
            "section": use.section,
            "inferred": use.inferred,
        }
    return row
