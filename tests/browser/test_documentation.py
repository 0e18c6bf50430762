"""Pages of the documentation in a browser: readable for everybody, at every width."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.browser.browser import ROOT, Watched, browser, missing, served

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no browser tests: {'; '.join(missing())}")
PAGES = ("README.md", "docs/architecture.md", "docs/try.md")


def test_pages_are_quiet_and_for_everybody(tmp_path: Path) -> None:
    from scripts.site_pages import SitePages, page_of  # noqa: PLC0415 - needs what a skip may lack

    for name in ("style.css", "icon.svg"):
        shutil.copyfile(ROOT / "docs" / "site" / name, tmp_path / name)
    SitePages(ROOT, tmp_path, ["index.html", "docs/index.html"]).write(PAGES)
    with served(tmp_path) as server, browser() as chromium:
        watched = Watched(chromium.new_context(viewport={"width": 1440, "height": 900}))
        page = watched.page
        for source in PAGES:
            page.set_viewport_size({"width": 1440, "height": 900})
            page.emulate_media(color_scheme="light")
            page.goto(f"{server.origin}/{page_of(source)}")
            assert watched.faults_of_access() == []
            page.emulate_media(color_scheme="dark")
            assert watched.faults_of_access("color-contrast") == []
            page.set_viewport_size({"width": 375, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert watched.said == []
        assert {each for each in watched.requests if not each.startswith(server.origin)} == set()
