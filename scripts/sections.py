"""The page of sections and the tests that show them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
HEAD = """# Sections and the tests that show them

This page is written by `python -m scripts.pages`, from the marker `section` of tests and the
list `tests/sections.txt`. Listed are the sections of VT-d Rev 5.10 that say what hardware does;
those for software and firmware only are left out.

"""


def sections() -> dict[str, str]:
    """Titles of the sections that say what hardware does, by number."""
    lines = (TESTS / "sections.txt").read_text().splitlines()
    return {number: title for number, _, title in (line.partition(" ") for line in lines)}


def marks(tree: ast.Module, marker: str = "section") -> Iterator[tuple[str, str]]:
    """Name of a test and what a marker says that it shows, such as the number of a section."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"pytest.mark.{marker}":
                    for number in mark.args:
                        yield node.name, str(ast.literal_eval(number))


def shown() -> dict[str, list[tuple[Path, str]]]:
    """File and name of the tests, by the sections that they show."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if "mark.section(" in text:
            for name, number in marks(ast.parse(text)):
                found[number].append((path, name))
    return dict(found)


def page() -> str:
    """The page."""
    tests, titles = shown(), sections()
    missing = [f"{number} {title}" for number, title in titles.items() if number not in tests]
    rows = [
        f"| {number} | {title} | {'<br>'.join(link(*each) for each in tests[number])} |"
        for number, title in titles.items()
        if number in tests
    ]
    count = f"{len(rows)} of {len(titles)} sections have a test that is marked with them.\n"
    table = ["| section | title | tests |", "| --- | --- | --- |", *rows]
    without = ["", "## Without a test", "", *(f"- {each}" for each in missing), ""]
    return HEAD + count + "\n" + "\n".join(table + (without if missing else [""]))


def link(path: Path, name: str) -> str:
    """A link to the file of a test, named by the test in words."""
    text = name.removeprefix("test_").replace("_", " ")
    return f"[{text}](../{path.relative_to(ROOT).as_posix()})"
