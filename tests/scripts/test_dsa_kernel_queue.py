"""The sources are changed where it is said, and the guest's commands are sound."""

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.dsa_kernel_queue import (
    CHECK,
    EIGHT_STORES,
    MACHINE,
    STORE,
    commands,
    without_the_store,
)
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine


def test_the_commands_are_sound() -> None:
    shell = shutil.which("sh")
    assert shell is not None
    text = commands(100_000)
    assert subprocess.run([shell, "-n"], input=text.encode(), check=False).returncode == 0
    assert "threads_per_chan=16 iterations=6250 " in text


def test_the_driver_loads_and_stores_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "init.c").write_text("{\n" + CHECK + "}\n")
    (tmp_path / "submit.c").write_text("{\n" + STORE + "}\n")
    without_the_store(tmp_path)
    assert (tmp_path / "init.c").read_text() == "{\n}\n"
    assert (tmp_path / "submit.c").read_text() == "{\n" + EIGHT_STORES + "}\n"


def test_another_source_is_not_changed_in_silence(tmp_path: Path) -> None:
    (tmp_path / "init.c").write_text(CHECK)
    (tmp_path / "submit.c").write_text("")
    with pytest.raises(ValueError, match="the source has changed: 'iosubmit_cmds512"):
        without_the_store(tmp_path)


def test_the_machine_has_the_accelerator() -> None:
    functions = assemble(read_machine(MACHINE)).functions
    assert [type(each).__name__ for each in functions.values()] == ["Dsa", "Nvme"]
