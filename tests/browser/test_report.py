"""Reports in a browser: nothing is said, asked for or cut off, and everybody can use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from tests.browser.browser import Served, Watched, browser, missing, served
from tests.page_inputs import EXAMPLES, FAULTS
from tests.support.reference_data import CAPTURES
from vtd.cli import main

pytest.importorskip("jinja2", reason="the report extra is not installed")
pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no browser tests: {'; '.join(missing())}")
REPORTS = {
    "a capture with faults": [FAULTS],
    "the largest capture": [CAPTURES / "legacy39-lazy"],
    "a log and a listing": [EXAMPLES / "server-log.txt", EXAMPLES / "server-lspci.txt"],
    "registers": [EXAMPLES / "capabilities.txt"],
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A report about each, as ``number.html``."""
    folder = tmp_path_factory.mktemp("reports")
    for number, inputs in enumerate(REPORTS.values()):
        arguments = ["report", *map(str, inputs), "-o", str(folder / f"{number}.html")]
        assert CliRunner().invoke(main, arguments).exit_code == 0
    with served(folder) as server:
        yield server


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """A page in a browser of its own."""
    with browser() as chromium:
        yield Watched(chromium.new_context(viewport={"width": 1440, "height": 900}))


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_quiet_alone_and_for_everybody(
    name: str, reports: Served, watched: Watched
) -> None:
    page = watched.page
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(color_scheme="light")
    watched.requests.clear()
    address = f"{reports.origin}/{list(REPORTS).index(name)}.html"
    page.goto(address)
    assert watched.faults_of_access() == []
    page.emulate_media(color_scheme="dark")
    assert watched.faults_of_access("color-contrast") == []
    for width in (1440, 375):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    asked = {url for url in watched.requests if not url.startswith("data:")}
    assert asked == {address}
    assert watched.said == []
