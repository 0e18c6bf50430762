"""The report about inputs: what ``vtd report`` writes about the same files."""

from __future__ import annotations

from vtd.page.answers import Inputs
from vtd.page.given import Given, UnknownInputError, recognised
from vtd.report.contents import Contents


def add(contents: Contents, given: Given) -> None:
    """Put a recognised input into the contents of a report."""
    name, several = given.name, len(given.tables) > 1
    for number, table in enumerate(given.tables, 1):
        contents.tables.append((f"{name}#{number}" if several else name, table.data))
    if given.tree is not None:
        contents.listings.append((name, given.tree))
    if given.log is not None:
        contents.logs.append((name, given.log))
    if given.units:
        contents.capabilities.append((name, given.units))
    if given.reserved_memory is not None:
        contents.memory_maps.append((name, given.reserved_memory))


def report(inputs: Inputs) -> str:
    """The report as HTML; inputs that are nothing known are left out, as the page says them."""
    from vtd.report.page import render  # noqa: PLC0415 - needs an extra

    contents, names = Contents(), []
    for name, data in inputs:
        try:
            add(contents, recognised(name, data))
        except UnknownInputError:
            continue
        names.append(name)
    return render(", ".join(names), list(contents.sections()))
