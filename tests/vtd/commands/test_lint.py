"""``vtd lint``: captures and logs in every form, and wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import capture_folders, name_of
from vtd.auditing.lint import lint_log
from vtd.cli import main


@pytest.mark.parametrize("path", capture_folders(), ids=name_of)
def test_captures_are_sound(path: Path) -> None:
    result = CliRunner().invoke(main, ["lint", str(path)])
    assert (result.exit_code, "nothing found" in result.output) == (0, True)


LOG = [
    {
        "unit": {"version": "0x10", "cap": "0x80d2008c222f0606", "ecap": "0xf00f4a",
                 "host_address_width": 48},
        "memory": [["0x0", "0x100000"]], "devices": {"nic": {"source_id": "0x10"}},
    },
    {"op": "mem_write", "addr": "0x1000", "hex": "0120000000000000"},
    {"op": "mem_write", "addr": "0x2100", "hex": "01000100000000000207000000000000"},
    {"op": "reg_write", "offset": "0x20", "size": 8, "value": "0x1000"},
    {"op": "reg_write", "offset": "0x18", "size": 4, "value": "0xc0000000"},
]  # fmt: skip


def test_a_log_is_linted_by_lines_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, LOG)))
    (one,) = lint_log(path.read_text().splitlines())
    assert (one.rule, one.line) == ("VTD-P01", 5)
    for form, text in (
        ("text", f"{path}: line 5 error   VTD-P01"),
        ("json", '"line": 5'),
        ("jsonl", '"rule": "VTD-P01"'),
        ("sarif", '"startLine": 5'),
        ("junit", 'name="VTD-P01 at line 5"'),
    ):
        result = CliRunner().invoke(main, ["lint", "--format", form, str(path)])
        assert (result.exit_code, text in result.output) == (1, True), result.output
    result = CliRunner().invoke(main, ["lint", "--ignore", "P", str(path)])
    assert (result.exit_code, "nothing found" in result.output) == (0, True)


def test_rules_are_explained_and_wrong_use_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["lint", "--explain", "D01"])
    assert "6.2.2.1" in result.output
    assert CliRunner().invoke(main, ["lint", "--select", "X9", "a"]).exit_code == 2
    assert CliRunner().invoke(main, ["lint"]).exit_code == 2
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert CliRunner().invoke(main, ["lint", str(empty)]).exit_code == 2
