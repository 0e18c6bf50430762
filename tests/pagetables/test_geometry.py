"""Geometry: what the levels are, and that their masks are the reserved bits the oracle lists."""

import pytest
from hypothesis import given

from pagetables.bits import Implementation
from pagetables.geometry import (
    Geometry,
    StageKind,
    first_stage_geometry,
    second_stage_geometry,
)
from tests.support.oracle import Tables, reserved_bits
from tests.support.strategies import geometry_of, implementations


def expected_masks(kind: StageKind, unit: Implementation, number: int) -> tuple[int, int]:
    """Reserved bits of an entry of level ``number``: as a pointer to a table, as a page."""
    tables = Tables(kind.value, 5, 0, unit.haw, unit.features)
    table, page = (
        sum(1 << bit for bit in reserved_bits(tables, number, as_page)) for as_page in (False, True)
    )
    return table, page


@given(implementations)
def test_each_level_checks_the_bits_that_the_specification_reserves(unit: Implementation) -> None:
    for kind in StageKind:
        for count in (4, 5):
            geometry = geometry_of(kind, count, unit)
            for number, level in zip(range(count, 0, -1), geometry.levels, strict=True):
                assert level.shift == 12 + 9 * (number - 1)
                table, page = expected_masks(kind, unit, number)
                if number == 1:
                    assert level.leaf == geometry.present
                    assert level.page_reserved == page
                    continue
                assert level.stop == table | (0x80 if number < 4 else 0)
                assert level.leaf == (0x80 if number < 4 else 0)
                assert level.page_reserved == (page if number < 4 else 0)


@pytest.mark.parametrize(("levels", "width"), [(3, 39), (4, 48), (5, 57)])
def test_the_levels_make_the_width(levels: int, width: int) -> None:
    assert second_stage_geometry(levels, Implementation()).width == width


def test_only_the_first_stage_knows_users_and_only_the_second_write_only_pages() -> None:
    first: Geometry = first_stage_geometry(4, Implementation())
    second = second_stage_geometry(4, Implementation())
    assert first.user and not second.user
    assert first.present == first.read
    assert second.present == second.read | second.write


@pytest.mark.parametrize("levels", [-1, 0, 2, 6])
def test_other_depths_do_not_exist(levels: int) -> None:
    with pytest.raises(ValueError, match="levels"):
        second_stage_geometry(levels, Implementation())


def test_the_first_stage_has_no_three_levels() -> None:
    with pytest.raises(ValueError, match="levels"):
        first_stage_geometry(3, Implementation())
