import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables import second_stage
from pagetables.bits import BitRecord, Implementation
from pagetables.second_stage import (
    SecondStageEntry,
    SecondStagePage1G,
    SecondStagePage2M,
    SecondStagePage4K,
)

RECORDS = [SecondStageEntry, SecondStagePage1G, SecondStagePage2M, SecondStagePage4K]
EVERYTHING = frozenset({"sslps_1g", "sslps_2m", "sc", "ssirwe"})

widths = st.integers(32, 52)


def bits(high: int, low: int) -> int:
    return (1 << high + 1) - (1 << low)


@pytest.mark.parametrize("record", RECORDS)
@given(number=st.integers(0, 2**64 - 1))
def test_build_after_parse_gives_the_same_bytes(record: type[BitRecord], number: int) -> None:
    data = number.to_bytes(8, "little")
    assert record.codec.build(record.codec.parse(data)) == data


@given(widths)
@pytest.mark.section("9.8")
def test_a_pointer_reserves_the_address_above_the_width_and_bits_11_and_7(haw: int) -> None:
    mask = SecondStageEntry.reserved_mask(Implementation(haw, 16, EVERYTHING))
    assert mask == bits(51, haw) | 1 << 11 | 1 << 7


@given(widths)
@pytest.mark.section("9.8")
def test_a_large_page_reserves_the_address_bits_below_its_size(haw: int) -> None:
    implementation = Implementation(haw, 16, EVERYTHING)
    assert SecondStagePage1G.reserved_mask(implementation) == bits(51, haw) | bits(29, 12)
    assert SecondStagePage2M.reserved_mask(implementation) == bits(51, haw) | bits(20, 12)
    assert SecondStagePage4K.reserved_mask(implementation) == bits(51, haw)


@pytest.mark.parametrize("record", RECORDS)
def test_io_write_is_reserved_and_io_read_ignored_unless_enabled(record: type[BitRecord]) -> None:
    without = record.reserved_mask(Implementation(52, 16, EVERYTHING - {"ssirwe"}))
    assert without & second_stage.IO_WRITE
    assert not without & second_stage.IO_READ


@pytest.mark.parametrize("record", RECORDS[1:])
def test_snoop_is_reserved_without_snoop_control(record: type[BitRecord]) -> None:
    without = record.reserved_mask(Implementation(52, 16, EVERYTHING - {"sc"}))
    assert without & second_stage.SNOOP


def test_page_size_is_reserved_where_that_size_is_not_supported() -> None:
    without_1g = Implementation(52, 16, EVERYTHING - {"sslps_1g"})
    assert SecondStagePage1G.reserved_mask(without_1g) & second_stage.PAGE_SIZE
    assert not SecondStagePage2M.reserved_mask(without_1g) & second_stage.PAGE_SIZE
    assert SecondStagePage2M.reserved_mask(Implementation(52)) & second_stage.PAGE_SIZE


def test_masks_of_the_walk_are_the_bits_of_the_tables() -> None:
    assert (second_stage.READ, second_stage.WRITE) == (1, 2)
    assert second_stage.PAGE_SIZE == SecondStagePage1G.ps.mask == 1 << 7
    assert (second_stage.ACCESSED, second_stage.DIRTY) == (1 << 8, 1 << 9)
    assert (second_stage.IO_READ, second_stage.IO_WRITE) == (1 << 61, 1 << 62)
    assert bits(51, 12) == SecondStageEntry.addr.mask


def test_memory_types_have_the_numbers_of_9_8() -> None:
    types = {each.name: each.value for each in second_stage.ExtendedMemoryType}
    named = {name: value for name, value in types.items() if not name.startswith("RESERVED")}
    assert named == {"UC": 0, "WC": 1, "WT": 4, "WP": 5, "WB": 6}
    assert set(types.values()) == set(range(8))
