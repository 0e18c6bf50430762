"""Progress goes to a terminal on stderr, and nowhere else."""

import io
import sys

import pytest

from vtd.commands.rendering.progress import StatusLine, shown_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on(
    stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, terminal: str = "xterm"
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(sys, "stderr", stderr)


def report() -> list[int]:
    with StatusLine() as status:
        status.show("12 cases")
    return list(shown_progress([1, 2, 3], "replaying"))


def test_a_terminal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    on(terminal, monkeypatch)
    assert report() == [1, 2, 3]
    assert "12 cases" in terminal.getvalue()
    assert "replaying" in terminal.getvalue()


def test_a_dumb_terminal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    on(terminal, monkeypatch, "dumb")
    assert report() == [1, 2, 3]
    assert terminal.getvalue() == ""


def test_a_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    on(file, monkeypatch)
    assert report() == [1, 2, 3]
    assert file.getvalue() == ""


def test_a_closed_stderr_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    on(None, monkeypatch)
    assert report() == [1, 2, 3]
