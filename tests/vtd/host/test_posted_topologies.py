"""Machines that people asked about; what the planner has to say was written down first."""

from __future__ import annotations

import pytest

from tests.conftest import find_reference_folder
from vtd.commands.platform_files import PlatformFiles, read_platform
from vtd.commands.reading import read_table
from vtd.host.plan import read_plan
from vtd.host.planner import judge, nearest
from vtd.host.surroundings import Surroundings

PLAN = """
[[guest]]
name = "a"
memory = [{{ start = 0, size = "1 GiB" }}]
[[assign]]
guest = "a"
devices = ["{}"]
"""
REGISTERS = "unit-registers-open"
CASES = {
    # case, table: device, reasons, changes to the nearest plan that works
    ("alias-unprivileged", "alias-unprivileged-dmar.txt"):
        ("01:00.0", [REGISTERS, "group-open"], ()),  # capabilities of the port are not shown
    ("lspci-indented", "lspci-indented-dmar.txt"):
        ("01:00.0", [REGISTERS, "group-open"], ()),
    ("plain-lspci-no-bridge", "plain-lspci-no-bridge-dmar.txt"):
        ("00:02.0", [REGISTERS, "region"], ('00:02.0: policy rmrr = "relax"',)),  # graphics
    ("rmrr-without-nn", "rmrr-without-nn-dmar.txt"):
        ("00:14.0", [REGISTERS, "region"], ('00:14.0: policy rmrr = "relax"',)),  # USB
    ("segment-without-unit", "segment-without-unit-dmar.txt"):
        ("0001:00:00.0", ["no-unit"], None),
    ("start-bus-behind-bridge", "start-bus-behind-bridge.bin"):
        ("03:00.0", [REGISTERS, "region"], ('03:00.0: policy rmrr = "map"',)),  # RAID
    ("vf-of-graphics", "vf-of-graphics-dmar.txt"):
        ("00:02.1", [REGISTERS], ()),  # the region is that of its physical function
    ("groups-x710", "lspci-indented-dmar.txt"):
        ("01:00.0", [REGISTERS, "group"], ("assign 0000:01:00.1 to a too",)),
    ("ioapic-fault", "ioapic-fault-dmar.txt"):
        ("37:00.0", [REGISTERS, "group-behind-unknown"], ()),  # no buses of bridges are shown
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_planner_judges_what_was_posted(case: tuple[str, str]) -> None:
    folder = find_reference_folder()
    if folder is None:
        pytest.skip("the collection of reference data is not beside the repository")
    name, table = case
    device, reasons, changes = CASES[case]
    files = PlatformFiles(lspci=folder / "cases" / "dmar" / f"{name}-lspci.txt")
    table_file = str(folder / "cases" / "dmar" / table)
    around = Surroundings(read_table(table_file), read_platform(files, table_file))
    judgement = judge(read_plan(PLAN.format(device)).plan, around)
    assert [each.reason.name for each in judgement.verdicts] == reasons
    better = nearest(judgement, around)
    assert (None if better is None else better.changes) == changes
