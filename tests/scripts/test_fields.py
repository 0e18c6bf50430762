"""The page of fields is that of the declarations and the tests, and markers name fields."""

from scripts.fields import PAGE, fields, named, page, records


def test_the_page_in_the_documentation_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run python -m scripts.fields"


def test_tests_name_fields_that_there_are() -> None:
    known = {(record.__name__, name) for record in records() for name in fields(record)}
    assert set(named()) <= known
