"""Sections about units: any tables, both dimensions, and tables without end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

pytest.importorskip("jinja2", reason="needs the report extra")

from tests.support.world import Mode, World
from tests.support.world_strategies import hostile_worlds
from tests.vtd.report.pages import parsed
from vtd.inspection.request_explanation import explain_request
from vtd.inspection.request_rows import StepRow, request_row
from vtd.report import units
from vtd.report.page import render
from vtd.report.units import base_36, interrupts_section, translation_section
from vtd.unit.unit import RemappingUnit


def unit_of(world: World) -> RemappingUnit:
    return world.start().unit


def in_order(steps: tuple[StepRow, ...]) -> list[str]:
    """Names of the entries as they are read."""
    return [name for each in steps for name in (*in_order(each.second), each.level)]


@settings(max_examples=25)
@given(hostile_worlds())
def test_any_tables_become_a_page(world: World) -> None:
    unit = unit_of(world)
    sections = [
        translation_section("unit", unit, [world.request]),
        interrupts_section("unit", unit),
    ]
    page = parsed(render("unit", sections))
    assert [each.attributes["data-kind"] for each in page.all("section", class_="part")] == [
        "translation",
        "interrupts",
    ]


def test_a_nested_walk_is_stepped_through_in_both_dimensions() -> None:
    world = World(Mode.NESTED)
    unit = unit_of(world)
    page = parsed(render("unit", [translation_section("unit", unit, [world.request])]))
    walk = page.all("details", class_="walk")[0]
    row = request_row(explain_request(unit.remapping, world.request))
    expected = [each.name for each in row.structures] + in_order(row.steps)
    assert [each.all("strong")[0].text for each in walk.all("li", class_="step")] == expected
    assert expected.count("SS-PTE") == 5


def test_tables_that_are_too_large_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MOST_ENTRIES", 1)
    section = translation_section("unit", unit_of(World(Mode.SECOND)))
    assert "too large to be shown" in section.headline
    assert "too large" in parsed(render("unit", [section])).text


@pytest.mark.parametrize("number", [0, 35, 36, 1 << 52, -1, -(36**5)])
def test_base_36_is_what_parse_int_reads(number: int) -> None:
    assert int(base_36(number), 36) == number
