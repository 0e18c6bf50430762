import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables import first_stage
from pagetables.bits import BitRecord, Implementation
from pagetables.first_stage import (
    FirstStageEntry,
    FirstStagePage1G,
    FirstStagePage2M,
    FirstStagePage4K,
)

RECORDS = [FirstStageEntry, FirstStagePage1G, FirstStagePage2M, FirstStagePage4K]
EVERYTHING = frozenset({"fs1gp"})

widths = st.integers(32, 52)


def bits(high: int, low: int) -> int:
    return (1 << high + 1) - (1 << low)


@pytest.mark.parametrize("record", RECORDS)
@given(number=st.integers(0, 2**64 - 1))
def test_build_after_parse_gives_the_same_bytes(record: type[BitRecord], number: int) -> None:
    data = number.to_bytes(8, "little")
    assert record.codec.build(record.codec.parse(data)) == data


@given(widths)
@pytest.mark.section("9.7")
def test_reserved_are_the_address_above_the_width_and_below_the_page_size(haw: int) -> None:
    implementation = Implementation(haw, 16, EVERYTHING)
    assert FirstStageEntry.reserved_mask(implementation) == bits(51, haw) | 1 << 7
    assert FirstStagePage1G.reserved_mask(implementation) == bits(51, haw) | bits(29, 13)
    assert FirstStagePage2M.reserved_mask(implementation) == bits(51, haw) | bits(20, 13)
    assert FirstStagePage4K.reserved_mask(implementation) == bits(51, haw)


def test_only_pages_of_1_gib_need_a_capability() -> None:
    assert FirstStagePage1G.reserved_mask(Implementation()) & first_stage.PAGE_SIZE
    assert not FirstStagePage2M.reserved_mask(Implementation()) & first_stage.PAGE_SIZE


def test_masks_of_the_walk_are_the_bits_of_the_tables() -> None:
    assert (first_stage.PRESENT, first_stage.WRITE, first_stage.USER) == (1, 2, 4)
    assert first_stage.PAGE_SIZE == FirstStagePage1G.ps.mask == 1 << 7
    assert (first_stage.ACCESSED, first_stage.DIRTY) == (1 << 5, 1 << 6)
    assert first_stage.EXTENDED_ACCESSED == 1 << 10
    assert bits(51, 12) == FirstStageEntry.addr.mask
