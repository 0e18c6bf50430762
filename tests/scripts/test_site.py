"""The pages of the site: links lead somewhere, text stays text, what the page loads is listed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from scripts.site_pages import PLACES, SitePages, page_of, slug

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """The targets and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.targets += [value for name in ("href", "src") if (value := values.get(name))]
        if anchor := values.get("id"):
            self.anchors.add(anchor)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, and empty files where its navigation leads beside it."""
    folder = tmp_path_factory.mktemp("site")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    sources = [each for each in listed.stdout.split() if (ROOT / each).exists()]
    pages = SitePages(ROOT, folder, list(PLACES))
    titles = pages.write(sources)
    assert set(titles) == set(sources) > {"README.md", "docs/dmar.md"}
    for each in ("docs/index.html", "reference/index.html", "try/index.html"):
        pages.write_page(each, each, "")
    for each in ("style.css", "icon.svg"):
        (folder / each).write_text("")
    return folder


def links(site: Path) -> Iterator[tuple[Path, str]]:
    for page in sorted(site.rglob("*.html")):
        for target in Links(page.read_text()).targets:
            yield page, target


def test_every_link_leads_to_a_page_and_a_place_on_it(site: Path) -> None:
    anchors: dict[Path, set[str]] = {}
    found = 0
    for page, target in links(site):
        parts = urlsplit(target)
        if parts.scheme:
            continue
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert file.is_file(), (page, target)
        if parts.fragment:
            known = anchors.setdefault(file, Links(file.read_text()).anchors)
            assert parts.fragment in known, (page, target)
        found += 1
    assert found > 500


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert "default-src 'none'" in text
    shown = {target for _, target in links(site) if not target.startswith("http")}
    assert not [each for each in shown if urlsplit(each).scheme or each.startswith("//")]


def test_text_and_code_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# <b>T</b> `x<y`\n\n<script>1</script>\n\n    <i>\n\n```\n<u>\n```\n\n"
        "[d](b.py) [e](no.md)\n"
    )
    (tmp_path / "b.py").write_text("print('<hr>')")
    SitePages(tmp_path, tmp_path / "out", ["index.html"]).write(["a.md"])
    text = (tmp_path / "out" / "a.html").read_text() + (tmp_path / "out" / "b.py.html").read_text()
    for each in ("<b>", "<script", "<i>", "<u>", "<hr>"):
        assert each not in text.partition("<main>")[2]
    assert '<a href="b.py.html">d</a> <span>e</span>' in text


def test_headings_have_the_anchors_of_forges() -> None:
    assert slug("What is `vtd`'s DMAR table?") == "what-is-vtds-dmar-table"
    assert [page_of(each) for each in ("README.md", "docs/dmar.md", "docs/a.svg", "a/b.py")] == [
        "index.html", "docs/dmar.html", "docs/a.svg", "a/b.py.html",
    ]  # fmt: skip


def test_the_lock_of_npm_is_exact_and_names_no_host() -> None:
    wanted = json.loads((ROOT / "docs/site/package.json").read_text())["dependencies"]
    lock = json.loads((ROOT / "docs/site/package-lock.json").read_text())["packages"]
    assert all(version[0].isdigit() for version in wanted.values())
    for name, each in lock.items():
        assert "resolved" not in each, name
        assert not name or each["integrity"].startswith("sha512-")
