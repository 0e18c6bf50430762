"""Reports in a browser: what they show is the JSON of the commands, and what their scripts do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.browser import Watched, browser, missing
from tests.page_inputs import INPUTS
from tests.support.reference_data import CAPTURES

pytest.importorskip("jinja2", reason="needs the report extra")

from tests.vtd.report import test_report as facts
from tests.vtd.report.pages import parsed, written
from tests.vtd.report.test_hostile_text import HOSTILE, given_files

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no browser tests: {'; '.join(missing())}")
FAULTS = CAPTURES / "edu-faults-legacy48"
LARGE = CAPTURES / "legacy39-lazy"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Opened(Watched):
    """A report, loaded from its file."""

    def __init__(self, chromium: Any, folder: Path, *inputs: str, width: int = 1440) -> None:
        super().__init__(chromium.new_context(viewport={"width": width, "height": 900}))
        written(folder, *inputs)
        self.place = (folder / "report.html").as_uri()
        self.page.goto(self.place)

    def check(self) -> Any:
        """What holds for every report; the page as it stands now, with what scripts did."""
        assert self.said == []
        assert self.requests == [self.place]
        return parsed(self.page.content())


@pytest.mark.parametrize("name", INPUTS)
def test_what_was_given_is_shown_as_the_commands_say_it(
    name: str, chromium: Any, tmp_path: Path
) -> None:
    files = []
    for file, data in INPUTS[name]:
        (tmp_path / file).write_bytes(data)
        files.append(str(tmp_path / file))
    opened = Opened(chromium, tmp_path, *files)
    page = opened.check()
    kinds = [each.attributes["data-kind"] for each in page.all("section", class_="part")]
    if kinds.count("table") == 1 and len(files) == 1:
        facts.check_findings(page, files[0])
    if kinds == ["log"]:
        facts.check_log(page, *files)
    assert kinds
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 1440
    opened.page.context.close()


def test_a_capture_is_shown_as_the_commands_say_it(chromium: Any, tmp_path: Path) -> None:
    opened = Opened(chromium, tmp_path, str(LARGE))
    page = opened.check()
    facts.check_findings(page, str(LARGE / "DMAR.bin"))
    facts.check_map(page, str(LARGE))
    facts.check_interrupts(page, str(LARGE))
    facts.check_walks(page)
    opened.page.context.close()


def test_the_ranges_of_a_cluster_are_listed_when_asked_for(chromium: Any, tmp_path: Path) -> None:
    opened = Opened(chromium, tmp_path, str(LARGE))
    page = opened.page
    sources = facts.document("mappings", str(LARGE))["sources"]
    leaves = max((each["leaves"] for each in sources), key=len)
    card = page.locator("article", has=page.locator("canvas")).last
    assert card.locator(".clusters tbody > tr").count() == 2
    for _ in range(2):
        card.get_by_role("button", name="Show the ranges").first.click()
    rows = card.locator(".clusters table tbody tr").all_inner_texts()
    shown = dict(tuple(each.split("\t")[:2]) for each in rows)  # IOVA range, physical
    starts = {key.partition("-")[0]: where for key, where in shown.items()}
    merged = [each for each in leaves if each[0] in starts]
    assert len(rows) == len(merged) == len(starts)
    assert all(starts[each[0]] == each[2] for each in merged)
    mapped = sum(int(each[1], 16) for each in leaves)
    card.get_by_role("button", name="What is mapped").click()
    told = card.locator("output").inner_text()
    assert f"{len(rows)} ranges, {mapped / (1 << 20):.2f} MiB mapped" in told
    card.locator("canvas").focus()
    page.keyboard.press("Home")
    assert card.locator("output").inner_text().startswith("0x0 to 0x8000000000:")
    page.keyboard.press("+")
    assert not card.locator("output").inner_text().startswith("0x0 to")
    opened.check()
    page.context.close()


def test_a_walk_is_stepped_through_by_keyboard(chromium: Any, tmp_path: Path) -> None:
    opened = Opened(chromium, tmp_path, str(FAULTS))
    walk = opened.page.locator("details.walk").first
    walk.locator("summary").focus()
    opened.page.keyboard.press("Enter")
    steps = walk.locator(".step")
    count = steps.count()
    assert steps.first.is_visible()
    walk.get_by_role("button", name="Next entry").focus()
    for number in range(1, count + 1):
        opened.page.keyboard.press("Enter")
        assert [each.is_visible() for each in steps.all()].index(True) == number - 1
        told = walk.locator("output").inner_text()
        assert told.startswith(f"Entry {number} of {count}: ")
    walk.get_by_role("button", name="All entries").click()
    assert all(each.is_visible() for each in steps.all())
    opened.page.context.close()


def test_a_field_and_its_bytes_light_up_together(chromium: Any, tmp_path: Path) -> None:
    opened = Opened(chromium, tmp_path, str(FAULTS / "DMAR.bin"))
    page = opened.page
    page.locator("tr[data-field]").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    lit = page.locator(".lit").all_inner_texts()
    assert [each.split() for each in lit] == [["01"], ["0x008", "revision", "1"]]
    page.context.close()


def test_hostile_text_does_nothing(chromium: Any, tmp_path: Path) -> None:
    files = []
    for number, text in enumerate(HOSTILE):
        folder = tmp_path / str(number)
        folder.mkdir()
        files += given_files(folder, text.replace("alert(1)", "window.hostile=1"))
    opened = Opened(chromium, tmp_path, *files)
    opened.page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert opened.page.evaluate("typeof hostile") == "undefined"
    assert opened.page.locator("main script:not([type])").count() == 0
    opened.check()
    opened.page.context.close()


def test_on_paper_everything_is_open(chromium: Any, tmp_path: Path) -> None:
    opened = Opened(chromium, tmp_path, str(FAULTS))
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("details:not([open])").count() == 0
    assert not opened.page.locator("nav").is_visible()
    assert not any(each.is_visible() for each in opened.page.locator("button").all())
    opened.page.context.close()
