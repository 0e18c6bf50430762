"""``vtd fuzz`` and ``vtd audit`` from the command line."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import RECORDINGS
from vtd.cli import main
from vtd.fuzz import campaign
from vtd.fuzz.campaign_state import State
from vtd.fuzz.job import CampaignResult, Failure

ROOT = Path(__file__).resolve().parents[3]
CAPTURE = ROOT / "tests" / "captures" / "legacy39-lazy"
STALE_TRACE = """\
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x80003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x80000 mask 0xfff
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x90003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x90000 mask 0xfff
"""


def vtd(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_a_capture_has_no_stale_uses() -> None:
    code, output, _ = vtd("audit", str(CAPTURE))
    assert code == 0
    assert "0 findings" in output


def test_a_stale_use_is_told_with_its_line(tmp_path: Path) -> None:
    log = tmp_path / "trace.txt"
    log.write_text(STALE_TRACE)
    code, output, _ = vtd("audit", str(log))
    assert code == 1
    assert f"{log}:4: IOTLB entry" in output
    code, output, _ = vtd("audit", "--format", "json", str(log))
    assert (code, json.loads(output)[0]["findings"][0]["line"]) == (1, 4)


def test_a_log_may_come_from_stdin() -> None:
    result = CliRunner().invoke(main, ["audit", "-"], input=STALE_TRACE)
    assert (result.exit_code, result.stdout.startswith("-:4: IOTLB entry")) == (1, True)


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "notes.txt"
    log.write_text("hello\n")
    code, _, errors = vtd("audit", str(log))
    assert (code, "neither JSON nor a trace" in errors) == (2, True)


@pytest.mark.parametrize("name, content", [("a.jsonl", ""), ("a.jsonl", "\n"), ("a.json", "")])
def test_an_empty_log_is_refused(tmp_path: Path, name: str, content: str) -> None:
    log = tmp_path / name
    log.write_text(content)
    code, output, errors = vtd("audit", str(log))
    assert (code, output) == (2, "")
    assert errors.startswith(f"vtd: {log}: ")
    assert errors.count(str(log)) == 1


def test_a_capture_without_an_event_log_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text("{}")
    code, _, errors = vtd("audit", str(tmp_path))
    assert (code, "events.jsonl.gz: No such file" in errors) == (2, True)


def test_a_campaign_tells_cases_and_fault_codes(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    arguments = ["fuzz", "--property", "interrupts", "--count", "1", "--jobs", "1"]
    arguments += ["--state", str(state), "--format", "json"]
    code, output, _ = vtd(*arguments)
    assert (code, json.loads(output)["seeds"]) == (0, 1)
    assert json.loads(output)["faults"]
    assert list(json.loads(state.read_text()).values()) == [1]


def test_a_failure_is_saved_and_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = ROOT / "examples" / "external_target" / "reference.py"
    target = f"command:{shlex.join([sys.executable, str(script)])} --buggy"
    code, output, _ = vtd(
        "fuzz", "--target", target, "--property", "driver", "--seconds", "50", "--jobs", "1",
        "--save", str(tmp_path),
    )  # fmt: skip
    assert code == 1
    (saved,) = tmp_path.glob("*.json")
    assert f"vtd replay {saved}" in output
    assert vtd("replay", str(saved))[0] == 0


def test_a_failure_that_can_not_be_saved_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = CampaignResult(failures=[Failure("ept", "", 7, "a reason", {"name": "fuzz-ept-7"})])
    monkeypatch.setattr(campaign, "run", lambda *_, **__: found)
    taken = tmp_path / "taken"
    taken.touch()
    code, output, errors = vtd("fuzz", "--count", "1", "--save", str(taken))
    assert (code, errors) == (1, f"vtd fuzz: {taken / 'fuzz-ept-7.json'}: File exists\n")
    again = "vtd fuzz --property ept --seed 7 --count 1"
    assert output.endswith(f"ept: a reason\n  again:    {again}\n")


def test_a_state_that_cannot_be_written_does_not_lose_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(State, "save", vanished)
    arguments = ["fuzz", "--property", "dmar", "--count", "1", "--jobs", "1"]
    code, output, errors = vtd(*arguments, "--state", str(tmp_path / "state.json"))
    assert (code, output.startswith(("1", "2", "3", "4", "5", "6", "7", "8", "9"))) == (2, True)
    assert "No such file or directory" in errors


def test_a_cluster_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, errors = vtd("fuzz", "--property", "dmar", "--count", "1", "--dask", "tcp://x:1")
    way = "in the clone, uv tool install '.[cluster]' or pip install '.[cluster]'"
    assert (code, errors) == (2, f"vtd fuzz: needs the cluster extra: {way}\n")


@pytest.mark.parametrize(
    "option",
    [
        ["--property", "x"],
        ["--target", "x"],
        ["--count", "0"],
        ["--seconds", "-1"],
        ["--seconds", "nan"],
    ],
)
def test_wrong_use_is_refused(option: list[str]) -> None:
    assert vtd("fuzz", "--count", "1", "--jobs", "1", *option)[0] == 2


def test_stale_uses_of_a_live_recording_are_told_by_line_also_from_stdin() -> None:
    path = RECORDINGS / "k61-stale-first.jsonl.gz"
    code, output, _ = vtd("audit", str(path))
    assert code == 1
    assert (
        f"{path}:335: IOTLB entry (source 00:06.0, domain 4, PASID 0x0, address 0x70004" in output
    )
    assert f"{path}: live recording, 17" in output
    assert "checked, 15 findings, 0 in the window; 175 invalidations\n" in output
    result = CliRunner().invoke(main, ["audit", "-"], input=gzip.decompress(path.read_bytes()))
    assert result.output == output.replace(str(path), "-")


@pytest.mark.parametrize(
    "source",
    [RECORDINGS / "k7-pmu.jsonl.gz", CAPTURE / "events.jsonl.gz"],
    ids=lambda path: path.parent.name,
)
def test_a_cut_log_is_unusable_and_says_where_it_ends(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(source.read_bytes()[:-100])
    code, output, errors = vtd("audit", str(path))
    assert (code, output) == (2, "")
    assert errors.startswith(f"vtd: {path}: line ")
    assert "the compressed file is cut" in errors
