"""``vtd groups``: the isolation groups of a machine, and the reason for every join."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from vtd.commands.reading import read_pci_tree, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output
from vtd.commands.rendering.picture import SvgFile, show_or_draw
from vtd.dmar.pci_tree import PciTree
from vtd.inspection.acs_quirks import SOURCE
from vtd.inspection.group_rows import groups_row, listed_groups, require_buses
from vtd.inspection.isolation_groups import Groups, isolation_groups
from vtd.inspection.machine_picture import groups_svg


def groups(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="lspci -vvv as root, groups by a script, dmesg, copied sysfs, JSON, a collection.",
        ),
    ],
    svg: SvgFile = None,
    format: Output = Format.TEXT,
) -> None:
    """Form isolation groups as Linux does, and say which port lacks which ACS bit.

    What a listing does not show counts as not isolated and is named, unless the listing tells the
    groups themselves. Exit code 0, 2 for unusable input.
    """
    tree = read_pci_tree(file)
    with unusable_input(file):
        assert tree is not None  # a file is given
        require_buses(tree)
    found = isolation_groups(tree)
    document = groups_row(found, tree)
    rows = ({"group": group} for group in document["groups"])
    answer = CommandAnswer(document, rows, _lines(found, tree))
    show_or_draw(answer, format, svg, lambda: groups_svg(found, tree))


def _lines(found: Groups, tree: PciTree) -> Iterator[str]:
    listed = dict(listed_groups(tree))
    for number, group in enumerate(found.groups, 1):
        numbers = {listed[bdf] for bdf in group if bdf in listed}
        own = f" (group {numbers.pop()} of the listing)" if len(numbers) == 1 else ""
        yield f"group {number}{own}: {', '.join(map(str, group))}"
        for join in found.joins:
            if join.second in group:
                mark = "" if join.known else "not known: "
                yield f"  {join.second} with {join.first}: {mark}{join.reason}"
    for bdf in found.unplaced:
        yield f"{bdf}: below a bridge that the listing lacks, so its group may be larger"
    for bdf, quirk in found.trusted:
        yield f"{bdf} counts as isolated: {quirk.value} ({SOURCE})"
    overridden = found.overridden()
    if overridden != found.groups:
        yield (
            f"with pcie_acs_override=downstream,multifunction Linux would show "
            f"{len(overridden)} groups; these would still share:"
        )
        for join in found.joins:
            if join.by_override:
                yield f"  {join.second} with {join.first}: {join.reason}"
    yield from _disagreement(found, tree)


def _disagreement(found: Groups, tree: PciTree) -> Iterator[str]:
    """Groups of the listing that are not these, such as those of a patched kernel."""
    listed = dict(listed_groups(tree))
    for group in found.groups:
        numbers = {listed[bdf] for bdf in group if bdf in listed}
        if len(numbers) > 1:
            yield f"the listing has {', '.join(map(str, group))} in groups {sorted(numbers)}"
