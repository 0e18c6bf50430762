"""The interpreter that is given to a guest: it runs where nothing else of this system is used."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vtd.live import interpreter
from vtd.live.interpreter import HOME, InterpreterError, collector


def test_it_collects_with_nothing_but_its_own_files(tmp_path: Path) -> None:
    for name, content in collector().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    machine = tmp_path / "machine"
    (machine / "proc").mkdir(parents=True)
    (machine / "proc/iomem").write_text("00001000-0009fbff : System RAM\n")
    home, archive = tmp_path / HOME, tmp_path / "archive.tar.gz"
    script = (
        (home / "run").read_text().replace(f"/{HOME}", str(home)).replace("/bin/busybox ", "/bin/")
    )
    assert script.startswith("#!/bin/sh\n")
    (home / "run").write_text(script)
    command: list[str | Path] = [
        home / "run",
        "root",
        "collect",
        archive,
        "--redact",
        "--root",
        machine,
    ]
    done = subprocess.run(
        command, env={}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(archive) as packed:
        assert "iomem.txt" in packed.getnames()


def test_a_command_that_can_not_be_run_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "LOADED", "raise SystemExit('no vtd here')")
    with pytest.raises(InterpreterError) as raised:
        collector()
    assert str(raised.value) == f"{sys.executable}: no vtd here"


def test_a_system_without_ldd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InterpreterError, match="ldd: No such file or directory"):
        collector()
