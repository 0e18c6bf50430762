"""The kit as a cell: what stands for QEMU here carries images out by itself."""

import shlex
import stat
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vtd.live.boot import Outcome
from vtd.live.cells import all_cells
from vtd.live.kit_run import run_kit
from vtd.live.matrix import KIT, Verdict, boot_cell
from vtd.live.qemu import Qemu

CELL = all_cells()["kit"]
ROOT = Path(__file__).parents[3]


def pretended(folder: Path, *defect: str) -> Qemu:
    """A program that finds its image among the words of QEMU."""
    program = folder / "qemu"
    interpreter = shlex.join([sys.executable, "-m", "tests.vtd.conformance.interpreter"])
    program.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -kernel ]; do shift; done\n'
        f'cd {shlex.quote(str(ROOT))} && exec {interpreter} "$2" {shlex.join(defect)}\n'
    )
    program.chmod(stat.S_IRWXU)
    return Qemu((str(program),), "11.1.2")


def test_every_case_is_a_check(tmp_path: Path) -> None:
    threads = threading.active_count()
    outcome = run_kit(pretended(tmp_path), CELL.boot, 2, time.monotonic_ns)
    assert outcome.ended
    assert {each.name.split("-")[0] for each in outcome.verdicts} == {
        *("tables", "driver", "interrupts", "protocol")
    }
    assert not [each for each in outcome.verdicts if each.state == "FAILED"]
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("defect", "noticed", "verdict"),
    [
        ("", False, Verdict.PASSED),
        ("wrong-entry", False, Verdict.FAILED),
        ("wrong-entry", True, Verdict.NOTICED),
        ("", True, Verdict.FAILED),
    ],
)
def test_a_unit_that_is_wrong_fails_and_a_control_notices_it(
    tmp_path: Path, defect: str, noticed: bool, verdict: Verdict
) -> None:
    qemu = pretended(tmp_path, *(("qemu", defect) if defect else ()))
    kept: list[Outcome] = []
    cell = replace(CELL, kit=2, noticed=noticed)
    result = boot_cell(cell, qemu, 1, time.monotonic_ns, keep=lambda _, all: kept.append(all))
    assert (result.verdict, result.kernel) == (verdict, KIT)
    assert result.checks == sum(each.state == "ok" for each in kept[0].verdicts)
