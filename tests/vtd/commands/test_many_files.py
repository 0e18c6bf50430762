"""Folders, unreadable files, configuration and baselines of ``vtd dmar validate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.dmar_corpus import clean_tables, malformed_tables
from vtd.cli import main

GOOD = next(each for each in clean_tables() if each.id.endswith("synthetic-multiseg2")).data
BROKEN = next(each for each in malformed_tables() if "m060" in each.id).data
FACP = b"FACP" + (40).to_bytes(4, "little") + bytes(32)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["dmar", "validate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tables" / "inner").mkdir(parents=True)
    (tmp_path / "tables" / "good.bin").write_bytes(GOOD)
    (tmp_path / "tables" / "inner" / "broken.bin").write_bytes(BROKEN)
    (tmp_path / "tables" / "facp.bin").write_bytes(FACP)
    return tmp_path


def test_a_folder_is_judged_file_by_file_and_other_acpi_tables_are_passed_over(
    folder: Path,
) -> None:
    result = run(str(folder / "tables"), "--format", "json")
    assert result.exit_code == 1
    files = {each["file"]: each["findings"] for each in json.loads(result.stdout)}
    assert {Path(name).name for name in files} == {"good.bin", "broken.bin"}
    assert not files[f"{folder}/tables/good.bin"]


@pytest.mark.parametrize("format", ["text", "json", "jsonl", "sarif", "junit"])
def test_an_unreadable_file_is_a_finding_and_the_others_are_judged(
    folder: Path, format: str
) -> None:
    (folder / "empty.bin").write_bytes(b"")
    files = [str(folder / "empty.bin"), str(folder / "absent"), str(folder / "tables")]
    result = run(*files, "--format", format)
    assert result.exit_code == 2
    assert result.stdout.count("unreadable") >= 2
    assert "DMAR-U01" in result.stdout
    assert "empty.bin: empty" in result.stderr
    assert "absent: No such file or directory" in result.stderr


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
def test_a_device_without_end_is_too_large(device: str) -> None:
    result = run(device)
    assert result.exit_code == 2
    assert "more than 64 MiB" in result.stderr


def test_a_folder_without_tables_says_so(tmp_path: Path) -> None:
    (tmp_path / "facp.bin").write_bytes(FACP)
    assert "no DMAR table in it" in run(str(tmp_path)).stderr


def test_configuration_holds_for_the_paths_it_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert run("tables").exit_code == 1
    (folder / "vtd.toml").write_text('[[path]]\nmatch = "tables/inner/*"\nignore = ["U01"]\n')
    assert run("tables").exit_code == 0
    assert run("tables", "--ignore", "H").exit_code == 1  # the option comes first
    (folder / "vtd.toml").write_text('[tool.vtd]\nselect = ["H"]\n')  # as the page shows it
    assert run("tables").exit_code == 0
    (folder / "vtd.toml").unlink()
    (folder / "pyproject.toml").write_text('[tool.vtd]\nselect = ["H"]\n')
    assert run("tables").exit_code == 0
    (folder / "strict.toml").write_text('fail-on = "info"\n')
    good = str(folder / "tables" / "good.bin")
    assert run(good, "--config", "strict.toml").exit_code == int(
        "info" in run(good, "--config", "strict.toml").stdout
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("select = 1", "select has a value of the wrong kind"),
        ("[[path]]\nignore = []", "path has a value of the wrong kind"),
        ('select = ["Q"]', "is the beginning of no rule id"),
        ('fail-on = "much"', "'much'"),
        ("select = [", "strict.toml: "),
    ],
)
def test_a_wrong_configuration_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "strict.toml").write_text(text)
    result = run(str(folder / "tables"), "--config", str(folder / "strict.toml"))
    assert result.exit_code == 2
    assert message in result.stderr


def test_known_findings_are_left_out(folder: Path) -> None:
    known, tables = folder / "known.json", str(folder / "tables")
    known.write_text(run(tables, "--format", "json").stdout)
    result = run(tables, "--baseline", str(known))
    assert result.exit_code == 0
    assert "nothing found, 1 known" in result.stdout
    (folder / "tables" / "other.bin").write_bytes(BROKEN)
    assert run(tables, "--baseline", str(known)).exit_code == 1
    known.write_text("[1]")
    assert "no report of vtd dmar validate" in run(tables, "--baseline", str(known)).stderr
    known.write_text("[1")
    assert "no report in JSON" in run(tables, "--baseline", str(known)).stderr
