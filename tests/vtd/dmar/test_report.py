"""Reports of findings: JSON, JSON lines, SARIF and JUnit, valid whatever the file is called."""

import json
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import malformed_tables
from vtd import ruling
from vtd.dmar.report import FileFindings, to_json, to_jsonl, to_sarif
from vtd.dmar.rules import RULES, Severity, validate

RESULTS = [FileFindings(each.id, validate(each.data)) for each in malformed_tables()]


def test_json_is_a_list_of_files_with_their_findings() -> None:
    objects = json.loads(to_json(RESULTS))
    assert [each["file"] for each in objects] == [each.file for each in RESULTS]
    for known, (_, findings, *_) in zip(objects, RESULTS, strict=True):
        assert set(known) == {"file", "findings"}
        assert len(known["findings"]) == len(findings)
        for each in known["findings"]:
            assert set(each) == {"rule", "severity", "offset", "message"}
            assert each["severity"] in ("error", "warning", "info")
            assert type(each["offset"]) is int


def test_json_lines_have_one_finding_each() -> None:
    lines = [json.loads(line) for line in to_jsonl(RESULTS).splitlines()]
    assert len(lines) == sum(len(each.findings) for each in RESULTS)
    assert set(lines[0]) == {"file", "rule", "severity", "offset", "message"}


def test_sarif_has_what_version_2_1_0_demands() -> None:
    log = json.loads(to_sarif(RESULTS))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        region = result["locations"][0]["physicalLocation"]["region"]
        assert region["byteOffset"] >= 0
        assert region["byteLength"] >= 0


@given(st.text(max_size=30))
def test_file_names_survive_in_every_format(file: str) -> None:
    results = [FileFindings(file, RESULTS[0].findings)]
    assert json.loads(to_json(results))[0]["file"] == file
    location = json.loads(to_sarif(results))["runs"][0]["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"].isascii()
    ElementTree.fromstring(ruling.to_junit("vtd dmar", results, Severity.ERROR))


def test_junit_counts_what_reaches_the_level() -> None:
    for level in Severity:
        root = ElementTree.fromstring(ruling.to_junit("vtd dmar", RESULTS, level))
        for suite, (_, findings, *_) in zip(root, RESULTS, strict=True):
            reaching = sum(each.severity >= level for each in findings)
            assert suite.get("failures") == str(reaching)
            assert len(suite.findall("testcase/failure")) == reaching


def test_junit_has_a_case_for_a_table_without_findings() -> None:
    root = ElementTree.fromstring(
        ruling.to_junit("vtd dmar", [FileFindings("table", [])], Severity.ERROR)
    )
    assert [case.get("name") for case in root.iter("testcase")] == ["no findings"]
