"""vtd replay: what it prints, which exit code it gives, what it refuses."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import CAPTURES, RECORDINGS, VECTORS
from tests.vtd.recordings.small_capture import SmallCapture
from vtd.cli import main
from vtd.recordings.values import Json

BASIC = VECTORS / "ir_basic.json.gz"
RECORDED = VECTORS / "legacy_unit39.json.gz"
STALE = VECTORS / "caching_leaf_stale.json.gz"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["replay", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def altered(tmp_path: Path) -> Path:
    """A scenario whose step 7, or the first one after it, expects something else."""
    scenario = json.loads(gzip.decompress(BASIC.read_bytes()))
    step = next(step for step in scenario["steps"][7:] if step["op"] == "msi")
    step["expect"] = {"delivered": {"vector": 255}}
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(scenario))
    return path


def altered_step(path: Path) -> int:
    steps = json.loads(path.read_text())["steps"]
    return next(
        number
        for number, step in enumerate(steps)
        if step.get("expect") == {"delivered": {"vector": 255}}
    )


def test_a_match_says_so() -> None:
    shown = run(str(BASIC))
    assert f"{BASIC}: " in shown
    assert "1 file, " in shown
    assert "1 matches, 0 do not" in shown
    assert "as recorded" not in shown


def test_what_needed_the_recorded_departures_is_printed() -> None:
    shown = run(str(RECORDED), str(BASIC))
    lines = shown.splitlines()
    assert lines[0].endswith("match, as recorded")
    assert lines[1].endswith("match")
    assert "1 file needed the option `as recorded`" in lines[-1]


def test_an_altered_expectation_exits_1_and_names_the_step(altered: Path) -> None:
    shown = run(str(altered), code=1)
    assert f"step {altered_step(altered)} msi: expected" in shown
    assert "0 match, 1 does not" in shown


def test_a_recorded_file_that_matches_neither_way_did_not_need_the_option(tmp_path: Path) -> None:
    scenario = json.loads(gzip.decompress((VECTORS / "legacy_3level_4k.json.gz").read_bytes()))
    scenario["steps"][73]["expect"] = {"fault": True}
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(scenario))
    shown = run(str(path), code=1)
    assert "step 73 dma_read: expected" in shown
    assert "as recorded" not in shown


def test_json_has_the_promised_form(altered: Path) -> None:
    files = json.loads(run(str(altered), str(BASIC), "--format", "json", code=1))["files"]
    wrong, right = files
    assert wrong["file"] == str(altered)
    assert wrong["passed"] == wrong["steps"] - 1
    (mismatch,) = wrong["mismatches"]
    assert mismatch["step"] == altered_step(altered)
    assert mismatch["op"] == "msi"
    assert mismatch["expect"] == {"delivered": {"vector": 255}}
    assert set(mismatch) == {"step", "op", "expect", "got"}
    assert right["mismatches"] == []
    assert right["passed"] == right["steps"]


def test_folders_are_searched_for_scenarios_and_captures(tmp_path: Path) -> None:
    inner = tmp_path / "inner" / "deep"
    inner.mkdir(parents=True)
    shutil.copy(BASIC, inner)
    shutil.copytree(CAPTURES / "legacy48-strict", tmp_path / "inner" / "capture")
    (tmp_path / "inner" / "notes.md").write_text("nothing")
    (tmp_path / "empty").mkdir()
    files: list[Json] = json.loads(run(str(tmp_path), "--format", "json"))["files"]
    assert [Path(each["file"]).name for each in files] == ["capture", BASIC.name]


def test_the_trace_shows_walks_and_what_the_iotlb_holds() -> None:
    shown = run("--trace", str(STALE))
    assert "SS-PTE" in shown
    assert "  but the IOTLB holds" in shown
    assert "  the IOTLB holds" in run("--trace", str(VECTORS / "legacy_3level_4k.json.gz"))
    walks = json.loads(run("--trace", "--format", "json", str(STALE)))["files"][0]["trace"]
    assert all(walk["step"].startswith("step ") for walk in walks)
    assert any(walk["cached"] not in (None, walk["physical"]) for walk in walks)


def test_the_trace_shows_requests_that_are_not_translated() -> None:
    disabled = str(VECTORS / "legacy_disable_enable.json.gz")
    assert "=> not translated" in run("--trace", disabled)


def test_the_trace_of_a_file_run_twice_shows_the_last_run() -> None:
    files = json.loads(run("--trace", "--format", "json", str(RECORDED)))["files"]
    scenario = json.loads(gzip.decompress(RECORDED.read_bytes()))
    transfers = [step for step in scenario["steps"] if step["op"] in ("dma_read", "dma_write")]
    traced = {walk["step"] for walk in files[0]["trace"]}
    assert len(traced) <= len(transfers)


def test_the_trace_of_a_capture_shows_its_probes() -> None:
    shown = run("--trace", str(CAPTURES / "edu-faults-legacy48"))
    assert "probe second:4:0x299c000" in shown


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1}', '{"format": 1, "steps": [{}]}'])
def test_unusable_input_exits_2_and_is_left_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(content)
    result = CliRunner().invoke(main, ["replay", str(BASIC), str(path)])
    assert result.exit_code == 2
    assert result.stdout == run(str(BASIC))
    assert result.stderr.startswith(f"vtd: {path}: ")
    assert result.stderr.count(str(path)) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"op": "dma_reed"}, "step 73: op: 'dma_reed' is no operation of a scenario"),
        ({"iova": "zz"}, "step 73: iova: 'zz' is no number"),
        ({"device": "d99"}, "step 73: device: 'd99' is not one of devices"),
        ({"length": -4}, "step 73: length: -4 is not a number"),
        ({"length": None}, "step 73: length: None is not a number"),
        ({"device": ["d3"]}, "step 73: device: ['d3'] is no string"),
    ],
)
def test_an_unusable_step_is_named(tmp_path: Path, change: dict[str, Json], message: str) -> None:
    scenario = json.loads(gzip.decompress((VECTORS / "legacy_3level_4k.json.gz").read_bytes()))
    assert scenario["steps"][73]["op"] == "dma_read"
    scenario["steps"][73] |= change
    assert message in refused(tmp_path, scenario)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": {}}, "steps: {} is no list"),
        ({"devices": {"d0": 70000}}, "devices: 70000 is no object"),
        ({"devices": {"d0": {}}}, "devices: 'source_id' is missing"),
        ({"memory": [["0x0", "0x1001"]]}, "memory: "),
        ({"memory": [["zz", "0x1000"]]}, "memory: 'zz' is no number"),
        ({"unit": {"version": "0x10"}}, "unit: 'cap' is missing"),
    ],
)
def test_an_unusable_head_is_named(tmp_path: Path, change: dict[str, Json], message: str) -> None:
    scenario = json.loads(gzip.decompress(BASIC.read_bytes())) | change
    assert message in refused(tmp_path, scenario)


def test_registers_over_each_other_name_the_field_that_puts_them_there(tmp_path: Path) -> None:
    scenario = json.loads(gzip.decompress(BASIC.read_bytes()))
    scenario["unit"]["cap"] = "0x0"
    assert "CAP.FRO" in refused(tmp_path, scenario)


def test_capabilities_that_contradict_themselves_are_named(tmp_path: Path) -> None:
    scenario = json.loads(gzip.decompress(BASIC.read_bytes()))
    scenario["unit"]["ecap"] = hex(int(scenario["unit"]["ecap"], 16) | 1 << 40)
    assert "unit: 11.4.3: PASID is set without SMTS" in refused(tmp_path, scenario)


def refused(folder: Path, scenario: Json) -> str:
    path = folder / "scenario.json"
    path.write_text(json.dumps(scenario))
    result = CliRunner().invoke(main, ["replay", str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    return result.stderr


def test_a_folder_without_anything_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    result = CliRunner().invoke(main, ["replay", str(tmp_path)])
    assert result.exit_code == 2
    assert "no scenario" in result.stderr
    assert CliRunner().invoke(main, ["replay", str(tmp_path / "gone")]).exit_code == 2


def test_departures_are_chosen_by_name_and_files_run_once() -> None:
    """The capture needs one departure only: Linux has AW set on a unit without second stage."""
    capture = str(CAPTURES / "sm-first-stage")
    assert "as recorded" not in run(capture, "--departures", "ignore_aw_without_ssts")
    assert "as recorded" in run(capture, "--departures", "qemu")
    for names in ("specification", "compress_faults,snoop_every_walk"):
        assert "MISMATCHES" in run(capture, "--departures", names, code=1)


def test_an_unknown_departure_is_wrong_use() -> None:
    command = ["replay", str(BASIC), "--departures", "qemu,nothing"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'nothing' is no departure" in " ".join(result.stderr.replace("│", " ").split())


def test_a_capture_may_name_its_departures(tmp_path: Path) -> None:
    folder = SmallCapture(scalable=True, first_stage=True).write(tmp_path / "capture")
    manifest = json.loads((folder / "capture.json").read_text())
    manifest |= {"departures": ["ignore_aw_without_ssts"]}
    (folder / "capture.json").write_text(json.dumps(manifest))
    (row,) = json.loads(run(str(folder), "--format", "json"))["files"]
    assert (row["as_recorded"], row["mismatches"]) == (False, [])
    (folder / "capture.json").write_text(json.dumps({**manifest, "departures": ["aw"]}))
    result = CliRunner().invoke(main, ["replay", str(folder)])
    assert result.exit_code == 2
    assert "departures: 'aw' is no departure" in result.stderr


def test_parts_that_a_capture_has_not_are_said(tmp_path: Path) -> None:
    folder = SmallCapture(remapping="off").write(tmp_path / "capture")
    text = run(str(folder))
    assert "not compared: probes.json.gz: not there" in text
    assert "not compared: interrupts.json: no table" in text
    (row,) = json.loads(run(str(folder), "--format", "json"))["files"]
    assert row["not_compared"] == ["probes.json.gz: not there", "interrupts.json: no table"]


def test_live_recordings_are_found_in_folders_and_replayed_under_any_policy() -> None:
    shown = run(str(RECORDINGS), "--cache", "aggressive")
    assert "8 files, 35929 steps: 8 match, 0 do not" in shown
    assert "k7-pmu.jsonl.gz: 2103 of 2103 steps, match" in shown


def test_a_difference_of_a_live_recording_is_told_by_its_line() -> None:
    stale = str(RECORDINGS / "k61-stale-first.jsonl.gz")
    shown = run(stale, "--departures", "specification", code=1)
    assert "  line 56 d 00:05.0 0xffffe000: expected 1071947776, got null" in shown
    files = json.loads(run(stale, "--departures", "specification", "--format", "json", code=1))
    assert files["files"][0]["mismatches"][0]["line"] == 56


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--caches", "some", str(RECORDINGS)],
            "'some': not one of default, aggressive, late, off",
        ),
        (["--caches", "off", str(BASIC)], f"vtd: {BASIC}: --caches is for live recordings"),
    ],
)
def test_a_policy_that_does_not_fit_is_wrong_use(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["replay", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_logs_beside_recordings_are_left_alone(tmp_path: Path) -> None:
    shutil.copy(RECORDINGS / "k7-pmu.jsonl.gz", tmp_path)
    (tmp_path / "platform.jsonl").write_text('{"unit": {}}\n')
    assert "1 file, 2103 steps: 1 matches" in run(str(tmp_path))


def test_the_trace_of_a_live_recording_shows_its_requests() -> None:
    shown = run("--trace", str(RECORDINGS / "k7-rec-no-qi.jsonl.gz"))
    assert "k7-rec-no-qi.jsonl.gz: line 9\n00:05.0 reads" in shown


def test_a_log_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"unit": {}}\n')
    result = CliRunner().invoke(main, ["replay", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"vtd: {path}: line 1: 'format' is missing\n"
