"""Every form of every answer: JSON lines are the rows of the document, addresses are strings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import CAPTURES, VECTORS
from vtd.cli import main

LEGACY = str(CAPTURES / "legacy48-strict")
FIRST_STAGE = str(CAPTURES / "sm-first-stage")
TABLE = f"{LEGACY}/DMAR.bin"
MACHINE = str(Path(__file__).parents[3] / "examples" / "machines" / "server.toml")
PLAN = str(Path(MACHINE).parents[1] / "plans" / "server.toml")
ADDRESSES = frozenset(
    {
        *("address", "host", "physical", "iova", "base", "limit", "guest", "descriptor", "unit"),
        *("entry", "entry_address", "was", "now", "cap", "ecap", "fault_record"),
        *("lctp", "uctp", "ctp", "ssptptr", "fsptptr", "hptptr", "pasiddirptr", "smptblptr"),
        *("addr", "pdal", "pdah"),
    }
)
"""Names of fields that hold an address, a register or a raw entry."""
STALE_TRACE = """\
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x80003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x80000 mask 0xfff
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x90003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x90000 mask 0xfff
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code in (0, 1), result.output
    return result.stdout


ANSWERS: list[tuple[list[str], str | None]] = [
    (["demo"], "transfers"),
    (["demo", "connectivity"], "actors"),
    (["demo", "guest"], "scenes"),
    (["mappings", LEGACY], "sources"),
    (["walk", FIRST_STAGE, "--device", "00:01.0", "0xffef6000"], None),
    (["walk", FIRST_STAGE, "--device", "00:01.0", "0x0", "--ats"], None),
    (["irte", LEGACY], "entries"),
    (["msi", "0xfee00000", "0x31"], None),
    (["msi", "0xfee00010", "0x0", LEGACY], None),
    (["caps", "0x80d2008c222f0606", "0xf00f4a", "0x80d2008c222f0606", "0xf00f4a"], "units"),
    (["replay", "--trace", str(VECTORS / "legacy_3level_4k.json.gz")], "files"),
    (["dmar", "rules"], ""),
    (["dmar", "show", TABLE], None),
    (["dmar", "scope", TABLE, "00:02.0"], None),
    (["dmar", "diff", TABLE, f"{FIRST_STAGE}/DMAR.bin"], ""),
    (["dmar", "rmrr", TABLE], ""),
    (["dmar", "audit", TABLE], ""),
    (["passthrough", "plan", PLAN], "verdicts"),
    (["passthrough", "run", PLAN], "devices"),
    (["machine", "check", MACHINE], ""),
    (["machine", "show", MACHINE], "functions"),
]
"""Arguments, and the name of the rows in the document: empty if it is the rows, None if the row."""


@pytest.mark.parametrize(("arguments", "rows"), ANSWERS, ids=lambda each: str(each)[:40])
def test_json_lines_are_the_rows_of_the_document(arguments: list[str], rows: str | None) -> None:
    document = json.loads(run(*arguments, "--format", "json"))
    lines = [json.loads(line) for line in run(*arguments, "--format", "jsonl").splitlines()]
    if rows is None:
        assert lines == [document]
    else:
        assert lines == (document[rows] if rows else document)


def named(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All values in a document with their names."""
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from named(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from named(each, name)
    else:
        yield name, value


@pytest.mark.parametrize(
    "arguments",
    [each for each, _ in ANSWERS if each[:2] != ["dmar", "show"]],
    ids=lambda each: str(each)[:40],
)
def test_addresses_are_hexadecimal_strings(arguments: list[str]) -> None:
    document = json.loads(run(*arguments, "--format", "json"))
    for name, value in named(document):
        if name in ADDRESSES and value is not None and not isinstance(value, bool):
            assert isinstance(value, str), (name, value)


def test_the_address_fields_of_entries_are_hexadecimal_and_the_others_numbers() -> None:
    arguments = ["walk", FIRST_STAGE, "--device", "00:01.0", "0xffef6000", "--format", "json"]
    walk = json.loads(run(*arguments))
    root, context, directory, pasid = (each["fields"] for each in walk["structures"])
    assert (root["lctp"], root["lp"]) == ("0x29b4000", 1)
    assert (context["pasiddirptr"], context["pdts"]) == ("0x29b6000", 2)
    assert directory["smptblptr"] == "0x29c9000"
    assert (pasid["fsptptr"], pasid["did"]) == ("0x29c8000", 3)
    assert walk["steps"][-1]["fields"]["addr"] == "0x3460000"
    assert (walk["sid"], walk["page_size"], walk["domain_id"]) == (8, 4096, 3)


def test_a_stale_use_is_a_line_with_hexadecimal_words(tmp_path: Path) -> None:
    log = tmp_path / "trace.txt"
    log.write_text(STALE_TRACE)
    (line,) = run("audit", str(log), "--format", "jsonl").splitlines()
    finding = json.loads(line)
    assert finding["file"] == str(log)
    assert (finding["was"], finding["now"]) == ("0x80003", "0x90003")
    (file,) = json.loads(run("audit", str(log), "--format", "json"))
    assert file["findings"] == [{name: finding[name] for name in finding if name != "file"}]


def test_faults_and_messages_of_a_log_are_a_line_each() -> None:
    log = str(CAPTURES / "edu-faults-legacy48" / "dmesg-iommu.txt")
    document = json.loads(run("explain", log, "--format", "json"))
    lines = [json.loads(line) for line in run("explain", log, "--format", "jsonl").splitlines()]
    assert lines == document["faults"] + document["messages"]
    assert lines
