"""What starting costs: nothing is imported that the work at hand does not need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = ("construct", "rich", "typer", "hypothesis", "elftools")
FIRST_TRANSLATION = """
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import second_stage_geometry
from pagetables.memory import PhysicalMemory
from vtd.layouts.entries import AddressWidth, ContextEntry, RootEntry
from vtd.layouts.registers import GlobalStatus
from vtd.software.registers import start
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

memory = PhysicalMemory()
memory.add_region(0, 64 << 20)
unit = RemappingUnit(PROFILES["qemu"], memory, Options())
geometry = second_stage_geometry(4, unit.capabilities.implementation)
tables = TableBuilder(memory, geometry, FramePool(0x11_0000, 0x20_0000))
tables.map(0x40_0000, 0x200_0000, 0x4000, "rw")
context = ContextEntry.of(p=True, ssptptr=tables.root << 12, aw=AddressWidth.AGAW_48, did=7)
memory.write(0x10_0000, RootEntry.of(p=True, ctp=0x10_1000).pack())
memory.write(0x10_1000 + 0x10 * 16, context.pack())
memory.write(0x200_0000, b"first")
start(unit, GlobalStatus.of(rtps=True, tes=True), 0x10_0000)
assert UnitPort(unit, memory, 0x10).read(0x40_0000, 5).data == b"first"
"""


def imported(code: str) -> set[str]:
    """The packages that a program has imported at its end."""
    report = "\nimport sys\nprint('imported', *{name.partition('.')[0] for name in sys.modules})\n"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


def test_a_first_translation_needs_only_this_project() -> None:
    found = imported(FIRST_TRANSLATION)
    assert {"vtd", "pagetables"} <= found
    assert not found.intersection(SLOW)


def vtd(*arguments: str) -> set[str]:
    """The packages that a command has imported at its end."""
    return imported(
        f"import sys\nsys.argv = {['vtd', *arguments]}\nfrom vtd.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_needs_neither_construct_nor_rich(arguments: list[str]) -> None:
    assert vtd(*arguments).intersection(SLOW) == {"typer"}


@pytest.mark.parametrize(
    "arguments",
    [["walk", "--help"], ["msi", "0xfee00000", "0x31"], ["caps", "0x80d2008c222f0606", "0xf00f4a"]],
)
def test_commands_that_only_print_lines_need_no_rich(arguments: list[str]) -> None:
    assert "rich" not in vtd(*arguments)
