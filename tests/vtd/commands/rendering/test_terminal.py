"""Text on terminals: folded to their width without a word lost, and colours only if wanted."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.reference_data import CAPTURES
from vtd.commands.rendering.terminal import DEEPER, STYLES, Verbatim, fold_line, folded

ROOT = Path(__file__).parents[4]
words = st.lists(st.text("ab-0", min_size=1, max_size=12), min_size=1, max_size=20)


@example(["0", "0", "0" * 12], 5, 20)
@given(words, st.integers(0, 6), st.integers(20, 60))
def test_folding_keeps_every_word_and_the_width(parts: list[str], start: int, width: int) -> None:
    pieces = list(fold_line(" " * start + " ".join(parts), width))
    assert " ".join(pieces).split() == parts
    assert all(len(piece) <= width for piece in pieces)
    assert pieces[0].startswith(" " * start + parts[0])
    for piece in pieces[1:]:
        first = len(piece.split()[0])
        assert piece.startswith(" " * min(start + DEEPER, width - first))


@given(words, st.integers(20, 60))
def test_colours_take_no_room(parts: list[str], width: int) -> None:
    coloured = [f"\x1b[31m{part}\x1b[0m" for part in parts]
    pieces = [STYLES.sub("", piece) for piece in fold_line(" ".join(coloured), width)]
    assert pieces == list(fold_line(" ".join(parts), width))


def test_what_fits_is_left_alone() -> None:
    assert list(fold_line("  a   b  c", 20)) == ["  a   b  c"]
    assert list(fold_line("", 20)) == [""]


def test_a_word_wider_than_the_terminal_stays_whole() -> None:
    assert list(fold_line("x " + "y" * 40, 20)) == ["x", "    " + "y" * 40]


def test_commands_to_copy_are_never_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtd.commands.rendering.terminal.columns", lambda: 20)
    line = "vtd fuzz --property tables --seed 1"
    assert list(folded([Verbatim(line)])) == [line]
    assert len(list(folded([line]))) == 2


def on_terminal(width: int, *arguments: str, **environment: str) -> str:
    """What the command prints on a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    known = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "vtd.cli", *arguments],
        stdout=slave,
        stderr=subprocess.DEVNULL,
        env={**known, "TERM": "xterm-256color", **environment},
        cwd=ROOT,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        shown += part
    process.wait()
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


TABLE = str(CAPTURES / "edu-faults-legacy48" / "DMAR.bin")


@pytest.mark.parametrize("arguments", [("demo",), ("dmar", "show", TABLE), ("dmar", "rules")])
def test_colours_are_shown_unless_unwanted(arguments: tuple[str, ...]) -> None:
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", on_terminal(100, *arguments))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", on_terminal(100, *arguments, NO_COLOR="1"))
    assert "\x1b" not in on_terminal(100, *arguments, TERM="dumb")


def test_a_narrow_terminal_gets_narrow_lines() -> None:
    shown = on_terminal(44, "demo", TERM="dumb")
    assert max(map(len, shown.splitlines())) <= 44
    wide = on_terminal(200, "demo", TERM="dumb")
    assert max(map(len, wide.splitlines())) > 44
    assert shown.split() == wide.split()


def test_a_pipe_gets_whole_lines_of_a_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vtd.cli", "dmar", "show", TABLE],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "COLUMNS": "10"},
    )  # fmt: skip
    assert "    ├── registers 0xfed90000-0xfed90fff" in done.stdout.splitlines()
