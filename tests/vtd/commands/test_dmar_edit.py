"""Every option of ``vtd dmar edit``: the table stays sound, and the change shows in export."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vtd.cli import main
from vtd.dmar.description import build
from vtd.dmar.rules import validate

TABLE = build(
    """
[header]
address_bits = 39
oem_id = "ACME  "
oem_table_id = "BOARD   "
oem_revision = 1
flags = ["intr_remap"]
[[structure]]
type = "DRHD"
register_base = 0xfed90000
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed91000
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
[[structure.scope]]
type = "msi_hpet"
path = ["1f.0"]
[[structure.scope]]
type = "acpi_namespace"
enumeration_id = 1
path = ["15.0"]
[[structure]]
type = "RMRR"
base = 0x7b000000
limit = 0x7f7fffff
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
[[structure]]
type = "ATSR"
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["1c.0"]
[[structure]]
type = "RHSA"
register_base = 0xfed90000
[[structure]]
type = "RHSA"
register_base = 0xfed91000
[[structure]]
type = "ANDD"
device_number = 1
object_name = '\\_SB.PCI0.I2C0'
padding = 1
"""
).pack()
Exported = dict[str, Any]


def kinds(exported: Exported) -> list[str]:
    return [each["type"] for each in exported["structure"]]


def bases(exported: Exported) -> list[int]:
    return [each["register_base"] for each in exported["structure"] if each["type"] == "DRHD"]


EDITS: list[tuple[list[str], Callable[[Exported], bool]]] = [
    ([], lambda table: kinds(table).count("DRHD") == 2),
    (["--drop-rmrr", "7b000000"], lambda table: "RMRR" not in kinds(table)),
    (["--drop-rmrr", "all"], lambda table: "RMRR" not in kinds(table)),
    (
        ["--move-rmrr", "0x7b000000=0x70000000-0x70ffffff"],
        lambda table: table["structure"][2]["limit"] == 0x70FFFFFF,
    ),
    (["--add-rmrr", "1000-1fff=00:14.0"], lambda table: kinds(table).count("RMRR") == 2),
    (["--drop-drhd", "fed90000"], lambda table: bases(table) == [0xFED91000]),
    (
        ["--move-drhd", "fed90000=fed80000"],
        lambda table: (
            bases(table) == [0xFED80000, 0xFED91000]
            and table["structure"][4]["register_base"] == 0xFED80000
        ),
    ),
    (
        ["--add-drhd", "fed92000=00:0d.0"],
        lambda table: bases(table) == [0xFED90000, 0xFED92000, 0xFED91000],
    ),
    (["--drop-atsr", "all"], lambda table: "ATSR" not in kinds(table)),
    (
        ["--drop-atsr", "all", "--add-atsr", "all"],
        lambda table: {"type": "ATSR", "flags": ["all_ports"]} in table["structure"],
    ),
    (["--add-atsr", "00:1d.0"], lambda table: kinds(table).count("ATSR") == 2),
    (["--drop-andd", "\\_SB.PCI0.I2C0"], lambda table: "ANDD" not in kinds(table)),
    (
        ["--add-andd", "\\_SB.PCI0.UA00=00:1e.0@fed91000"],
        lambda table: table["structure"][-1]["object_name"] == "\\_SB.PCI0.UA00",
    ),
    (["--move", "00:02.0=0xfed91000"], lambda table: "scope" not in table["structure"][0]),
    (
        ["--set-flag", "dma_ctrl_platform_opt_in=1"],
        lambda table: "dma_ctrl_platform_opt_in" in table["header"]["flags"],
    ),
    (
        ["--set-flag", "include_pci_all@fed91000=1"],
        lambda table: "include_pci_all" in table["structure"][1]["flags"],
    ),
    (["--oem-id", "ME"], lambda table: table["header"]["oem_id"] == "ME    "),
    (["--oem-table-id", "MINE"], lambda table: table["header"]["oem_table_id"] == "MINE    "),
    (["--oem-revision", "20"], lambda table: table["header"]["oem_revision"] == 20),
    (["--oem-revision", "0x20"], lambda table: table["header"]["oem_revision"] == 0x20),
]
OPEN = {"--add-drhd", "--move"}
"""Edits that leave something for another option: the RHSA of a unit, a unit without devices."""


@pytest.mark.parametrize(
    ("options", "shows"), EDITS, ids=[" ".join(options) or "none" for options, _ in EDITS]
)
def test_an_edit_shows_in_the_export_and_leaves_the_table_sound(
    tmp_path: Path, options: list[str], shows: Callable[[Exported], bool]
) -> None:
    before, after = tmp_path / "before.bin", tmp_path / "after.bin"
    before.write_bytes(TABLE[:9] + bytes([TABLE[9] ^ 0x55]) + TABLE[10:])
    result = CliRunner().invoke(main, ["dmar", "edit", str(before), "-o", str(after), *options])
    assert result.exit_code == 0, result.output
    findings = {each.rule for each in validate(after.read_bytes())}
    assert not findings & {"DMAR-H03", "DMAR-H04", "DMAR-H05", "DMAR-S08"}
    if not OPEN & set(options):
        assert findings <= {each.rule for each in validate(TABLE)} | {"DMAR-A05"}
    exported = CliRunner().invoke(main, ["dmar", "export", str(after)]).stdout
    assert shows(tomllib.loads(exported))


@pytest.mark.parametrize(
    "options",
    [
        ["--drop-rmrr", "1000"],
        ["--move-rmrr", "1000=2000-2fff"],
        ["--move-rmrr", "7b000000=2000-2ffe"],
        ["--drop-drhd", "1000"],
        ["--move-drhd", "fed90000=123"],
        ["--add-drhd", "fed90000=00:0d.0"],
        ["--add-drhd", "fed92000"],
        ["--add-drhd", "fed92000=00:0d.0,0001:00:01.0"],
        ["--drop-atsr", "0x10"],
        ["--drop-andd", "\\_SB.NONE"],
        ["--add-andd", "UA00=00:1e.0@fed91000"],
        ["--add-andd", "\\_SB.UA00=00:1e.0"],
        ["--add-andd", "\\_SB.UA00=0001:00:1e.0@fed91000"],
        ["--oem-id", "TOO LONG"],
        ["--oem-table-id", "täble"],
        ["--oem-revision", str(1 << 32)],
    ],
    ids=" ".join,
)
def test_an_edit_that_does_not_apply_is_refused_in_one_line(options: list[str]) -> None:
    result = CliRunner().invoke(main, ["dmar", "edit", "-", "-o", "-", *options], input=TABLE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("vtd: edit: ")
    assert result.stderr.count("\n") == 1
