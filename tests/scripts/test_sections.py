"""The page of sections is that of the markers, and markers name sections that there are."""

from scripts.sections import PAGE, page, sections, shown


def test_the_page_in_the_documentation_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run python -m scripts.sections"


def test_markers_name_sections_of_the_list() -> None:
    assert set(shown()) <= set(sections())
