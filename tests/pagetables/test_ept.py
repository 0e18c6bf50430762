"""EPT entries: each field at the bits that Tables 28-1 to 28-6 of the SDM print."""

import pytest

from pagetables.bits import BitRecord, Implementation
from pagetables.ept import (
    PAGES,
    EptEntry,
    EptPage1G,
    EptPage2M,
    EptPage4K,
    decode_ept_entry,
    ept_geometry,
)

FLAGS = {"r": 0, "w": 1, "x": 2, "a": 8, "xu": 10}
PAGE = {**FLAGS, "ipat": 6, "d": 9, "sve": 63}


@pytest.mark.parametrize(
    ("record", "flags", "lowest"),
    [
        (EptEntry, FLAGS, 12),
        (EptPage4K, PAGE, 12),
        (EptPage2M, {**PAGE, "ps": 7}, 21),
        (EptPage1G, {**PAGE, "ps": 7}, 30),
    ],
)
def test_fields_sit_where_the_manual_has_them(
    record: type[BitRecord], flags: dict[str, int], lowest: int
) -> None:
    assert record.WIDTH == 64
    for name, bit in flags.items():
        assert record.of(**{name: True}) == 1 << bit
    assert record.of(addr=(1 << 52) - (1 << lowest)) == (1 << 52) - (1 << lowest)
    if record is not EptEntry:
        assert record.of(emt=7) == 0b111 << 3


@pytest.mark.parametrize(
    ("record", "below", "reserved"),
    [(EptEntry, 12, 0xF8), (EptPage4K, 12, 0), (EptPage2M, 21, 0), (EptPage1G, 30, 0)],
)
def test_reserved_are_the_address_above_the_width_and_below_the_page_size(
    record: type[BitRecord], below: int, reserved: int
) -> None:
    unit = Implementation(46, 16, frozenset({"ept_1g", "ept_2m"}))
    above = (1 << 52) - (1 << 46)
    assert record.reserved_mask(unit) == above | (1 << below) - (1 << 12) | reserved
    assert EptPage2M.reserved_mask(Implementation()) & 1 << 7
    assert EptPage1G.reserved_mask(Implementation()) & 1 << 7


def test_pages_are_laid_out_by_their_size() -> None:
    assert {size: record.FIELDS["addr"].low for size, record in PAGES.items()} == {
        12: 12,
        21: 21,
        30: 30,
    }


@pytest.mark.parametrize(
    ("shift", "bit_7_clear", "bit_7_set"),
    [
        (12, EptPage4K, EptPage4K),
        (21, EptEntry, EptPage2M),
        (30, EptEntry, EptPage1G),
        (39, EptEntry, EptEntry),
        (48, EptEntry, EptEntry),
    ],
)
def test_bit_7_makes_a_page_of_an_entry_where_pages_have_that_size(
    shift: int, bit_7_clear: type[BitRecord], bit_7_set: type[BitRecord]
) -> None:
    assert type(decode_ept_entry(shift, 0b111)) is bit_7_clear
    assert type(decode_ept_entry(shift, 0b111 | 1 << 7)) is bit_7_set


@pytest.mark.parametrize("features", [frozenset[str](), frozenset({"mode_based_execute"})])
def test_one_right_makes_an_entry_present_and_xu_with_mode_based_execution_only(
    features: frozenset[str],
) -> None:
    geometry = ept_geometry(4, Implementation(features=features))
    xu = 1 << 10
    assert geometry.present == geometry.rights == (0b111 | xu if features else 0b111)
