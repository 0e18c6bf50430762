"""Listings of PCI functions: lspci, inventories, groups, boot messages, JSON, sysfs."""

from __future__ import annotations

from vtd.dmar.json_text import is_json
from vtd.dmar.listing.bsd import bsd_functions
from vtd.dmar.listing.group_lists import group_list_functions
from vtd.dmar.listing.inventories import inventory_functions
from vtd.dmar.listing.json_form import json_functions
from vtd.dmar.listing.kernel_log import kernel_log_functions
from vtd.dmar.listing.libvirt import libvirt_functions
from vtd.dmar.listing.lspci import lspci_functions
from vtd.dmar.listing.other_systems import other_functions
from vtd.dmar.pci_tree import PciTree, PciTreeError
from vtd.mail import unquoted

__all__ = ["parse_pci_tree"]


def parse_pci_tree(text: str) -> PciTree:
    """The functions in text of any form, or JSON; PciTreeError if there are none."""
    if is_json(text):
        tree = PciTree(json_functions(text))
    else:
        text = unquoted(text)
        readers = (
            *(lspci_functions, kernel_log_functions, group_list_functions),
            *(other_functions, libvirt_functions, bsd_functions, inventory_functions),
        )
        tree = PciTree(function for read in readers for function in read(text))
    if not tree.functions:
        raise PciTreeError("PCI tree: no function found")
    return tree
