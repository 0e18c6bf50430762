"""The command as a whole: what it offers, and that it never shows a traceback."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.reference_data import CAPTURES, VECTORS
from vtd.cli import COMMANDS, main

CAPTURE = str(CAPTURES / "edu-faults-legacy48")
ROOT = Path(__file__).parents[2]


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout


def program(*arguments: str, stdout: int | IO[str]) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "vtd.cli", *arguments]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
    )


def test_help_lists_every_command() -> None:
    shown = run("--help")
    for name, (_, line) in COMMANDS.items():
        assert name in shown
        assert line.split()[0] in shown


def test_the_version_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"version of {name}")
    assert run("--version") == "vtd version of vtd-emulator\n"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert run("--version") == "vtd, not installed\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    assert "Usage" in run(name, "--help")


def test_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['vtd', '--help']\n"
        "from vtd.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('vtd.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['vtd.cli']"


def test_without_arguments_it_shows_help() -> None:
    assert "Usage" in run(code=2)


def test_an_unknown_command_is_wrong_use() -> None:
    result = CliRunner().invoke(main, ["frobnicate"])
    assert result.exit_code == 2
    assert "frobnicate" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo"],
        ["mappings", CAPTURE],
        ["walk", CAPTURE, "--device", "00:02.0", "0x1000"],
        ["irte", CAPTURE],
        ["msi", "0xfee00000", "0x31"],
        ["caps", "0x80d2008c222f0606", "0xf00f4a"],
        ["replay", str(VECTORS / "ir_basic.json.gz")],
        ["dmar", "show", f"{CAPTURE}/DMAR.bin"],
        ["dmar", "scope", f"{CAPTURE}/DMAR.bin", "00:02.0"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_json_everywhere(arguments: list[str]) -> None:
    json.loads(run(*arguments, "--format", "json"))
    assert run(*arguments).strip()


words = st.sampled_from(
    [
        "0x0", "0xfee00000", "1", "-1", "zz", "", "00:02.0", "1:2:3.4", "ff:1f.7", "--device",
        "--format", "json", "--pasid", "--write", "--privileged", "--base", "--root-table",
        "--interrupt-table", "--profile", "xeon", "--cap", "--ecap", "--host-address-width",
        "0xffffffffffffffffff", "--as-specified", "--limit", "--trace", CAPTURE,
        f"{CAPTURE}/DMAR.bin", f"{CAPTURE}/capture.json", "/nonexistent", "12", "/dev/null",
    ]
)  # fmt: skip


@given(st.sampled_from(["walk", "mappings", "irte", "msi", "caps", "replay"]), st.lists(words))
def test_any_arguments_end_with_an_exit_code(command: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [command, *arguments])
    assert result.exit_code in (0, 1, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if result.exit_code == 2:
        assert result.stdout == ""
        assert result.stderr


@pytest.mark.parametrize("arguments", [["dmar", "rules"], ["dmar", "show", f"{CAPTURE}/DMAR.bin"]])
def test_an_output_that_nobody_reads_ends_the_command_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = program(*arguments, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_said_in_a_line(
    unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        done = program("dmar", "rules", stdout=full)
    assert (done.returncode, done.stderr) == (2, "vtd: output: No space left on device\n")


@pytest.mark.parametrize("arguments", [["explain"], ["dmar", "show", "-"]])
def test_a_closed_stdin_is_said_in_a_line(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.stdin, sys.argv[1:] = None, {arguments}; import vtd.cli; vtd.cli.main()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, "vtd: stdin: closed\n")


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vtd.cli", "msi", "0xfee00000", "0x31"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "vector 0x31" in done.stdout
