"""The examples of the documentation page work as printed."""

import re
from pathlib import Path

import pytest

from vtd.dmar import Severity, check
from vtd.dmar.description import build

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "dmar.md").read_text()


def example(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def test_the_toml_example_is_a_sound_table() -> None:
    assert [each for each in check(build(example("toml"))) if each.severity > Severity.INFO] == []


def test_the_library_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "DMAR").write_bytes(build(example("toml")).pack() + b"\0")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example("python"), names)
    assert capsys.readouterr().out == "DMAR-H04 info 136 bytes after the end of the table: 1\n"
    assert "EXPLICIT" in repr(names["owner"])
