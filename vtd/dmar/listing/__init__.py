"""Listings of PCI functions: lspci text of every form, JSON, and copies of sysfs."""

from __future__ import annotations

from vtd.dmar.json_text import is_json
from vtd.dmar.listing.json_form import json_functions
from vtd.dmar.listing.lspci import lspci_functions
from vtd.dmar.pci_tree import PciTree, PciTreeError

__all__ = ["parse_pci_tree"]


def parse_pci_tree(text: str) -> PciTree:
    """The functions in ``lspci`` text or JSON; PciTreeError if there are none."""
    tree = PciTree(json_functions(text) if is_json(text) else lspci_functions(text))
    if not tree.functions:
        raise PciTreeError("PCI tree: no function found")
    return tree
