"""Findings as JSON, JSON lines, SARIF 2.1.0 and JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from vtd.dmar.rules import RULES, Finding, Severity

SARIF_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class FileFindings(NamedTuple):
    """What was found in one table."""

    file: str
    """Name of the file, with the number of the table if the file has several."""
    findings: list[Finding]


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
        {"file": file, "findings": [finding_object(each) for each in findings]}
        for file, findings in results
    ]
    return json.dumps(objects, indent=1)


def to_jsonl(results: Iterable[FileFindings]) -> str:
    """One JSON object per finding and line, with its file."""
    return "\n".join(
        json.dumps({"file": file, **finding_object(each)})
        for file, findings in results
        for each in findings
    )


def to_sarif(results: Iterable[FileFindings]) -> str:
    """A SARIF 2.1.0 log; regions are byte offsets into the table."""
    order = {id: index for index, id in enumerate(RULES)}
    driver = {
        "name": "vtd dmar",
        "rules": [
            {
                "id": rule.id,
                "shortDescription": {"text": rule.title},
                "fullDescription": {"text": rule.meaning},
                "defaultConfiguration": {"level": SARIF_LEVELS[rule.severity]},
            }
            for rule in RULES.values()
        ],
    }
    found = [
        {
            "ruleId": each.rule,
            "ruleIndex": order[each.rule],
            "level": SARIF_LEVELS[each.severity],
            "message": {"text": each.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": quote(file, errors="surrogateescape")},
                        "region": {"byteOffset": each.offset, "byteLength": each.length},
                    }
                }
            ],
        }
        for file, findings in results
        for each in findings
    ]
    run = {"tool": {"driver": driver}, "results": found}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def to_junit(results: Iterable[FileFindings], fail_on: Severity) -> str:
    """A JUnit report: a suite per table, a case per finding; those below ``fail_on`` pass."""
    root = ElementTree.Element("testsuites", name="vtd dmar")
    for file, findings in results:
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
