"""The coverage gate: each package by itself has to reach both limits."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.coverage_gate import main, percentages


def summary(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, Any]:
    """One file of a coverage report; each pair is (covered, all)."""
    return {
        "summary": {
            "covered_lines": lines[0],
            "num_statements": lines[1],
            "covered_branches": branches[0],
            "num_branches": branches[1],
        }
    }


FULL = summary((10, 10), (4, 4))


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, dict[str, Any]]) -> int:
    """Run the gate on a report with these files; its exit status."""
    report = folder / "coverage.json"
    report.write_text(json.dumps({"files": files}))
    monkeypatch.setattr("sys.argv", ["coverage_gate.py", str(report)])
    return main()


def test_a_package_is_the_sum_of_its_files() -> None:
    report = {
        "files": {
            "vtd/unit/unit.py": summary((9, 10), (1, 4)),
            "vtd/dmar/rules.py": summary((29, 30), (4, 4)),
            "devices/dma.py": summary((0, 10), (0, 4)),
        }
    }
    assert percentages(report, "vtd") == {"line": 95.0, "branch": 62.5}


def test_code_without_branches_is_fully_covered() -> None:
    report = {"files": {"vtd/unit/unit.py": summary((1, 1), (0, 0))}}
    assert percentages(report, "vtd")["branch"] == 100.0


def test_full_coverage_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path, {"vtd/unit/unit.py": FULL, "pagetables/walk.py": FULL}) == 0


@pytest.mark.parametrize("package", ["vtd", "pagetables"])
@pytest.mark.parametrize("kind", ["line", "branch"])
def test_one_figure_below_its_limit_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, kind: str
) -> None:
    low = {
        "line": summary((979, 1000), (100, 100)),
        "branch": summary((100, 100), (949, 1000)),
    }[kind]
    files = {"vtd/unit/unit.py": FULL, "pagetables/walk.py": FULL} | {f"{package}/unit.py": low}
    assert run(monkeypatch, tmp_path, files) == 1


def test_the_engine_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rest = summary((100_000, 100_000), (100_000, 100_000))
    for covered, status in ((969, 1), (970, 0)):
        files = {"vtd/unit/unit.py": summary((100, 100), (covered, 1000)), "vtd/cli.py": rest}
        assert run(monkeypatch, tmp_path, files) == status


def test_what_is_too_low_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = summary((979, 1000), (100, 100))
    run(monkeypatch, tmp_path, {"vtd/unit/unit.py": FULL, "pagetables/walk.py": low})
    assert capsys.readouterr().err == (
        "too low: pagetables: line coverage 97.90 % (at least 98 %)\n"
    )
