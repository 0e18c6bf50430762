"""What every set of rules has in common: a rule's text, its findings, and their forms.

JSON, JSON lines, SARIF 2.1.0 and JUnit XML, whatever the rules are about: DMAR tables, or
structures and register accesses of a unit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote
from xml.etree import ElementTree

from vtd.severity import Severity

SARIF_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True)
class RuleText:
    """What there is to say about a rule."""

    id: str
    severity: Severity
    title: str
    """The rule itself, as a statement that is fulfilled where nothing is wrong."""
    section: str
    """Section of the specification, empty if it is none of its rules."""
    meaning: str
    """What is at stake."""


class RatedFinding(Protocol):
    """One place where one rule is broken."""

    @property
    def rule(self) -> str: ...

    @property
    def severity(self) -> Severity: ...

    @property
    def message(self) -> str: ...

    @property
    def where(self) -> str:
        """The place, as a line of text names it."""
        ...

    @property
    def place(self) -> dict[str, Any]:
        """The place as a JSON object."""
        ...

    @property
    def region(self) -> dict[str, int]:
        """The place as a SARIF region."""
        ...


F = TypeVar("F", bound=RatedFinding)


class Findings(list[F]):
    """Findings in order; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        from vtd.pictures.markup import html_table  # noqa: PLC0415 - only notebooks need it

        rows: list[list[object]] = [
            [each.where, each.severity, each.rule, each.message] for each in self
        ]
        caption = f"{len(self)} finding{'s' * (len(self) != 1)}"
        return html_table(caption, ["Where", "Severity", "Rule", "Message"], rows)


class Found(Protocol):
    """What was found in one file."""

    @property
    def file(self) -> str: ...

    @property
    def findings(self) -> Iterable[RatedFinding]: ...


def finding_object(finding: RatedFinding) -> dict[str, Any]:
    """The JSON object of a finding."""
    return {
        "rule": finding.rule,
        "severity": str(finding.severity),
        **finding.place,
        "message": finding.message,
    }


def to_json(results: Iterable[Found]) -> str:
    """A list with one object per file: its name, and its findings."""
    objects = [
        {"file": result.file, "findings": [finding_object(each) for each in result.findings]}
        for result in results
    ]
    return json.dumps(objects, indent=1)


def to_jsonl(results: Iterable[Found]) -> str:
    """One JSON object per finding and line, with its file."""
    return "\n".join(
        json.dumps({"file": result.file, **finding_object(each)})
        for result in results
        for each in result.findings
    )


def to_sarif(name: str, rules: Mapping[str, RuleText], results: Iterable[Found]) -> str:
    """A SARIF 2.1.0 log of the tool ``name``."""
    order = {id: index for index, id in enumerate(rules)}
    described = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.meaning},
            "defaultConfiguration": {"level": SARIF_LEVELS[rule.severity]},
        }
        for rule in rules.values()
    ]
    found = [
        {
            "ruleId": each.rule,
            "ruleIndex": order.get(each.rule, -1),
            "level": SARIF_LEVELS[each.severity],
            "message": {"text": each.message},
            "locations": [location(result.file, each.region)],
        }
        for result in results
        for each in result.findings
    ]
    return sarif_log(name, described, found)


def location(file: str, region: Mapping[str, int]) -> dict[str, Any]:
    """Where in a file something is, for SARIF."""
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(file, errors="surrogateescape")},
            "region": dict(region),
        }
    }


def sarif_log(name: str, rules: list[dict[str, Any]], results: list[dict[str, Any]]) -> str:
    """A SARIF 2.1.0 log with one run."""
    run = {"tool": {"driver": {"name": name, "rules": rules}}, "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def to_junit(name: str, results: Iterable[Found], fail_on: Severity) -> str:
    """A JUnit report: a suite per file, a case per finding; those below ``fail_on`` pass."""
    root = ElementTree.Element("testsuites", name=name)
    for result in results:
        file, findings = _xml(result.file), list(result.findings)
        failures = sum(each.severity >= fail_on for each in findings)
        suite = ElementTree.SubElement(root, "testsuite", name=file)
        suite.set("tests", str(max(1, len(findings))))
        suite.set("failures", str(failures))
        if not findings:
            ElementTree.SubElement(suite, "testcase", classname=file, name="no findings")
        for each in findings:
            title = f"{each.rule} at {each.where}"
            case = ElementTree.SubElement(suite, "testcase", classname=file, name=title)
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
