"""Pages in the documentation that are written from code and tests are up to date."""

import pytest

from scripts.pages import DOCS, PAGES


@pytest.mark.parametrize("name", sorted(PAGES.keys() - {"fields.md"}))
def test_a_page_is_what_code_and_tests_say(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run python -m scripts.pages"
