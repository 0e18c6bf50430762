"""The picture of who imports whom.

Packages stand above what they import, so every curve leads down. One that a longer way through
others implies is left out.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import grimp

from vtd.pictures.canvas import CHARACTER, Canvas, Tone, clipped

ROOT = Path(__file__).resolve().parents[1]
TOP = ("scripts", "vtd", "devices", "pagetables")
OPENED = ("vtd", "vtd.unit")
"""Packages that are drawn as a frame around what is in them."""
STARTED_BY_NAME = {("vtd.cli", "vtd.commands")}
"""Imported when a command runs, so that no import statement shows it."""

ROW, LEFT, WIDTH, STEP = 26, 20, 880, 14
"""Pixels: height of a row, indentation of a frame, right edge of the boxes, room for a curve."""

GRAPH = grimp.build_graph(*TOP)


def imports(importer: str, imported: str) -> bool:
    """Whether anything in one package imports anything in the other."""
    return (importer, imported) in STARTED_BY_NAME or GRAPH.direct_import_exists(
        importer=importer, imported=imported, as_packages=True
    )


def from_top(package: str | None = None) -> list[str]:
    """What is in a package, in opened packages too, each before what it imports."""
    siblings = sorted(GRAPH.find_children(package)) if package else list(TOP)

    @cache
    def height(name: str) -> int:
        below = [other for other in siblings if other != name and imports(name, other)]
        return 1 + max(map(height, below), default=0)

    rows = []
    for name in sorted(siblings, key=lambda name: (-height(name), name)):
        rows += [name, *from_top(name)] if name in OPENED else [name]
    return rows


def curves(rows: list[str]) -> list[tuple[str, str]]:
    """Importer and imported, without what follows from others."""
    closed = [row for row in rows if row not in OPENED]
    below = {
        row: {other for other in closed if other != row and imports(row, other)} for row in closed
    }

    @cache
    def reached(row: str) -> frozenset[str]:
        return frozenset(below[row]).union(*(reached(other) for other in below[row]))

    return [
        (row, other)
        for row in closed
        for other in sorted(below[row], key=rows.index)
        if not any(other in reached(between) for between in below[row])
    ]


def summary(name: str) -> str:
    """The first line of a module's or package's docstring, up to its first colon or full stop."""
    path = ROOT / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = (
        (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]
        if file.exists()
        else ""
    )
    return text.replace("``", "").split(". ")[0].rstrip(".")


def picture() -> str:
    """The SVG: a box for each row, frames around packages, curves at the right."""
    rows = from_top()
    canvas = Canvas()
    for number, name in enumerate(rows):
        indent = LEFT * (1 + sum(name.startswith(f"{each}.") for each in OPENED))
        inside = sum(row.startswith(f"{name}.") for row in rows) if name in OPENED else 0
        y, high = number * ROW + 12, inside * ROW + ROW - (2 if inside else 6)
        canvas.box(indent, y, WIDTH - indent, high, Tone.NOTE if inside else Tone.PLAIN)
        end = canvas.text(indent + 8, y + 2, name, "bold")
        room = int((WIDTH - end - 16) / CHARACTER)
        canvas.text(end + 10, y + 2, clipped(summary(name), room), tip=summary(name))
    for importer, imported in curves(rows):
        start, end = rows.index(importer), rows.index(imported)
        if end < start:
            raise SystemExit(f"{importer} imports {imported}, which stands above it")
        y, to, reach = start * ROW + 24, end * ROW + 20, STEP * (end - start) + 20
        canvas.path(
            f"M{WIDTH} {y}C{WIDTH + reach} {y} {WIDTH + reach} {to} {WIDTH + 2} {to}"
            f"M{WIDTH + 8} {to - 4}L{WIDTH + 2} {to}L{WIDTH + 8} {to + 4}",
            tip=f"{importer} imports {imported}",
            reach=WIDTH + reach * 3 / 4,
        )
    return f"{canvas.svg('Packages of the project, each above what it imports')}\n"
