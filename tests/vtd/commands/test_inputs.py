"""Several inputs of one command: an unusable one is told, and hides none of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import capture_folders, vector_files
from tests.vtd.commands.test_fuzz_audit import CAPTURE
from vtd.cli import main

REGISTERS = "DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap c0000020660462 ecap f0101a\n"
GOOD = {
    "lint": CAPTURE,
    "audit": capture_folders()[0],
    "replay": vector_files()[0],
    "caps": Path("registers"),
}
BAD = {"truncated": b"{", "empty": b"", "random": bytes(range(256)) * 4}


@pytest.mark.parametrize("kind", [*BAD, "missing"])
@pytest.mark.parametrize("command", GOOD)
def test_an_unusable_input_hides_none_of_the_others(
    command: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("registers").write_text(REGISTERS)
    bad = Path("bad.jsonl")
    if kind in BAD:
        bad.write_bytes(BAD[kind])
    good = str(GOOD[command])
    arguments = [command, "--format", "json"]
    alone = CliRunner().invoke(main, [*arguments, good])
    assert alone.exit_code == 0, alone.output
    for order in ([good, "bad.jsonl"], ["bad.jsonl", good]):
        both = CliRunner().invoke(main, [*arguments, *order])
        assert both.exit_code == 2
        assert len(both.stderr.splitlines()) == 1
        assert both.stderr.startswith("vtd: bad.jsonl: ")
        assert json.loads(both.stdout) == json.loads(alone.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        "replay -",
        "mappings -",
        "walk - --device 00:02.0 0",
        "irte -",
        "msi fee00000 0 -",
        "guest ept - --eptp 1e 1000",
        "conformance compare -",
        "plot - -o chart.svg",
    ],
)
def test_a_command_that_reads_no_stdin_says_so(arguments: str) -> None:
    done = CliRunner().invoke(main, arguments.split())
    assert (done.exit_code, done.output) == (
        2,
        "vtd: stdin: not read by this command: name a file\n",
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("replay {}", "can't be read: not text"),
        ("conformance build --for {} -o kit.img", "no JSON: not text"),
        ("fuzz --state {}", "not the state of a campaign: not text"),
    ],
)
def test_a_file_of_bytes_is_no_text(arguments: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(b"\x7fELF\xd0")
    done = CliRunner().invoke(main, arguments.format(file).split())
    assert (done.exit_code, done.output) == (2, f"vtd: {file}: {says}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "collect -",
        "trace generate workload.toml -o -",
        "trace convert log.txt -o -",
        "sweep trace.parquet -o -",
        "sweep trace.parquet --state -",
        "fuzz --state -",
        "conformance probe qemu -o -",
        "conformance build --for probe.json -o -",
        "conformance run qemu kit.img -o -",
        "live boot --record -",
        "live boot --console -",
        "live matrix --results -",
    ],
)
def test_no_file_is_called_as_stdout_is(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 2
    assert "'-': stdout is not for this; name a file" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        "collect {}",
        "trace generate workload.toml -o {}",
        "sweep trace.parquet -o {}",
        "sweep trace.parquet --state {}",
        "fuzz --state {}",
        "conformance probe qemu -o {}",
        "conformance build --for probe.json -o {}",
        "conformance run qemu kit.img -o {}",
        "live matrix --results {}",
    ],
)
@pytest.mark.parametrize(
    ("place", "why"), [("absent/file", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_can_not_be_written_is_told_before_the_work(
    arguments: str, place: str, why: str, tmp_path: Path
) -> None:
    """The inputs are not there either, and would be named if anything had been done."""
    file = str(tmp_path / place)
    done = CliRunner().invoke(main, arguments.format(file).split())
    assert (done.exit_code, done.output) == (2, f"vtd: {file}: {why}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("trace convert log.txt -o trace.csv", "'trace.csv': neither .jsonl nor .parquet"),
        ("trace generate load.toml -o trace.JSON", "'trace.JSON': neither .jsonl nor .parquet"),
        ("sweep trace.parquet -o results.csv", "'results.csv': neither .json nor .parquet"),
    ],
)
def test_parquet_is_not_written_under_the_name_of_text(arguments: str, says: str) -> None:
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_report_is_about_what_can_be_used(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="the extra report is not installed")
    page = tmp_path / "report.html"
    table = str(CAPTURE / "DMAR.bin")
    missing = str(tmp_path / "missing")
    result = CliRunner().invoke(main, ["report", missing, table, "-o", str(page)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert missing in result.stderr
    assert "DRHD" in page.read_text()
    result = CliRunner().invoke(main, ["report", missing, "-o", str(tmp_path / "none")])
    assert (result.exit_code, (tmp_path / "none").exists()) == (2, False)
