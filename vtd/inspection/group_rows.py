"""Isolation groups as rows, in the form of ``vtd groups --format json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciFunction, PciTree, PciTreeError
from vtd.inspection.acs_quirks import SOURCE
from vtd.inspection.isolation_groups import Groups, Join


def closed_bridges(tree: PciTree) -> list[PciFunction]:
    """Bridges whose buses are not known, nor the group in which the kernel put them."""
    return [each for each in tree.closed_bridges if each.group is None]


def require_buses(tree: PciTree) -> None:
    """PciTreeError if a listing shows neither the bus behind a bridge nor the groups."""
    if closed := closed_bridges(tree):
        missing = ", ".join(str(each.bdf) for each in closed[:4])
        raise PciTreeError(f"PCI tree: no buses of the bridges {missing} (lspci -vvv shows them)")


def groups_row(found: Groups, tree: PciTree) -> dict[str, Any]:
    """The groups, the reason for every join, and what the listing says itself."""
    return {
        "groups": _named(found.groups),
        "joins": [
            {
                "functions": [str(each.first), str(each.second)],
                "reason": each.reason,
                "known": each.known,
            }
            for each in found.joins
        ],
        "certain": not found.unknown and not found.unplaced,
        "unplaced": [str(bdf) for bdf in found.unplaced],
        "trusted": [
            {"function": str(bdf), "reason": quirk.value, "source": SOURCE}
            for bdf, quirk in found.trusted
        ],
        "override": {
            "groups": _named(found.overridden()),
            "shared": [_join_json(each) for each in found.joins if each.by_override],
        },
        "listed": {str(bdf): number for bdf, number in listed_groups(tree)},
    }


def listed_groups(tree: PciTree) -> Iterator[tuple[Bdf, int]]:
    """Functions with the number of the group that the listing itself names."""
    for each in tree.functions.values():
        if each.group is not None:
            yield each.bdf, each.group


def _named(groups: tuple[tuple[Bdf, ...], ...]) -> list[list[str]]:
    return [[str(bdf) for bdf in group] for group in groups]


def _join_json(join: Join) -> dict[str, Any]:
    return {"functions": [str(join.first), str(join.second)], "reason": join.reason}
