"""Devices that need reserved memory, and whether virtual machines may have them.

Models the policies of hypervisors towards RMRRs (VT-d 8.4): a region has to stay mapped one to one,
so a guest would find a hole in its memory, and firmware could go on writing there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.records import DeviceScope, Rmrr
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table

USB, DISPLAY = 0x0C03, 0x03
"""Class of USB controllers (16 bits) and of display controllers (upper 8 bits)."""


class ReservedRegion(NamedTuple):
    """One region of one device, and what hypervisors do about it."""

    region: Rmrr
    entry: DeviceScope
    device: Bdf | None
    """The device, None if its path can't be followed."""
    reserved: bool | None
    """Whether the memory map reserves the region, None without a memory map."""
    policies: dict[str, str]
    """What a hypervisor does when the device is to be assigned, by its name."""

    @property
    def refused(self) -> bool:
        """Whether Linux refuses to assign the device, which decides on most machines."""
        return self.policies["Linux"].startswith("refused")


def region_row(each: ReservedRegion) -> dict[str, Any]:
    """A region in the form of ``vtd dmar rmrr --format json``."""
    return {
        "device": str(each.device or each.entry),
        "base": f"0x{each.region.base:x}",
        "limit": f"0x{each.region.limit:x}",
        "reserved": each.reserved,
        "policies": each.policies,
    }


def reserved_regions(table: Table, platform: PlatformData | None = None) -> list[ReservedRegion]:
    """Every region of every device, in table order."""
    platform = platform or PlatformData()
    return list(_regions(table, platform, Scopes(table, platform.pci)))


def _regions(table: Table, platform: PlatformData, scopes: Scopes) -> Iterator[ReservedRegion]:
    for each in table.all(Rmrr):
        memory = platform.reserved_memory
        reserved = None if memory is None else memory.holds(each.base, each.end)
        for entry in each.scopes:
            for device in _devices(each.segment, entry, platform.pci, scopes):
                function = platform.pci.functions.get(device) if platform.pci and device else None
                class_code = function.class_code if function else None
                policies = {
                    "Linux": _linux(class_code, platform.pci is not None),
                    "Xen": _xen(len(each.scopes)),
                    "strict (ESXi style)": "refused: every device with an RMRR is",
                }
                yield ReservedRegion(each, entry, device, reserved, policies)


def _devices(
    segment: int, entry: DeviceScope, pci: PciTree | None, scopes: Scopes
) -> list[Bdf | None]:
    """The device of an entry; of a bridge also the known functions below it."""
    named = scopes.resolve(segment, entry)
    if entry.type != DeviceScope.PCI_SUB_HIERARCHY or pci is None:
        return [named]
    below = (bdf for bdf in pci.functions if bdf != named)
    return [named, *(bdf for bdf in below if scopes.includes(segment, entry, bdf))]


def _linux(class_code: int | None, listed: bool) -> str:
    """Linux relaxes the rule for USB and graphics, whose regions are for early boot only."""
    if class_code is None:
        why = "the PCI tree has no class of it" if listed else "needs the PCI tree to tell"
        return f"refused, unless it is a USB or graphics device ({why})"
    if class_code == USB or class_code >> 8 == DISPLAY:
        return "allowed: regions of USB and graphics devices count as relaxable"
    return 'refused: "ineligible for IOMMU domain attach due to platform RMRR requirement"'


def _xen(devices: int) -> str:
    """Xen maps the region into the guest; with the strict policy conflicts are fatal."""
    if devices > 1:
        return "shares the region: disallowed with rdm policy strict, risky with relaxed"
    return "allowed; the region becomes a hole in guest memory (rdm policy)"
