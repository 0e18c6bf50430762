"""Every drill is green with its guard and red without, and the page of drills is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtd.host.drills.all_drills import DRILLS
from vtd.host.drills.drill import Drill

PAGE = Path(__file__).parents[3] / "docs" / "passthrough.md"


@pytest.mark.parametrize("drill", DRILLS.values(), ids=DRILLS)
def test_a_drill_is_green_with_its_guard_and_red_without(drill: Drill) -> None:
    with_guard = drill.run()
    assert with_guard.green, [each.text for each in with_guard.checks if not each.holds]
    assert not drill.run(guarded=False).green


def test_the_page_lists_every_drill() -> None:
    page = PAGE.read_text()
    for each in DRILLS.values():
        assert f"| `{each.name}` | {each.title} | {each.guard} | {each.section} |" in page
