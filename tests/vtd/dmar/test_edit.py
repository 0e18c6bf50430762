"""Edits: the table says what was asked, and its Length, Checksum and order stay right."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.dmar_corpus import clean_tables
from vtd.dmar.edit import add_rmrr, drop_rmrr, move_device, parse_device, set_flag
from vtd.dmar.records import DeviceScope, Drhd, Rmrr
from vtd.dmar.rules import check
from vtd.dmar.table import Table, TableError

TABLE = Table.parse(
    next(each for each in clean_tables() if each.id.endswith("synthetic-multiseg2")).data
)


def assert_sealed(table: Table) -> None:
    assert table.sealed().pack() == table.pack()
    assert not {"DMAR-H05", "DMAR-S08", "DMAR-H03"} & {each.rule for each in check(table)}


def test_a_dropped_region_is_gone() -> None:
    edited = drop_rmrr(TABLE, 0x7A000000)
    assert [each.base for each in edited.all(Rmrr)] == [0x7A010000]
    assert_sealed(edited)


def test_an_added_region_comes_after_the_other_regions() -> None:
    edited = add_rmrr(TABLE, 0x7B000000, 0x7B001FFF, ["0001:00:14.0", "0001:00:1d.0/00.1"])
    region = edited.all(Rmrr)[-1]
    assert (region.segment, region.base, region.limit) == (1, 0x7B000000, 0x7B001FFF)
    assert [str(entry) for entry in region.scopes] == [
        "pci_endpoint 00:14.0",
        "pci_endpoint 00:1d.0/00.1",
    ]
    assert_sealed(edited)
    assert drop_rmrr(edited, 0x7B000000).pack() == TABLE.pack()


def test_a_moved_device_is_listed_by_its_new_unit_only() -> None:
    listed = move_device(TABLE, "00:05.0", 0xFB000000)
    assert [str(entry) for entry in listed.units[0].scopes][-1] == "pci_endpoint 00:05.0"
    assert_sealed(listed)
    back = move_device(listed, "00:05.0", 0xFB001000)
    assert back.pack() == TABLE.pack()


def test_a_moved_bridge_stays_a_bridge() -> None:
    edited = move_device(TABLE, "00:01.0", 0xFB001000)
    assert edited.units[0].scopes == ()
    edited = move_device(TABLE, "0001:00:02.0", 0xFB002000)
    assert [str(each) for each in edited.units[2].scopes] == [
        "pci_sub_hierarchy 00:03.0",
        "pci_sub_hierarchy 00:02.0",
    ]


def test_a_moved_device_takes_its_entry_along_odd_byte_and_all() -> None:
    odd = DeviceScope(type=1, entry_length=9, path_bytes=b"\x05\0\x09")
    start = replace(TABLE, structures=(replace(TABLE.units[0], scopes=(odd,)), *TABLE.units[1:]))
    assert move_device(start.sealed(), "00:05.0", 0xFB001000).units[0].scopes == ()


def test_flags_are_set_and_cleared() -> None:
    edited = set_flag(TABLE, "dma_ctrl_platform_opt_in", True)
    assert edited.header.flags.dma_ctrl_platform_opt_in
    assert_sealed(edited)
    assert set_flag(edited, "dma_ctrl_platform_opt_in", False).pack() == TABLE.pack()
    units = set_flag(TABLE, "include_pci_all@0xfb001000", False).all(Drhd)
    assert [unit.flags.include_pci_all for unit in units] == [False, False, False, True]
    for place in ("0x30", "30", f"{TABLE.units[0].register_base:x}"):
        assert set_flag(TABLE, f"include_pci_all@{place}", True).units[0].flags.include_pci_all


def test_a_unit_takes_no_more_devices_than_its_length_can_say() -> None:
    entries = tuple(DeviceScope.of(1, ((1, 0),), start_bus=2) for _ in range(8189))
    full = replace(TABLE, structures=(replace(TABLE.units[0], scopes=entries),))
    with pytest.raises(TableError, match="structure 0: 65536 bytes are too many for Length"):
        move_device(full, "00:05.0", TABLE.units[0].register_base)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: drop_rmrr(TABLE, 0x123000), "no RMRR has base 0x123000"),
        (lambda: add_rmrr(TABLE, 0x1001, 0x1FFF, ["00:02.0"]), "whole 4 KiB pages"),
        (lambda: add_rmrr(TABLE, 0x2000, 0x1FFF, ["00:02.0"]), "whole 4 KiB pages"),
        (lambda: add_rmrr(TABLE, 0x1000, 0x1FFF, []), "at least one device"),
        (lambda: add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:02.0", "0001:00:02.0"]), "one segment"),
        (lambda: add_rmrr(TABLE, 0x1000, 0x1FFF, ["nonsense"]), "nonsense"),
        (lambda: move_device(TABLE, "00:02.0", 0x1000), "no unit with base 0x1000"),
        (lambda: set_flag(TABLE, "speed", True), "'speed' is none of intr_remap"),
        (lambda: set_flag(TABLE, "include_pci_all@here", True), "neither a register base"),
        (lambda: set_flag(TABLE, "include_pci_all@1", True), "no structure with a flag"),
        (lambda: parse_device("00:1c.0/xx"), "'xx' is not device.function"),
    ],
)
def test_an_edit_that_does_not_apply_says_why(action: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        action()
