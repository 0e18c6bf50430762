"""Findings as JSON, JSON lines, SARIF 2.1.0 and JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vtd import ruling
from vtd.dmar.protection import Statement, Verdict
from vtd.dmar.records import Place
from vtd.dmar.rules import RULES, Finding
from vtd.ruling import finding_object, location, sarif_log, to_json, to_jsonl
from vtd.severity import Severity

__all__ = [
    "FileFindings",
    "finding_object",
    "statements_to_sarif",
    "to_json",
    "to_jsonl",
    "to_sarif",
    "unreadable",
]


class FileFindings(NamedTuple):
    """What was found in one table."""

    file: str
    """Name of the file, with the number of the table if the file has several."""
    findings: list[Finding]
    unreadable: bool = False
    """Whether the one finding is that the file can't be judged."""
    known: int = 0
    """How many findings a baseline has, which are left out here."""


UNREADABLE = "unreadable"
"""What stands in place of a rule in the finding about a file that can't be judged."""


def unreadable(file: str, reason: str) -> FileFindings:
    """The result for a file that can't be judged."""
    finding = Finding(0, UNREADABLE, Severity.ERROR, reason, 0)
    return FileFindings(file, [finding], unreadable=True)


def statements_to_sarif(file: str, statements: Iterable[Statement]) -> str:
    """What an audit says of a table as a SARIF 2.1.0 log, one result for each statement."""
    levels = {Verdict.BAD: "error", Verdict.OPEN: "note", Verdict.GOOD: "none"}
    kinds = {Verdict.BAD: "fail", Verdict.OPEN: "open", Verdict.GOOD: "pass"}
    listed = list(statements)
    topics = list(dict.fromkeys(each.topic for each in listed))
    rules = [{"id": topic, "shortDescription": {"text": topic}} for topic in topics]
    found = [
        {
            "ruleId": each.topic,
            "ruleIndex": topics.index(each.topic),
            "kind": kinds[each.verdict],
            "level": levels[each.verdict] if each.verdict is Verdict.BAD else "none",
            "message": {"text": each.text},
            "locations": [location(file, _region(each.place or Place(0, 0)))],
        }
        for each in listed
    ]
    return sarif_log("vtd dmar audit", rules, found)


def to_sarif(results: Iterable[FileFindings]) -> str:
    """A SARIF 2.1.0 log; regions are byte offsets into the table."""
    return ruling.to_sarif("vtd dmar", RULES, results)


def _region(place: Place) -> dict[str, int]:
    return {"byteOffset": place.offset, "byteLength": place.length}
