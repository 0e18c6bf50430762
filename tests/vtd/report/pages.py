"""Reports as tests read them: elements, rows of tables, text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from typer.testing import CliRunner

from vtd.cli import main

VOID = {"meta", "link", "br", "img", "input", "hr"}


def written(tmp_path: Path, *inputs: str) -> str:
    """The report about some inputs."""
    file = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["report", *inputs, "-o", str(file)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    return file.read_text()


@dataclass
class Element:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str | None]
    content: list[Element | str] = field(default_factory=list)

    def all(self, name: str, **wanted: str) -> list[Element]:
        """The elements of a name at any depth, with these attributes; ``class_`` is one class."""
        found = []
        for each in self.content:
            if isinstance(each, Element):
                if each.name == name and all(each.has(*pair) for pair in wanted.items()):
                    found.append(each)
                found += each.all(name, **wanted)
        return found

    def has(self, name: str, value: str) -> bool:
        """Whether an attribute, or one of the classes, has this value."""
        if name == "class_":
            return value in (self.attributes.get("class") or "").split()
        return self.attributes.get(name.replace("_", "-")) == value

    @property
    def text(self) -> str:
        """All text in it, blanks folded."""
        parts = [each if isinstance(each, str) else each.text for each in self.content]
        return " ".join(" ".join(parts).split())

    def cells(self) -> list[str]:
        """The texts of the cells of a row."""
        return [
            each.text
            for each in self.content
            if isinstance(each, Element) and each.name in ("td", "th")
        ]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        element = Element(tag, dict(attrs))
        self._open[-1].content.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].content.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].content.append(data)


def parsed(page: str) -> Element:
    """The page as elements; AssertionError if one is not closed where it has to be."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.root
