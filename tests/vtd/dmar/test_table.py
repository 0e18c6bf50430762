"""Whole tables: the walk is bounded and loses nothing, on real, malformed and arbitrary bytes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import CleanTable, MalformedTable, clean_tables, malformed_tables
from tests.support.dmar_strategies import any_bytes, tables
from vtd.dmar.decoded import decoded
from vtd.dmar.records import Drhd, Rmrr
from vtd.dmar.table import Table, TableError


@pytest.mark.parametrize("known", clean_tables(), ids=lambda known: known.id)
def test_decoded_content_is_the_known_one(known: CleanTable) -> None:
    table = Table.parse(known.data)
    assert decoded(table) == known.decoded
    assert table.pack() == known.data


@pytest.mark.parametrize("broken", malformed_tables(), ids=lambda broken: broken.id)
def test_malformed_tables_keep_every_byte(broken: MalformedTable) -> None:
    if len(broken.data) < 48:
        with pytest.raises(TableError, match="at least 48"):
            Table.parse(broken.data)
    else:
        assert Table.parse(broken.data).pack() == broken.data


@given(any_bytes())
def test_whatever_can_be_read_is_written_back_unchanged(data: bytes) -> None:
    if len(data) < 48:
        with pytest.raises(TableError):
            Table.parse(data)
        return
    table = Table.parse(data)
    assert table.pack() == data
    assert table.size == len(data)


@given(any_bytes())
def test_offsets_and_lengths_cover_the_table_without_gaps(data: bytes) -> None:
    if len(data) < 48:
        return
    table = Table.parse(data)
    position = 48
    for structure in table.structures:
        assert structure.offset == position
        assert structure.pack() == data[position : position + structure.length]
        for entry in structure.scopes:
            assert entry.pack() == data[entry.offset : entry.offset + entry.length]
        position += structure.length
    assert table.rest_place == (position, len(table.rest))


@given(tables(), st.binary(max_size=8))
def test_a_sealed_table_has_right_length_and_checksum(table: Table, trailing: bytes) -> None:
    sealed = replace(table, trailing=trailing).sealed()
    data = sealed.pack()
    assert sealed.header.table_length == len(data) - len(trailing)
    assert sum(data[: sealed.header.table_length]) % 256 == 0
    assert sealed.structures == table.structures
    assert sealed.sealed() == sealed


def test_the_walk_ends_at_a_structure_that_leaves_the_table() -> None:
    table = Table(Table.parse(b"DMAR" + bytes(44)).header, (Drhd(), Rmrr())).sealed()
    data = bytearray(table.pack())
    data[66] = 25  # one byte more than there is
    read = Table.parse(bytes(data))
    assert read.structures == (Drhd(),)
    assert read.rest_place == (64, 24)
    assert read.pack() == data
