"""What public VMX acceptance tests expect, as cases of our own form: all of them hold."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest

from scripts import vmx_expectations
from scripts.vmx_cases import Case, carry_out
from scripts.vmx_expectations import LeftOut, read_line

CASES: dict[str, list[Case]] = defaultdict(list)
for _line in gzip.decompress(
    (Path(__file__).parent / "acceptance_cases.jsonl.gz").read_bytes()
).splitlines():
    _case = json.loads(_line)
    CASES[_case["kind"]].append(_case)


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind not in ("task priority", "eoi")])
def test_every_case_holds(kind: str) -> None:
    failed = [case for case in CASES[kind] if not carry_out(case)]
    assert failed == []


@pytest.mark.parametrize("kind", ["task priority", "eoi"])
def test_some_of_the_long_ones_hold(kind: str) -> None:
    """Each is hundreds of entries; :mod:`test_apic` sweeps all of them in another way."""
    failed = [case for case in CASES[kind][::40] if not carry_out(case)]
    assert failed == []


def test_a_case_that_expects_something_else_fails() -> None:
    opposite = {"passes": [7], "enters": "guest", "guest": "enters", "fails": "passes"}
    for case in CASES["entry"][::20]:
        expect = case["expect"]
        wrong = "passes" if isinstance(expect, list) else opposite[expect]
        assert not carry_out({**case, "expect": wrong}), case


def test_a_line_becomes_a_case() -> None:
    line = "vmx_controls_test\tVPID enabled; VPID value 0: VMX inst error is 7 (actual 7)"
    case = read_line(line)
    assert case["expect"] == [7]
    assert case["fields"]["vpid"] == "0x0"
    assert carry_out(case)


@pytest.mark.parametrize(
    "line",
    [
        "some_test\tanything",
        "vmx_controls_test\tnobody knows: vmlaunch fails",
        "vmx_controls_test\tno outcome",
        "vmx_host_state_area_test\tHOST_RIP 10: vmlaunch succeeds",
        "invvpid_test\tINVVPID with a non-canonical operand raises #GP",
    ],
)
def test_other_lines_are_left_out_with_a_reason(line: str) -> None:
    with pytest.raises(LeftOut):
        read_line(line)


def test_the_script_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "lines"
    lines.write_text(
        "# comment\n"
        "basic\ttest vmptrst\n"
        "vmx_controls_test\tVPID enabled; VPID value 0: vmlaunch succeeds\n"
        "other\tthing\n"
    )
    kept = tmp_path / "cases.gz"
    assert vmx_expectations.main([str(lines), "--cases", str(kept)]) == 1
    shown = capsys.readouterr().out
    assert "failed: vmx_controls_test" in shown
    assert "suite other is not known" in shown
    assert len(gzip.decompress(kept.read_bytes()).splitlines()) == 2
    assert vmx_expectations.main([str(lines), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["suites"]["basic"] == {"lines": 1, "passed": 1}
