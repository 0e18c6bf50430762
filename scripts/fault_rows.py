"""The page of fault conditions and tests that meet them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import NamedTuple

from scripts.sections import ROOT, TESTS, marks

HEAD = """# Fault conditions and the tests that meet them

This page is written by `python -m scripts.pages`, from the cases of parametrized tests, the
marker `fault` of others, and the list `tests/fault_rows.txt`: a line for each row of Tables 15 and
30 of VT-d Rev 5.10. A dash stands where the tables have NA.

"""
KINDS = {
    "u": ("untranslated", "tests/vtd/unit/requests/test_faults.py", "DIRECTED"),
    "t": ("translation", "tests/vtd/unit/translation/test_ats.py", "ATS_CASES"),
    "d": ("translated", "tests/vtd/unit/translation/test_translated.py", "TRANSLATED_CASES"),
    "p": ("page request", "tests/vtd/unit/queues/test_page_requests.py", "TABLE_CASES"),
    "i": ("interrupt", "tests/vtd/unit/interrupts/test_interrupt_remapping.py", "CASES"),
}
"""Kinds of requests, and the test and list that have the cases of each."""


class Row(NamedTuple):
    """A row of the tables: which kinds of requests can meet the condition."""

    condition: str
    code: str
    kinds: str
    text: str


Shown = dict[tuple[str, str], set[tuple[str, str]]]


def rows() -> list[Row]:
    """The rows of the list."""
    lines = (TESTS / "fault_rows.txt").read_text().splitlines()
    return [Row(*line.split(" ", 3)) for line in lines]


def shown() -> Shown:
    """Text and file of what meets a condition, by condition and kind of request."""
    found: Shown = defaultdict(set)
    for kind, (_, file, name) in KINDS.items():
        module = import_module(file.removesuffix(".py").replace("/", "."))
        for condition, text in _cases(getattr(module, name)):
            found[condition, kind].add((text, file))
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if "mark.fault(" in text:
            for test, mark in marks(ast.parse(text), "fault"):
                condition, kinds = mark.split()
                for kind in kinds:
                    title = test.removeprefix("test_").replace("_", " ")
                    found[condition, kind].add((title, path.relative_to(ROOT).as_posix()))
    return dict(found)


def _cases(cases: Iterable[tuple[object, ...]]) -> Iterator[tuple[str, str]]:
    """Condition and name of the cases of a test."""
    for case, name, *_ in cases:
        if isinstance(case, int):
            yield f"{case:X}", str(name)
        else:
            yield case.condition, case.name  # type: ignore[attr-defined]


def of_row(row: Row, kind: str, found: Shown) -> list[tuple[str, str]]:
    """What meets a row in requests of a kind; cases of a code with several rows are of the one."""
    own = found.get((row.condition, kind), set())
    whole = row.condition.rpartition(".")[0]
    return sorted(own | (found.get((whole, kind), set()) if whole.count(".") else set()))


def page() -> str:
    """The page."""
    lines = ["| condition | code | what is wrong | " + " | ".join(_titles("utdp")) + " |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    interrupts = ["| code | what is wrong | tests |", "| --- | --- | --- |"]
    missing, count, found = [], 0, shown()
    for row in rows():
        cells = {}
        for kind in row.kinds:
            tests = of_row(row, kind, found)
            cells[kind] = "<br>".join(f"[{text}](../{file})" for text, file in tests)
            count += bool(tests)
            if not tests:
                missing.append(f"{row.condition} ({row.text}): {KINDS[kind][0]}")
        if "i" in row.kinds:
            interrupts.append(f"| {row.code}h | {row.text} | {cells['i']} |")
            continue
        code = "" if row.code == "-" else f"{row.code}h"
        columns = " | ".join(cells.get(kind, "-") for kind in "utdp")
        lines.append(f"| {row.condition} | {code} | {row.text} | {columns} |")
    places = sum(len(row.kinds) for row in rows())
    total = f"{count} of {places} rows, by kind of request, have a test.\n"
    without = ["", "## Without a test", "", *(f"- {each}" for each in missing), ""]
    parts = [*lines, "", "## Interrupt requests", "", *interrupts, *(without if missing else [""])]
    return HEAD + total + "\n" + "\n".join(parts)


def _titles(kinds: str) -> list[str]:
    return [KINDS[kind][0] for kind in kinds]
