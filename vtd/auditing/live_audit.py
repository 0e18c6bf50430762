"""Audit of a recording of live units: the stale uses that its lines show.

What software changed without a unit reading it again is not in a recording, so stale uses are also
inferred from invalidations that fit no range (:mod:`vtd.auditing.aligned_down`). Left out:
domain-ids of two tables, as the entry that led to the first may have been cleared unseen.
"""

from __future__ import annotations

from collections.abc import Iterator

from vtd.auditing.aligned_down import AlignedDown
from vtd.auditing.debt import Debt, Kind
from vtd.auditing.log_report import Finding, LogReport
from vtd.auditing.unit_audit import audits_of
from vtd.recordings.live import Numbered, Opener, open_live
from vtd.recordings.replay_live import LiveRun
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy


def audit_live(opener: Opener, policy: CachePolicy = AGGRESSIVE) -> LogReport:
    """Audit the lines of a recording; ScenarioError names the line that is none.

    ``policy`` is what the units cache, whatever the recorded ones did.
    """
    with open_live(opener) as (head, lines):
        return _audit(LiveRun(head, caches=policy), lines)


def _audit(run: LiveRun, lines: Iterator[Numbered]) -> LogReport:
    report = LogReport("live recording", 1, wasteful=None)
    inferred: list[Debt] = []
    here = [0]
    audits = audits_of(run.units, lambda: f"line {here[0]}")
    for unit in run.units:
        AlignedDown(unit, inferred.append)
    for number, line in lines:
        here[0] = number
        for audit in audits:
            audit.at(number)
        for _ in run.carry_out(line):
            pass
        report.findings += [Finding(number, debt) for debt in dict.fromkeys(inferred)]
        inferred.clear()
        report.lines = number
    for number, audit in enumerate(audits):
        report.add(audit, number)
    report.findings = [each for each in report.findings if not _unknowable(each)]
    return report


def _unknowable(finding: Finding) -> bool:
    return isinstance(finding.use, Debt) and finding.use.kind is Kind.SHARED_DOMAIN
