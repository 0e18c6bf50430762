"""Listings of PCI functions: lspci text of every form, boot messages, JSON, copies of sysfs."""

from __future__ import annotations

from vtd.dmar.json_text import is_json
from vtd.dmar.listing.json_form import json_functions
from vtd.dmar.listing.kernel_log import kernel_log_functions
from vtd.dmar.listing.lspci import lspci_functions
from vtd.dmar.pci_tree import PciTree, PciTreeError

__all__ = ["parse_pci_tree"]


def parse_pci_tree(text: str) -> PciTree:
    """The functions in ``lspci`` text, a log or JSON; PciTreeError if there are none."""
    if is_json(text):
        tree = PciTree(json_functions(text))
    else:
        tree = PciTree([*lspci_functions(text), *kernel_log_functions(text)])
    if not tree.functions:
        raise PciTreeError("PCI tree: no function found")
    return tree
