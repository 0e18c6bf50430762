"""PCI functions with their isolation groups: ``find`` or ``tree`` in sysfs, Proxmox's tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vtd.dmar.pci_tree import PciFunction, parse_address

_ADDRESS = r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
_PATH = re.compile(rf"iommu_groups/(\d+)/devices/{_ADDRESS}", re.ASCII)
_ROW = re.compile(
    rf"[│|]\s*0x([0-9a-f]{{6}})\s*[│|]\s*0x([0-9a-f]{{4}})\s*[│|]\s*{_ADDRESS}\s*[│|]\s*(-?\d+)\s*"
    r"[│|]\s*0x([0-9a-f]{4})\b",
    re.ASCII,
)
"""Class, device, address, group (-1 is none) and vendor, as ``pvesh get`` prints them."""
_TAB_ROW = re.compile(rf"^[\s>]*{_ADDRESS}\t+(-?\d+)\t", re.ASCII | re.MULTILINE)
"""Address and group, as they come from Proxmox's pages by copy and paste."""
_DRAWN = re.compile(r"[\s>]*(?:[│|]\s+)*(?:[├└|`]──?|[|`]--)\s+(.*\S)\s*")
_DRAWN_ADDRESS = re.compile(rf"{_ADDRESS}(?: -> \S+)?", re.ASCII)

_DIRECTORY = re.compile(r"\S*iommu_groups/(\d+)/devices/?(?::|\s*)$", re.ASCII)
_NAMES = re.compile(rf"(?:[\s>]*{_ADDRESS}(?: -> \S+)?)+\s*", re.ASCII)
_LONG = re.compile(rf"[\s>]*l[rwx-]{{9}}\S* .* {_ADDRESS} -> \S+\s*", re.ASCII)
_RUN_ON = re.compile(
    r"(?<=/devices:)[ \t]+|(?<=[^\s>])[ \t]+(?=/sys/kernel/iommu_groups/\d+/devices:|l[rwx-]{9} )|"
    r"(?<=/devices: total \d)[ \t]+",
    re.ASCII,
)
"""Where lines of ``ls -l`` end that a page has run together."""
_TOTAL = re.compile(r"[\s>]*total \d+\s*", re.ASCII)


def _of_directories(text: str) -> Iterator[PciFunction]:
    """What ``ls`` shows of directories of groups: the functions are on lines of their own."""
    group = None
    for line in _RUN_ON.sub("\n", text).splitlines():
        if match := _DIRECTORY.search(line):
            group = int(match[1])
        elif group is None or _TOTAL.fullmatch(line):
            continue
        elif match := _LONG.fullmatch(line):
            yield PciFunction.partly(parse_address(match[1]), group=group)
        elif _NAMES.fullmatch(line):
            for address in re.findall(rf"(?<!\S){_ADDRESS}", line):
                yield PciFunction.partly(parse_address(address), group=group)
        else:
            group = None


def _of_drawing(text: str) -> Iterator[PciFunction]:
    """What ``tree`` draws of the directories of groups."""
    group = None
    for match in map(_DRAWN.fullmatch, text.splitlines() if "iommu_groups" in text else ()):
        name = match[1] if match else ""
        if name.isdecimal():
            group = int(name)
        elif group is not None and (address := _DRAWN_ADDRESS.fullmatch(name)):
            yield PciFunction.partly(parse_address(address[1]), group=group)


def group_list_functions(text: str) -> Iterator[PciFunction]:
    """The functions that such a list names; what else they are it does not show."""
    for match in _PATH.finditer(text):
        yield PciFunction.partly(parse_address(match[2]), group=int(match[1]))
    yield from _of_directories(text)
    yield from _of_drawing(text)
    for match in _TAB_ROW.finditer(text):
        group = int(match[2])
        yield PciFunction.partly(parse_address(match[1]), group=group if group >= 0 else None)
    for match in _ROW.finditer(text):
        group = int(match[4])
        yield PciFunction.partly(
            parse_address(match[3]),
            class_code=int(match[1], 16) >> 8,
            device_id=int(match[2], 16),
            vendor_id=int(match[5], 16),
            group=group if group >= 0 else None,
        )
