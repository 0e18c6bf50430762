"""PCI functions from a copy of sysfs: folders named by the address, with the files of the kernel.

``/sys/bus/pci/devices`` or ``/sys/devices``, links kept as links or followed. Where only part of
``config`` was readable, the other files (``class``, ``vendor``, ``secondary_bus_number``) stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from devices.source_id import Bdf
from vtd.dmar.listing.config_space import HEADER, from_config
from vtd.dmar.pci_tree import LAST_SEGMENT, PciFunction, PciTreeError, parse_address

ADDRESS_NAME = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
_SLOT = re.compile(rb"PCI_SLOT_NAME=(\S+)")
_NUMBER = re.compile(rb"\s*(?:0x)?([0-9a-fA-F]{1,16})\s*")
_DECIMAL = re.compile(rb"\s*([0-9]{1,9})\s*")
OF_A_FUNCTION = ("config", "class", "vendor")
"""Files of which a folder of a function has at least one."""
FILES = (
    *OF_A_FUNCTION, "device", "secondary_bus_number", "subordinate_bus_number", "physfn",
    "uevent", "resource", "devpath",
)  # fmt: skip
"""Files that are read."""
SIDE_WAYS = (
    "physfn", "virtfn", "subsystem", "driver", "iommu", "firmware_node", "consumer", "supplier",
)  # fmt: skip
"""Links to other folders, which a copy may have followed."""


def is_sysfs(files: Mapping[str, bytes]) -> bool:
    """Whether the files, by path, are a copy of sysfs with PCI functions."""
    return any(_place(path) for path in files)


def sysfs_functions(
    files: Mapping[str, bytes], links: Mapping[str, str] | None = None
) -> Iterator[PciFunction]:
    """The functions of a copy: contents of files and targets of links, both by path."""
    folders: dict[str, dict[str, bytes]] = {}
    for path, content in files.items():
        if place := _place(path):
            folders.setdefault(place, {})[path[len(place) + 1 :]] = content
    for folder, contents in folders.items():
        yield _function(folder, contents, links or {})


def _place(path: str) -> str | None:
    """The folder of the function that a file belongs to, None for other files."""
    folder, _, name = path.rpartition("/")
    parts = folder.split("/")
    if ADDRESS_NAME.fullmatch(parts[-1]):
        sideways = any(part.startswith(SIDE_WAYS) for part in parts)
        return folder if name in FILES and not sideways else None
    above = "/".join(parts[:-1])
    linked = parts[-1] == "physfn" and name == "uevent"
    return above if linked and ADDRESS_NAME.fullmatch(above.rpartition("/")[2]) else None


def _function(folder: str, contents: Mapping[str, bytes], links: Mapping[str, str]) -> PciFunction:
    address = folder.rpartition("/")[2]
    bdf = parse_address(address)
    config = contents.get("config", b"")
    secondary = _decimal(contents, "secondary_bus_number")
    subordinate = _decimal(contents, "subordinate_bus_number")
    code = _number(contents, "class")
    class_code = None if code is None else code >> 8 & 0xFFFF
    stated = PciFunction(
        bdf,
        class_code=class_code,
        secondary_bus=secondary,
        subordinate_bus=subordinate,
        vendor_id=_number(contents, "vendor"),
        device_id=_number(contents, "device"),
        header_known="secondary_bus_number" in contents,
        express_known=False,
        acs_known=False,
    )
    function = from_config(bdf, config).merged(stated) if len(config) >= HEADER else stated
    owner = links.get(f"{folder}/physfn", "").rpartition("/")[2]
    if slot := _SLOT.search(contents.get("physfn/uevent", b"")):
        owner = slot[1].decode("ascii", "replace")
    group = links.get(f"{folder}/iommu_group", "").rpartition("/")[2]
    return replace(
        function,
        physical_function=_address(owner),
        group=int(group) if group.isdecimal() and len(group) < 10 else None,
        host=_host(_device_path(folder, contents, links), bdf),
        is_vmd=b"DRIVER=vmd" in contents.get("uevent", b""),
    )


def _device_path(folder: str, contents: Mapping[str, bytes], links: Mapping[str, str]) -> str:
    """Where the function is in the tree of devices: noted, the target of a link, or its path."""
    return contents.get("devpath", b"").decode("ascii", "replace") or links.get(folder, folder)


def _host(path: str, bdf: Bdf) -> Bdf | None:
    """The VMD endpoint that is above the domain in the path of a function behind it."""
    if bdf.segment <= LAST_SEGMENT:
        return None
    above = [part for part in path.split("/") if ADDRESS_NAME.fullmatch(part)]
    hosts = [each for each in map(_address, above) if each and each.segment <= LAST_SEGMENT]
    return hosts[-1] if hosts else None


def _address(text: str) -> Bdf | None:
    try:
        return parse_address(text) if text else None
    except PciTreeError:
        return None


def _number(contents: Mapping[str, bytes], name: str) -> int | None:
    match = _NUMBER.fullmatch(contents.get(name, b""))
    return int(match[1], 16) if match else None


def _decimal(contents: Mapping[str, bytes], name: str) -> int | None:
    match = _DECIMAL.fullmatch(contents.get(name, b""))
    return int(match[1]) if match and int(match[1]) < 256 else None
