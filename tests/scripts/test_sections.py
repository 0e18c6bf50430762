"""The page of sections is that of the markers, and markers name sections that there are."""

from scripts.sections import sections, shown


def test_markers_name_sections_of_the_list() -> None:
    assert set(shown()) <= set(sections())
