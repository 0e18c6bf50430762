"""The scripts for the guest bring what they run along."""

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.ioat_kernel_tests import DMATEST, MACHINE, VFIO
from scripts.kernel_modules import self_extracting
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine


@pytest.mark.parametrize("commands", [DMATEST, VFIO])
def test_the_commands_are_sound(commands: str) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    assert subprocess.run([shell, "-n"], input=commands.encode(), check=False).returncode == 0


def test_a_script_finds_its_payload(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 3
    data = self_extracting(f"cmp {tmp_path}/payload {tmp_path}/expected\n", payload)
    script = tmp_path / "script"
    script.write_bytes(data.replace(b">/tmp/payload", f">{tmp_path}/payload".encode()))
    (tmp_path / "expected").write_bytes(payload)
    assert subprocess.run(["sh", str(script)], check=False).returncode == 0


def test_the_machine_has_the_engine() -> None:
    functions = assemble(read_machine(MACHINE)).functions
    assert [type(each).__name__ for each in functions.values()] == ["IoatEngine", "Nvme"]
