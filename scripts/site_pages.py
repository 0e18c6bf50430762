"""Markdown of the repository as pages of the site: the same tree of files, links that lead there.

README.md becomes ``index.html``, every other page keeps its place. What a page links to that is no
Markdown, such as a test, is shown as a page too; pictures are copied. A link to what the site does
not have becomes plain text.
"""

from __future__ import annotations

import html
import posixpath
import re
import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
PICTURES = {".svg", ".png"}
PLACES = {
    "index.html": "vtd",
    "docs/index.html": "Documentation",
    "reference/index.html": "Reference",
    "try/index.html": "Try it",
}
"""What the navigation leads to."""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{up}icon.svg">
<link rel="stylesheet" href="{up}style.css">
</head>
<body>
<header>
{navigation}
</header>
<main>
{content}
</main>
</body>
</html>
"""


class _Renderer(RendererHTML):
    """HTML in which what is wide scrolls by itself, with the keyboard too."""

    def table_open(self, *_: object) -> str:
        return '<div class="scrolled" tabindex="0" role="group" aria-label="Table"><table>\n'

    def table_close(self, *_: object) -> str:
        return "</table></div>\n"

    def fence(self, tokens: Sequence[Token], idx: int, *_: object) -> str:
        return f'<pre tabindex="0"><code>{html.escape(tokens[idx].content)}</code></pre>\n'

    def code_block(self, tokens: Sequence[Token], idx: int, *_: object) -> str:
        return self.fence(tokens, idx)


def navigation(page: str, places: Iterable[str]) -> str:
    """The links at the top of a page, from its place to those that there are."""
    links = []
    for place in places:
        current = ' aria-current="page"' if place == page else ""
        links.append(f'<a href="{relative(page, place)}"{current}>{PLACES[place]}</a>')
    return f'<nav aria-label="Site">{" ".join(links)}</nav>'


def relative(page: str, target: str) -> str:
    """The way from one page to a file of the site."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def slug(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower()))


class SitePages:
    """Pages of a repository, written below a folder."""

    def __init__(self, root: Path, site: Path, places: Sequence[str]) -> None:
        self._root, self._site, self._places = root, site, places
        self._markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer)
        self._markdown.enable(["table", "strikethrough"])
        self._done: set[str] = set()
        self._waiting: list[str] = []

    def write(self, sources: Iterable[str]) -> dict[str, str]:
        """Write these Markdown files and all that they lead to; titles by the file's name."""
        titles = {source: self._write_markdown(source) for source in sources}
        while self._waiting:
            self._write_other(self._waiting.pop())
        return titles

    def write_page(self, page: str, title: str, content: str) -> None:
        """Write one page with everything around its content."""
        file = self._site / page
        file.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * page.count("/")
        around = {"policy": POLICY, "up": up, "navigation": navigation(page, self._places)}
        file.write_text(PAGE.format(title=html.escape(title), content=content, **around))

    def _write_markdown(self, source: str) -> str:
        tokens = self._markdown.parse((self._root / source).read_text())
        title = source
        taken: dict[str, int] = {}
        for token, inside in pairwise(tokens):
            if token.type == "heading_open":
                words = "".join(each.content for each in inside.children or ())
                title = words if token.tag == "h1" else title
                anchor = slug(words)
                number = taken[anchor] = taken.get(anchor, -1) + 1
                token.attrSet("id", f"{anchor}-{number}" if number else anchor)
        self._resolve(source, [child for each in tokens for child in each.children or ()])
        content = self._markdown.renderer.render(tokens, self._markdown.options, {})
        self.write_page(page_of(source), title, str(content))
        return title

    def _resolve(self, source: str, inline: Sequence[Token]) -> None:
        """Have links and pictures of a page lead to pages and files of the site."""
        open_links: list[Token] = []
        for token in inline:
            if token.type == "link_open":
                target = self._target(source, str(token.attrGet("href")))
                token.attrs = {"href": target} if target else {}
                token.tag = "a" if target else "span"
                open_links.append(token)
            elif token.type == "link_close":
                token.tag = open_links.pop().tag
            elif token.type == "image":
                token.attrSet("src", self._target(source, str(token.attrGet("src"))) or "")

    def _target(self, source: str, link: str) -> str | None:
        """Where a link leads on the site; None for what the site does not have."""
        parts = urlsplit(link)
        if parts.scheme or not parts.path:
            return link
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), parts.path))
        file = self._root / path
        if file.is_dir():
            pages = [each for each in ("FORMAT.md", "README.md") if (file / each).exists()]
            if not pages:
                return None
            path = f"{path}/{pages[0]}"
        elif not file.is_file() or path.startswith(".."):
            return None
        if path not in self._done and not path.endswith(".md"):
            self._waiting.append(path)
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        return relative(page_of(source), page_of(path)) + anchor

    def _write_other(self, source: str) -> None:
        """Copy a picture, or show a text as a page."""
        if source in self._done:
            return
        self._done.add(source)
        if PurePosixPath(source).suffix in PICTURES:
            copy = self._site / source
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._root / source, copy)
            return
        text = html.escape((self._root / source).read_text())
        content = f'<h1>{html.escape(source)}</h1>\n<pre tabindex="0"><code>{text}</code></pre>'
        self.write_page(page_of(source), source, content)


def page_of(source: str) -> str:
    """Where the page of a file is."""
    path = PurePosixPath(source)
    if path.suffix in PICTURES:
        return source
    if source == "README.md":
        return "index.html"
    return str(path.with_suffix(".html")) if path.suffix == ".md" else f"{source}.html"
