"""Records of DMAR tables: layouts against the offsets of the specification, and round trips."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_strategies import scope_entries, structures
from vtd.dmar.records import (
    STRUCTURES,
    Andd,
    Atsr,
    DeviceScope,
    Drhd,
    Header,
    Record,
    Rhsa,
    Rmrr,
    Satc,
    ScopedStructure,
    Sidp,
    Structure,
    Undecoded,
    unpack_structure,
)


@pytest.mark.parametrize(
    ("kind", "offsets", "fixed"),
    [
        (Header, {"table_length": 4, "host_address_width": 36, "flags": 37, "reserved": 38}, 48),
        (Drhd, {"flags": 4, "size": 5, "segment": 6, "register_base": 8}, 16),
        (Rmrr, {"reserved": 4, "segment": 6, "base": 8, "limit": 16}, 24),
        (Atsr, {"flags": 4, "reserved": 5, "segment": 6}, 8),
        (Rhsa, {"reserved": 4, "register_base": 8, "proximity_domain": 16}, 20),
        (Andd, {"reserved": 4, "device_number": 7}, 8),
        (Satc, {"flags": 4, "reserved": 5, "segment": 6}, 8),
        (Sidp, {"reserved": 4, "segment": 6}, 8),
        (DeviceScope, {"type": 0, "flags": 2, "enumeration_id": 4, "start_bus": 5}, 6),
    ],
)
def test_fields_lie_where_the_specification_puts_them(
    kind: type[Record], offsets: dict[str, int], fixed: int
) -> None:
    places = kind.field_places()
    assert {name: places[name].offset for name in offsets} == offsets
    assert kind.fixed_length() == fixed


def test_structure_types_are_those_of_8_2() -> None:
    names = [STRUCTURES[number].NAME for number in range(7)]
    assert names == ["DRHD", "RMRR", "ATSR", "RHSA", "ANDD", "SATC", "SIDP"]


@given(structures())
def test_a_structure_keeps_every_byte(structure: Structure) -> None:
    data = structure.pack()
    again = unpack_structure(data, 64)
    assert again.pack() == data
    assert again == structure
    assert len(data) == structure.length


@given(scope_entries())
def test_a_scope_entry_keeps_every_byte(entry: DeviceScope) -> None:
    data = entry.pack()
    unit = Drhd(scopes=(entry,))
    again = unpack_structure(unit.pack(), 0)
    assert isinstance(again, ScopedStructure)
    assert again.scopes == (entry,)
    assert data[1] == len(data) == entry.length


@pytest.mark.parametrize("kind", list(STRUCTURES.values()))
def test_a_structure_shorter_than_its_fixed_part_is_kept_undecoded(kind: type[Structure]) -> None:
    whole = kind().pack()
    for length in range(4, len(whole)):
        data = whole[:2] + length.to_bytes(2, "little") + whole[4:length]
        structure = unpack_structure(data)
        assert isinstance(structure, Undecoded)
        assert structure.name == kind.NAME
        assert structure.pack() == data


def test_the_scope_walk_ends_at_a_length_it_cannot_follow_and_keeps_the_rest() -> None:
    entry = DeviceScope.of(DeviceScope.PCI_ENDPOINT, ((2, 0),)).pack()
    for bad_length in (0, 5, 9, 255):
        tail = bytes([1, bad_length]) + bytes(6)
        unit = Drhd(scopes=(), tail=entry + tail)
        again = unpack_structure(unit.pack())
        assert isinstance(again, Drhd)
        assert [each.pack() for each in again.scopes] == [entry]
        assert again.tail == tail
        assert again.tail_place == (24, 8)


def test_a_path_is_read_in_pairs_and_its_odd_byte_is_kept() -> None:
    entry = DeviceScope(type=1, entry_length=11, path_bytes=bytes([0x1C, 0, 3, 1, 9]))
    assert entry.path == ((0x1C, 0), (3, 1))
    assert str(entry) == "pci_endpoint 00:1c.0/03.1"


def test_an_entry_holds_124_pairs_at_most() -> None:
    assert DeviceScope.of(1, ((1, 0),) * 124).length == 254
    with pytest.raises(ValueError, match="path: 125 pairs do not fit"):
        DeviceScope.of(1, ((1, 0),) * 125)


def test_the_object_name_ends_at_its_nul() -> None:
    name = Andd(tail=b"\\_SB.PCI0.I2C0\0\0\0")
    assert (name.object_name, name.terminator) == ("\\_SB.PCI0.I2C0", 14)
    assert Andd(tail=b"\\_SB").terminator is None


def test_the_register_set_has_two_to_the_n_pages() -> None:
    unit = unpack_structure(Drhd(register_base=0xFED90000).pack())
    assert isinstance(unit, Drhd)
    assert unit.register_bytes == 0x1000
    data = bytearray(unit.pack())
    data[5] = 0xF4
    wide = unpack_structure(bytes(data))
    assert isinstance(wide, Drhd)
    assert wide.register_bytes == 0x10000


@given(st.binary(max_size=20))
def test_an_object_name_is_printable_whatever_its_bytes(name: bytes) -> None:
    andd = Andd(tail=name)
    assert andd.object_name.isprintable()
    if name.isascii() and name.decode("ascii").isprintable():
        assert andd.object_name == name.decode("ascii")
