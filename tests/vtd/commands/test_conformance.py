"""``vtd conformance``: from a machine to a score card, and what is refused on the way."""

from __future__ import annotations

import gzip
import json
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from tests.support.reference_data import VECTORS
from vtd.cli import main

ROOT = Path(__file__).parents[3]
MACHINE = f"command:{shlex.quote(sys.executable)} -m tests.vtd.conformance.interpreter {{image}}"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["conformance", *map(str, arguments)])


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a probe, an image, results, and those of a broken unit."""
    folder = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        probe, image = folder / "probe.json", folder / "kit.img"
        for command in (
            ("probe", MACHINE, "-o", probe),
            ("build", "--for", probe, "-o", image, "--cases", 2),
            ("run", MACHINE, image, "-o", folder / "results.jsonl"),
            ("run", f"{MACHINE} qemu wrong-entry", image, "-o", folder / "broken.jsonl.gz"),
        ):
            result = run(*command)
            assert result.exit_code == 0, result.output
    return folder


def test_a_good_unit_passes(kit: Path) -> None:
    result = run("compare", kit / "results.jsonl")
    assert result.exit_code == 0
    assert "fail, 0 of them unexplained" in result.stdout
    assert " 0 fail" in result.stdout


def test_a_broken_unit_is_found_and_the_failure_opens_in_replay(kit: Path, tmp_path: Path) -> None:
    result = run("compare", kit / "broken.jsonl.gz", "--save", tmp_path, "--format", "json")
    assert result.exit_code == 1
    failed = [each for each in json.loads(result.stdout)["cases"] if each["verdict"] == "failed"]
    assert {each["name"] for each in failed} == {path.stem for path in tmp_path.iterdir()}
    replayed = CliRunner().invoke(main, ["replay", str(tmp_path / f"{failed[0]['name']}.json")])
    assert replayed.exit_code == 0, replayed.output


def test_what_changed_decides_where_there_are_earlier_results(kit: Path) -> None:
    good, bad = kit / "results.jsonl", kit / "broken.jsonl.gz"
    assert run("compare", good, good).exit_code == 0
    assert run("compare", bad, bad).exit_code == 0
    worse = run("compare", bad, good)
    assert worse.exit_code == 1
    assert "passed, now failed" in worse.stdout
    assert run("compare", good, bad).exit_code == 0


def test_junit_has_every_case(kit: Path) -> None:
    result = run("compare", kit / "broken.jsonl.gz", "--format", "junit")
    cases = list(ElementTree.fromstring(result.stdout).iter("testcase"))
    lines = run("compare", kit / "broken.jsonl.gz", "--format", "jsonl").stdout.splitlines()
    assert len(cases) == len(lines)
    assert any(case.find("failure") is not None for case in cases)


def test_recorded_scenarios_can_be_built_in(kit: Path, tmp_path: Path) -> None:
    """Those for another unit are listed with the reason."""
    files = [VECTORS / "qi_wait_status.json.gz", VECTORS / "sm_ss_4k.json.gz"]
    image = tmp_path / "kit.img"
    result = run(
        "build", "--for", ROOT / "tests/vtd/conformance/qemu-probe.json", "-o", image, *files
    )
    assert result.exit_code == 0, result.output
    assert "1 case in the image, 1 not in it as a whole" in result.stdout
    assert "other capabilities" in result.stdout


def one_line(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert all(part in result.stderr for part in parts), result.stderr


def test_files_that_are_something_else_are_named(kit: Path, tmp_path: Path) -> None:
    image, probe, results = kit / "kit.img", kit / "probe.json", kit / "results.jsonl"
    one_line(run("build", "--for", image, "-o", tmp_path / "a"), "kit.img")
    one_line(run("build", "--for", results, "-o", tmp_path / "a"), "results.jsonl")
    one_line(run("build", "--for", tmp_path / "absent", "-o", tmp_path / "a"), "absent")
    one_line(run("run", MACHINE, probe, "-o", tmp_path / "a"), "not a kit image")
    one_line(run("compare", probe), "not results")
    one_line(run("compare", image), "no results")
    one_line(run("build", "--for", probe, "-o", tmp_path / "a", probe), "probe.json")
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_cut_are_named(kit: Path, tmp_path: Path) -> None:
    lines = (kit / "results.jsonl").read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    for text in (
        "".join(lines[:-1]),
        "".join(lines[:1]),
        "".join(lines)[:-9],
        "".join(lines)[:5000],
    ):
        cut.write_text(text)
        one_line(run("compare", cut), "cut")
    cut.write_bytes(gzip.compress("".join(lines).encode())[:-20])
    one_line(run("compare", cut), "cut")
    broken = json.loads(lines[1])
    cut.write_text(
        lines[0] + json.dumps({**broken, "output": "00" * 60}) + "\n" + "".join(lines[2:])
    )
    one_line(run("compare", cut), "line 2", "another image")
    cut.write_text(lines[0] + json.dumps({**broken, "case": {}}) + "\n" + "".join(lines[2:]))
    one_line(run("compare", cut), "line 2")


def test_machines_that_are_none_are_named(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    output = tmp_path / "a"
    one_line(run("probe", "command:/absent {image}", "-o", output), "/absent")
    one_line(run("probe", "command:true {image}", "-o", output), "did not start the image")
    one_line(run("run", "command:false", kit / "kit.img", "-o", output), "did not start the image")
    assert run("probe", "vmware", "-o", output).exit_code == 2
    assert run("probe", "command:'", "-o", output).exit_code == 2
    another = "command:cat tests/vtd/conformance/qemu-probe.json"
    one_line(run("probe", another, "-o", output), "did not start the image")
    assert not output.exists()


@pytest.mark.parametrize("form", ["{efi}", "{elf}"])
def test_a_machine_may_ask_for_a_uefi_application_or_a_pvh_kernel(
    form: str, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    machine = MACHINE.replace("{image}", form)
    probe, results = tmp_path / "probe.json", tmp_path / "results.jsonl"
    assert run("probe", machine, "-o", probe).exit_code == 0
    assert probe.read_text() == (kit / "probe.json").read_text()
    assert run("run", machine, kit / "kit.img", "-o", results).exit_code == 0
    assert run("compare", results, kit / "results.jsonl").exit_code == 0


def test_firmware_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("probe", "qemu", "--firmware", tmp_path / "absent.fd", "-o", tmp_path / "a")
    assert result.exit_code == 2
    assert "absent.fd: no such file" in " ".join(result.stderr.split())


def scripted(script: Path, *lines: str) -> str:
    """The target of a machine that a script plays, which has the image."""
    begin = (
        "import sys, time",
        "from pathlib import Path",
        "from tests.vtd.conformance.interpreter import Machine",
        "from vtd.unit.registers.capabilities import PROFILES",
        "image = Path(sys.argv[1]).read_bytes()",
    )
    script.write_text("\n".join((*begin, *lines, "")))
    return f"command:env PYTHONPATH={ROOT} {shlex.quote(sys.executable)} {script} {{image}}"


def test_an_image_for_another_unit_is_refused(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    other = f"{MACHINE} qemu-scalable-first"
    one_line(run("run", other, kit / "kit.img", "-o", tmp_path / "a"), "for another unit")


def test_an_image_for_another_unit_is_refused_at_its_first_word(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = scripted(
        tmp_path / "endless",
        "*frames, _ = Machine(PROFILES['qemu-scalable-first']).run(image)",
        "while True:",
        "    sys.stdout.buffer.write(b''.join(frames))",
    )
    one_line(run("run", words, kit / "kit.img", "-o", tmp_path / "a"), "for another unit")


def test_a_machine_that_goes_silent_is_started_again_behind_the_case(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = scripted(
        tmp_path / "hang",
        "for number, each in enumerate(Machine(PROFILES['qemu']).run(image)):",
        "    if number == 3:",
        "        time.sleep(60)",
        "    sys.stdout.buffer.write(each)",
        "    sys.stdout.buffer.flush()",
    )
    small = tmp_path / "kit.img"
    made = run(
        "build", "--for", kit / "probe.json", "-o", small, "--cases", 3, "--property", "driver"
    )
    assert made.exit_code == 0
    results = tmp_path / "results.jsonl"
    result = run("run", words, small, "-o", results, "--silence", 6)
    assert "1 of them hung" in result.stdout
    judged = run("compare", results)
    assert judged.exit_code == 1
    assert "the machine went silent" in judged.stdout


def test_cases_after_which_no_machine_starts_are_inconclusive(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before is kept."""
    monkeypatch.chdir(ROOT)
    words = scripted(
        tmp_path / "once",
        "if (once := Path(__file__).with_name('started')).exists():",
        "    sys.exit()",
        "once.touch()",
        "frames = list(Machine(PROFILES['qemu']).run(image))",
        "sys.stdout.buffer.write(b''.join(frames[:3]))",
    )
    results = tmp_path / "results.jsonl"
    assert run("run", words, kit / "kit.img", "-o", results).exit_code == 0
    judged = json.loads(run("compare", results, "--format", "json").stdout)["cases"]
    verdicts = [each["verdict"] for each in judged if each["verdict"] != "not applicable"]
    assert verdicts[:3] == ["passed", "passed", "failed"]
    assert set(verdicts[3:]) == {"inconclusive"}


def test_a_score_card_by_section_says_where_a_unit_departs(kit: Path) -> None:
    result = run("compare", kit / "results.jsonl", "--by", "section", "--format", "json")
    rows = {each["section"]: each for each in json.loads(result.stdout)["sections"]}
    assert {"9.1", "9.3", "9.9", "6.5.2.9", "11.4.7.6", "7.1.3"} <= set(rows)
    assert rows["9.9"]["needs"] == "IR"
    assert all(each["passed"] == each["cases"] for each in rows.values())
    lines = run("compare", kit / "broken.jsonl.gz", "--by", "section").stdout.splitlines()
    assert lines[0].startswith("section")
    assert any("unexplained" in line for line in lines[1:])
