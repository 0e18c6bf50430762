"""The functions of a machine as a tree, with the isolation group of each and why."""

from __future__ import annotations

from collections.abc import Iterator

from vtd.dmar.pci_tree import PciTree
from vtd.dmar.scopes import Scopes
from vtd.dmar.tree_picture import function_rows
from vtd.inspection.isolation_groups import Groups
from vtd.pictures.canvas import CHIPS, Tone
from vtd.pictures.markup import Markup
from vtd.pictures.tree import Chip, Row, tree_svg


def groups_svg(found: Groups, tree: PciTree) -> Markup:
    """Isolation groups: which functions are together, and why."""
    count = len(found.groups)
    title = f"{count} isolation group{'s' * (count != 1)} of {len(tree.functions)} functions"
    return tree_svg(title, list(_rows(tree, found, None)), _notes(found))


def machine_svg(
    tree: PciTree, found: Groups | None, scopes: Scopes | None, *, inline: bool = False
) -> Markup:
    """The functions of a listing with what is known of them."""
    rows = list(_rows(tree, found, scopes))
    return tree_svg(f"{len(tree.functions)} PCI functions", rows, inline=inline)


def _rows(tree: PciTree, found: Groups | None, scopes: Scopes | None) -> Iterator[Row]:
    """The rows of the functions, with chips and reasons of their groups."""
    groups, joins = (found.groups, found.joins) if found else ((), ())
    numbers = {bdf: n for n, group in enumerate(groups, 1) for bdf in group}
    for bdf, row in function_rows(tree, scopes):
        if bdf not in numbers:
            yield row
            continue
        group = Chip(f"group {numbers[bdf]}", f"chip{numbers[bdf] % CHIPS}")
        own = [each for each in joins if each.second == bdf]
        reasons = tuple(
            f"with {each.first}: {'' if each.known else 'not known: '}{each.reason}" for each in own
        )
        tone = Tone.QUIET if all(each.known for each in own) else Tone.WARN
        yield row._replace(chips=(group, *row.chips), remarks=reasons, tone=tone)


def _notes(found: Groups) -> list[str]:
    trusted = [f"{bdf} counts as isolated: {quirk.value}" for bdf, quirk in found.trusted]
    overridden = found.overridden()
    if overridden != found.groups:
        trusted.append(
            "with pcie_acs_override=downstream,multifunction Linux would show "
            f"{len(overridden)} groups"
        )
    return trusted
