"""The page of known differences has every departure by its name."""

from vtd.fuzz.departures import UNFOLLOWED
from vtd.fuzz.departures_page import departures_page
from vtd.unit.departures import FLAGS


def test_every_departure_has_a_name_of_its_own_and_a_row_without_an_empty_cell() -> None:
    names = [each.name for each in FLAGS] + [each.name for each in UNFOLLOWED]
    assert len(set(names)) == len(names)
    rows = [line for line in departures_page().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(names)
    for row in rows:
        cells = row.strip("| ").split(" | ")
        assert len(cells) == 5
        assert all(cells)
