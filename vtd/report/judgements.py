"""The sections about what was replayed, audited or planned."""

from __future__ import annotations

import json
from typing import Any

from vtd.auditing.log_report import LogReport
from vtd.host.plan_picture import plan_svg
from vtd.host.plan_rows import plan_row
from vtd.host.planner import Judgement, Nearest
from vtd.host.rules import Kind
from vtd.host.surroundings import Surroundings
from vtd.pictures.canvas import Tone
from vtd.pictures.timeline import Lane, Mark
from vtd.plain import plain
from vtd.recordings.replay import Report
from vtd.report.section import TONES, Section, command, counted, worst
from vtd.severity import Severity

MOST_FINDINGS = 500
"""Findings that are listed; more are counted."""
SEVERITIES = {str(each): each for each in Severity}


def audit_section(name: str, report: LogReport) -> Section:
    """What an audit of a log found."""
    row: dict[str, Any] = plain(report.to_json())
    findings = [{**each, "tone": TONES[SEVERITIES[each["severity"]]]} for each in row["findings"]]
    marks = [Mark(each["line"], each["line"], each["text"], each["tone"]) for each in findings]
    return Section(
        "audit",
        "Audit",
        name,
        f"{row['kind']}, {counted(row['lines'], 'line')}: "
        f"{counted(len(findings), 'finding')}, {counted(row['invalidations'], 'invalidation')}",
        worst([each["tone"] for each in findings]),
        {
            **{key: row[key] for key in row if key not in ("findings", "window")},
            "findings": findings[:MOST_FINDINGS],
            "more_findings": max(0, len(findings) - MOST_FINDINGS),
            "window": len(row["window"]),
        },
        (command("audit", name),),
        Lane(name, row["lines"], tuple(marks)),
    )


def replay_section(name: str, report: Report) -> Section:
    """What the replay of a recording found."""
    row: dict[str, Any] = plain(report.to_json())
    mismatches = [
        {
            "at": each[report.counted_by],
            "op": each["op"],
            "expect": json.dumps(each["expect"]),
            "got": json.dumps(each["got"]),
        }
        for each in row["mismatches"]
    ]
    return Section(
        "replay",
        "Replay",
        name,
        f"{row['passed']} of {counted(row['steps'], 'step')} as recorded, "
        f"{counted(len(mismatches), 'mismatch', 'mismatches')}",
        Tone.BAD if mismatches else Tone.GOOD,
        {
            **row,
            "counted_by": report.counted_by,
            "mismatches": mismatches[:MOST_FINDINGS],
            "more_mismatches": max(0, len(mismatches) - MOST_FINDINGS),
        },
        (command("replay", name),),
    )


def plan_section(
    name: str, judgement: Judgement, better: Nearest | None, around: Surroundings
) -> Section:
    """What of a passthrough plan works."""
    row: dict[str, Any] = plain(plan_row(judgement, better, around))
    tones = {
        Kind.CONTRADICTION: Tone.BAD,
        Kind.REFUSED: Tone.BAD,
        Kind.UNKNOWN: Tone.WARN,
        Kind.NOTE: Tone.NOTE,
    }
    verdicts = [{**each, "tone": tones[Kind(each["kind"])]} for each in row["verdicts"]]
    text = "works" if row["works"] else "does not work"
    if row["works"] and row["undecided"]:
        text = "works, as far as is known"
    return Section(
        "plan",
        "Passthrough plan",
        name,
        f"{text}: {counted(len(row['devices']), 'device')}, {counted(len(verdicts), 'verdict')}",
        Tone.BAD if not row["works"] else Tone.WARN if row["undecided"] else Tone.GOOD,
        {**row, "verdicts": verdicts, "picture": plan_svg(judgement, better, around, inline=True)},
        (command("passthrough", "plan", name),),
    )
