"""PCI functions, bridges and isolation groups from the boot messages of Linux."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vtd.dmar.pci_tree import PciFunction, PciTreeError, parse_address

_ADDRESS = r"((?:[0-9a-f]{4,8}:)[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
_FUNCTION = re.compile(
    rf"pci {_ADDRESS}: \[([0-9a-f]{{4}}):([0-9a-f]{{4}})\] type (\w{{1,2}}) "
    r"class (?:0x)?([0-9a-f]{6})(?: (PCIe [\w ]+|conventional PCI[\w ]*))?",
    re.ASCII,
)
_BRIDGE = re.compile(
    rf"pci {_ADDRESS}: PCI bridge to \[bus ([0-9a-f]{{2}})(?:-([0-9a-f]{{2}}))?", re.ASCII
)
_GROUP = re.compile(
    rf"{_ADDRESS}: Adding to iommu group (\d+)|Adding device {_ADDRESS} to group (\d+)", re.ASCII
)
_EXPRESS = {
    "PCIe Endpoint": 0,
    "PCIe Legacy Endpoint": 1,
    "PCIe Root Port": 4,
    "PCIe Switch Upstream Port": 5,
    "PCIe Switch Downstream Port": 6,
    "PCIe to PCI": 7,
    "PCIe Root Complex Integrated Endpoint": 9,
    "PCIe Root Complex Event Collector": 10,
}
_BRIDGE_HEADER = ("1", "01", "2", "02")


def kernel_log_functions(text: str) -> Iterator[PciFunction]:
    """What the lines of a log say of functions; one function may come several times."""
    return filter(None, map(function_in, text.splitlines()))


def function_in(line: str) -> PciFunction | None:
    """What a line says of a function; None if it speaks of none."""
    if "] type " in line and (match := _FUNCTION.search(line)):
        return _function(match)
    if "PCI bridge to" in line and (match := _BRIDGE.search(line)):
        first, last = int(match[2], 16), int(match[3] or match[2], 16)
        return _partly(match[1], secondary_bus=first, subordinate_bus=last)
    if "group " in line and (match := _GROUP.search(line)):
        return _partly(match[1] or match[3], group=int(match[2] or match[4]))
    return None


def _function(match: re.Match[str]) -> PciFunction | None:
    header, number = match[4], int(match[5], 16)
    kind = next((k for k in _EXPRESS if (match[6] or "").startswith(k)), "")
    return _partly(
        match[1],
        vendor_id=int(match[2], 16),
        device_id=int(match[3], 16),
        class_code=number if len(header) == 1 else number >> 8,  # shifted until 3.2
        express_type=_EXPRESS.get(kind),
        express_known=match[6] is not None,
        header_known=header not in _BRIDGE_HEADER,
    )


def _partly(address: str, **shown: int | None) -> PciFunction | None:
    try:
        return PciFunction.partly(parse_address(address), **shown)
    except PciTreeError:
        return None
