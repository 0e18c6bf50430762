"""Audit of a recording of live units: the stale uses that its lines show.

What software changed without a unit reading it again is not in a recording, so stale uses are also
inferred from invalidations that fit no range (:mod:`vtd.auditing.aligned_down`).
"""

from __future__ import annotations

from collections.abc import Iterator

from vtd.auditing.aligned_down import AlignedDown
from vtd.auditing.audit import Audit
from vtd.auditing.audit_log import Finding, LogReport
from vtd.auditing.stale_use import StaleUse
from vtd.recordings.live import Known, read_head, read_lines
from vtd.recordings.replay_live import LiveRun
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy


def audit_live(lines: Iterator[tuple[int, str]], policy: CachePolicy = AGGRESSIVE) -> LogReport:
    """Audit the numbered lines of a recording; ScenarioError names the line that is none.

    ``policy`` is what the units cache, whatever the recorded ones did.
    """
    head = read_head(lines)
    run = LiveRun(head, caches=policy)
    report = LogReport("live recording", 1)
    found: list[StaleUse] = []
    audits = [Audit(unit, found.append) for unit in run.units]
    for unit in run.units:
        AlignedDown(unit, found.append)
    seen = set()
    for number, line in read_lines(lines, head):
        if isinstance(line, Known):
            for audit in audits:
                audit.wrote(line.address, line.size, f"line {number}")
        for _ in run.carry_out(line):
            pass
        for use in found:
            entry = use.cache, use.owner, use.changed
            if entry not in seen:
                seen.add(entry)
                report.findings.append(Finding(number, use))
        found.clear()
        report.lines = number
    report.uses = sum(audit.uses for audit in audits)
    return report
