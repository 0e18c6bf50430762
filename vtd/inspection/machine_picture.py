"""The functions of a machine as a tree, with the group of each, its unit, regions and alias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.scope_rows import scope_row
from vtd.dmar.scopes import Scopes
from vtd.inspection.isolation_groups import Groups
from vtd.pictures.canvas import CHIPS, Tone
from vtd.pictures.markup import Markup
from vtd.pictures.tree import Chip, Row, tree_svg


def groups_svg(found: Groups, tree: PciTree, *, inline: bool = False) -> Markup:
    """Isolation groups: which functions are together, and why."""
    count = len(found.groups)
    title = f"{count} isolation group{'s' * (count != 1)} of {len(tree.functions)} functions"
    return tree_svg(title, list(tree_rows(tree, found)), _notes(found), inline=inline)


def machine_svg(
    tree: PciTree, found: Groups | None = None, scopes: Scopes | None = None, *,
    inline: bool = False,
) -> Markup:  # fmt: skip
    """The functions of a listing with what is known of them."""
    rows = list(tree_rows(tree, found, scopes))
    return tree_svg(f"{len(tree.functions)} PCI functions", rows, inline=inline)


def tree_rows(
    tree: PciTree, found: Groups | None = None, scopes: Scopes | None = None
) -> Iterator[Row]:
    """A row for each function, those behind a bridge below it."""
    numbers = {}
    if found is not None:
        numbers = {bdf: n for n, group in enumerate(found.groups, 1) for bdf in group}
    for bdf in sorted(tree.functions, key=lambda each: (each.segment, _order(tree, each))):
        function = tree.functions[bdf]
        chips, remarks, known = [], [], True
        if bdf in numbers:
            chips.append(Chip(f"group {numbers[bdf]}", f"chip{numbers[bdf] % CHIPS}"))
        for join in found.joins if found is not None else ():
            if join.second == bdf:
                known = known and join.known
                mark = "" if join.known else "not known: "
                remarks.append(f"with {join.first}: {mark}{join.reason}")
        if scopes is not None:
            chips += _scope_chips(scopes, bdf, tree)
        owner = function.physical_function
        name = f"{function.name} (virtual function of {owner})" if owner else function.name
        yield Row(
            len(tree.bridges_above(bdf)), str(bdf), name.strip(), tuple(chips), tuple(remarks),
            Tone.QUIET if known else Tone.WARN,
        )  # fmt: skip


def _scope_chips(scopes: Scopes, bdf: Bdf, tree: PciTree) -> Iterator[Chip]:
    row = scope_row(scopes, bdf, tree)
    unit = row["unit"]
    yield Chip(f"unit {unit}", Tone.NOTE) if unit else Chip("no unit known", Tone.WARN)
    for region in row["regions"] if isinstance(row["regions"], list) else ():
        yield Chip(f"region {region}", Tone.WARN)
    if row["alias"]:
        yield Chip(f"alias {row['alias']}", Tone.PLAIN)


def _order(tree: PciTree, bdf: Bdf) -> Sequence[Bdf]:
    return (*reversed(tree.bridges_above(bdf)), bdf)


def _notes(found: Groups) -> list[str]:
    trusted = [f"{bdf} counts as isolated: {quirk.value}" for bdf, quirk in found.trusted]
    overridden = found.overridden()
    if overridden != found.groups:
        trusted.append(
            "with pcie_acs_override=downstream,multifunction Linux would show "
            f"{len(overridden)} groups"
        )
    return trusted
