"""What the audits of a live machine hold against its software, when it has gone."""

from __future__ import annotations

from collections.abc import Iterator

from vtd.auditing.audit_log import LogReport
from vtd.auditing.debt import Debt, Kind
from vtd.auditing.unit_audit import AuditFinding
from vtd.severity import ERROR


def blamed(report: LogReport) -> Iterator[AuditFinding]:
    """The errors; that memory is gone with the client is no change of the software's own."""
    for _, use, _ in report.findings:
        gone = isinstance(use, Debt) and use.now is None and use.kind is Kind.WRONG_ORDER
        if use.severity >= ERROR and not gone:
            yield use
