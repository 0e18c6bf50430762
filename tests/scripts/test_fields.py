"""The page of fields says what declarations and tests say, and markers name fields."""

import re

from scripts.fields import fields, named, page, records
from scripts.pages import DOCS

ROW = re.compile(r"^\| (\w+) \| [\d:]+ \| (.*) \|$")


def of_text(text: str) -> dict[tuple[str, str], list[str]]:
    """The links of each field, by record and name."""
    found, record = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            record = line[3:]
        row = ROW.match(line)
        if row:
            found[record, row[1]] = row[2].split("<br>")
    return found


def test_the_page_has_every_field_and_tests_that_still_name_it() -> None:
    """Which ones it shows may change with any test; whether there is one may not."""
    written, now = of_text((DOCS / "fields.md").read_text()), of_text(page(listed=None))
    assert written.keys() == now.keys()
    stale = {key for key, links in written.items() if not set(links) <= set(now[key])}
    assert not stale, "run python -m scripts.pages"
    shown = {key for key, links in written.items() if links != [""]}
    assert shown == {key for key, links in now.items() if links != [""]}


def test_tests_name_fields_that_there_are() -> None:
    known = {(record.__name__, name) for record in records() for name in fields(record)}
    assert set(named()) <= known
