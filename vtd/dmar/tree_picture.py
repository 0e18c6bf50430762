"""The functions of a listing as a tree, with what a DMAR table says about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.scope_rows import scope_row
from vtd.dmar.scopes import Scopes
from vtd.pictures.canvas import Tone
from vtd.pictures.markup import Markup
from vtd.pictures.tree import Chip, Row, tree_svg


def pci_tree_svg(tree: PciTree) -> Markup:
    """The functions alone."""
    rows = [row for _, row in function_rows(tree)]
    return tree_svg(f"{len(rows)} PCI functions", rows)


def function_rows(tree: PciTree, scopes: Scopes | None = None) -> Iterator[tuple[Bdf, Row]]:
    """A row for each function, those behind a bridge below it."""
    for bdf in sorted(tree.functions, key=lambda each: (each.segment, _way(tree, each))):
        function = tree.functions[bdf]
        chips = () if scopes is None else tuple(_chips(scopes, bdf, tree))
        owner = function.physical_function
        name = f"{function.name} (virtual function of {owner})" if owner else function.name
        yield bdf, Row(len(tree.bridges_above(bdf)), str(bdf), name.strip(), chips)


def _chips(scopes: Scopes, bdf: Bdf, tree: PciTree) -> Iterator[Chip]:
    row = scope_row(scopes, bdf, tree)
    unit = row["unit"]
    yield Chip(f"unit {unit}", Tone.NOTE) if unit else Chip("no unit known", Tone.WARN)
    for region in row["regions"] if isinstance(row["regions"], list) else ():
        yield Chip(f"region {region}", Tone.WARN)
    if row["alias"]:
        yield Chip(f"alias {row['alias']}")


def _way(tree: PciTree, bdf: Bdf) -> Sequence[Bdf]:
    return (*reversed(tree.bridges_above(bdf)), bdf)
