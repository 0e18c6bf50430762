"""Findings as JSON, JSON lines, SARIF 2.1.0 and JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from vtd.dmar.protection import Statement, Verdict
from vtd.dmar.records import Place
from vtd.dmar.rules import RULES, Finding
from vtd.severity import Severity

SARIF_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


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
            "locations": [_location(file, each.place or Place(0, 0))],
        }
        for each in listed
    ]
    return _sarif_log("vtd dmar audit", rules, found)


def finding_object(finding: Finding) -> dict[str, Any]:
    """The JSON object of a finding."""
    return {
        "rule": finding.rule,
        "severity": str(finding.severity),
        "offset": finding.offset,
        "message": finding.message,
    }


def to_json(results: Iterable[FileFindings]) -> str:
    """A list with one object per table: its file, and its findings."""
    objects = [
        {"file": result.file, "findings": [finding_object(each) for each in result.findings]}
        for result in results
    ]
    return json.dumps(objects, indent=1)


def to_jsonl(results: Iterable[FileFindings]) -> str:
    """One JSON object per finding and line, with its file."""
    return "\n".join(
        json.dumps({"file": result.file, **finding_object(each)})
        for result in results
        for each in result.findings
    )


def to_sarif(results: Iterable[FileFindings]) -> str:
    """A SARIF 2.1.0 log; regions are byte offsets into the table."""
    order = {id: index for index, id in enumerate(RULES)}
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.meaning},
            "defaultConfiguration": {"level": SARIF_LEVELS[rule.severity]},
        }
        for rule in RULES.values()
    ]
    found = [
        {
            "ruleId": each.rule,
            "ruleIndex": order.get(each.rule, -1),
            "level": SARIF_LEVELS[each.severity],
            "message": {"text": each.message},
            "locations": [_location(result.file, Place(each.offset, each.length))],
        }
        for result in results
        for each in result.findings
    ]
    return _sarif_log("vtd dmar", rules, found)


def _location(file: str, place: Place) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(file, errors="surrogateescape")},
            "region": {"byteOffset": place.offset, "byteLength": place.length},
        }
    }


def _sarif_log(name: str, rules: list[dict[str, Any]], results: list[dict[str, Any]]) -> str:
    run = {"tool": {"driver": {"name": name, "rules": rules}}, "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def to_junit(results: Iterable[FileFindings], fail_on: Severity) -> str:
    """A JUnit report: a suite per table, a case per finding; those below ``fail_on`` pass."""
    root = ElementTree.Element("testsuites", name="vtd dmar")
    for file, findings, *_ in results:
        failures = sum(each.severity >= fail_on for each in findings)
        suite = ElementTree.SubElement(root, "testsuite", name=_xml(file))
        suite.set("tests", str(max(1, len(findings))))
        suite.set("failures", str(failures))
        if not findings:
            ElementTree.SubElement(suite, "testcase", classname=_xml(file), name="no findings")
        for each in findings:
            name = f"{each.rule} at 0x{each.offset:03x}"
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(file), name=name)
            text = f"{each.severity}: {_xml(each.message)}"
            if each.severity >= fail_on:
                ElementTree.SubElement(case, "failure", type=str(each.severity), message=text)
            else:
                ElementTree.SubElement(case, "system-out").text = text
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Text with the characters that XML can't hold written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
