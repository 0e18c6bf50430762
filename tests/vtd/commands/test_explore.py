"""``vtd explore`` where it can't open its window."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import CAPTURES
from vtd.cli import main

CAPTURE = str(CAPTURES / "legacy48-strict")


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["explore", *arguments])
    assert result.exit_code == 2
    return result.stderr


def test_in_a_terminal_it_is_browsed_and_left() -> None:
    pytest.importorskip("textual", reason="the tui extra is not installed")
    here, there = pty.openpty()
    program = [sys.executable, "-m", "vtd.cli", "explore", CAPTURE]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(program, stdin=there, stdout=there, stderr=there, env=environment) as run:
        os.close(there)
        shown = b""
        while b"devices" not in shown:
            shown += os.read(here, 65536)
        os.write(here, b"q")
        with suppress(OSError):  # the other side is closed
            while os.read(here, 65536):
                pass
        assert run.wait() == 0
    os.close(here)


def test_without_a_terminal_that_is_said() -> None:
    pytest.importorskip("textual", reason="the tui extra is not installed")
    assert refused(CAPTURE) == "vtd: explore: needs a terminal; vtd walk and mappings print\n"


def test_without_its_extra_the_advice_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vtd.exploring.window", raising=False)
    monkeypatch.setitem(sys.modules, "textual.app", None)
    advice = refused(CAPTURE)
    assert advice.startswith("vtd explore: needs the tui extra: ")
    assert "pip install '.[tui]'" in advice


def test_what_is_no_capture_is_one_line(tmp_path: Path) -> None:
    assert refused(str(tmp_path)).count("\n") == 1
    assert refused(str(tmp_path / "machine.toml")).count("\n") == 1
