"""Comparing tables by meaning."""

from dataclasses import replace

import pytest
from hypothesis import given

from tests.support.dmar_corpus import clean_tables
from tests.support.dmar_strategies import tables
from vtd.dmar.diff import diff
from vtd.dmar.edit import add_rmrr, drop_rmrr, move_device, set_flag
from vtd.dmar.records import (
    Andd,
    DeviceScope,
    Drhd,
    Rhsa,
    Rmrr,
    Sidp,
    Structure,
    Undecoded,
)
from vtd.dmar.table import Table

TABLE = Table.parse(
    next(each for each in clean_tables() if each.id.endswith("synthetic-multiseg2")).data
)


def changes(before: Table, after: Table) -> list[str]:
    return [str(change) for change in diff(before, after)]


def with_structure(table: Table, number: int, structure: Structure) -> Table:
    structures = list(table.structures)
    structures[number] = structure
    return replace(table, structures=tuple(structures))


@given(tables())
def test_a_table_does_not_differ_from_itself(table: Table) -> None:
    assert diff(table, table) == []


@given(tables())
def test_order_means_nothing(table: Table) -> None:
    kinds = [type(each) for each in table.structures]
    if len(set(kinds)) == len(kinds):
        assert diff(table, replace(table, structures=table.structures[::-1])) == []


@given(tables(), tables())
def test_any_two_tables_can_be_compared(before: Table, after: Table) -> None:
    assert all(str(change) for change in diff(before, after))


def test_a_unit_with_the_same_devices_has_moved() -> None:
    unit = TABLE.units[0]
    after = with_structure(TABLE, 0, replace(unit, register_base=0xFC000000))
    assert changes(TABLE, after) == ["unit 0xfb000000: moved to 0xfc000000"]


def test_a_region_grows_shrinks_and_moves() -> None:
    number = TABLE.structures.index(TABLE.all(Rmrr)[0])
    region = TABLE.all(Rmrr)[0]
    subject = "region 0x7a000000-0x7a00ffff"
    for base, limit, text in (
        (0x7A000000, 0x7A010FFF, "grew by 0x1000 bytes, now 0x7a000000-0x7a010fff"),
        (0x7A000000, 0x7A00EFFF, "shrank by 0x1000 bytes, now 0x7a000000-0x7a00efff"),
        (0x79000000, 0x7900FFFF, "moved, now 0x79000000-0x7900ffff"),
    ):
        after = with_structure(TABLE, number, replace(region, base=base, limit=limit))
        assert changes(TABLE, after) == [f"{subject}: {text}"]


def test_regions_come_and_go() -> None:
    less = drop_rmrr(TABLE, 0x7A000000)
    assert changes(TABLE, less) == ["region 0x7a000000-0x7a00ffff: lost"]
    more = add_rmrr(TABLE, 0x1000, 0x1FFF, ["00:14.0"])
    assert changes(TABLE, more) == ["region 0x1000-0x1fff: new, with pci_endpoint 00:14.0"]


def test_scopes_lost_and_new_are_named() -> None:
    after = move_device(TABLE, "0001:00:02.0", 0xFB003000)
    assert changes(TABLE, after) == ["unit 0xfb002000: scope lost: pci_sub_hierarchy 00:02.0"]
    assert changes(after, TABLE) == ["unit 0xfb002000: scope new: pci_sub_hierarchy 00:02.0"]


def test_flags_are_named() -> None:
    after = set_flag(TABLE, "x2apic_opt_out", True)
    expected = "table: flags 0x01 (intr_remap) -> 0x03 (intr_remap, x2apic_opt_out)"
    assert changes(TABLE, after) == [expected]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            Rhsa(register_base=0x1000, proximity_domain=0),
            Rhsa(register_base=0x1000, proximity_domain=1),
            "affinity of unit 0x1000: proximity_domain 0 -> 1",
        ),
        (
            Andd(device_number=1, tail=b"\\A\0"),
            Andd(device_number=1, tail=b"\\B\0"),
            "ACPI device 1: name \\A -> \\B",
        ),
        (
            Undecoded(number=9, tail=b"\1"),
            Undecoded(number=9, tail=b""),
            "structure of type 9: 01 -> none",
        ),
        (
            Drhd(register_base=0x1000, tail=b"\1"),
            Drhd(register_base=0x1000),
            "unit 0x1000, unreadable scope: 01 -> none",
        ),
    ],
)
def test_changes_inside_a_structure(old: Structure, new: Structure, text: str) -> None:
    before, after = Table(TABLE.header, (old,)), Table(TABLE.header, (new,))
    assert changes(before, after) == [text]


def test_flags_of_a_scope_entry_are_named() -> None:
    old, new = (DeviceScope.of(1, ((2, 0),), flags=flags) for flags in (8, 24))
    before, after = (Table(TABLE.header, (Sidp(scopes=(each,)),)) for each in (old, new))
    expected = "SIDP of segment 0: flags of pci_endpoint 00:02.0 0x0800 -> 0x1800"
    assert changes(before, after) == [expected]
