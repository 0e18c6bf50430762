"""PCI functions in inventories: lshw, inxi, hwinfo, QEMU's ``info pci``, Windows' devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from devices.source_id import Bdf, SourceId, SourceIdError
from vtd.dmar.listing.lspci import CLASS_NAMES
from vtd.dmar.pci_tree import PciFunction, PciTreeError, parse_address

_ADDRESS = r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
_LSHW = re.compile(rf"(?:^|\bbus info: )[\s>]*pci@{_ADDRESS}(?=\s|$)", re.ASCII)
_NODE = re.compile(r"[\s>]*\*-\w")
_KEY = r"pci_[0-9a-f]{4}_[0-9a-f]{2}_[0-9a-f]{2}_[0-7]"
_OBJECTS = re.compile(rf'"businfo"\s*:\s*"pci@|"{_KEY}"\s*:', re.ASCII)
_DESCRIPTION = re.compile(r"[\s>]*description: (.*\S)\s*")
_INXI = re.compile(
    r"\bbus-ID: ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) chip-ID: ([0-9a-f]{4}):([0-9a-f]{4})"
    r"(?: class-ID: ([0-9a-f]{4}))?",
    re.ASCII,
)
_HWINFO_HEADING = re.compile(r"[\s>]*\d+: PCI [0-9a-f]+\.[0-7]: ([0-9a-f]{4}) (.*)", re.ASCII)
_HWINFO = re.compile(rf"[\s>]*SysFS BusID: {_ADDRESS}\s*", re.ASCII)
_HWINFO_IDS = re.compile(r"[\s>]*(Vendor|Device): pci 0x([0-9a-f]{4})\b.*", re.ASCII)
_QEMU = re.compile(r"[\s>]*Bus +(\d+), device +(\d+), function (\d):\s*", re.ASCII)
_QEMU_KIND = re.compile(
    r"[\s>]+(?:Class )?(\S.*?): PCI device ([0-9a-f]{4}):([0-9a-f]{4})\b.*", re.ASCII
)
_QEMU_BUS = re.compile(r"[\s>]+(secondary|subordinate) bus (\d+)\.\s*", re.ASCII)
_WINDOWS = re.compile(r"\bPCI[- ][Bb]us (\d+), \w+ (\d+), \w+ ([0-7])\b")
_WINDOWS_IDS = re.compile(
    r"\bVEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})(?:.*?&CC_([0-9A-F]{4}))?", re.ASCII | re.IGNORECASE
)


def inventory_functions(text: str) -> Iterator[PciFunction]:
    """The functions that an inventory names, each with what the lines around it say."""
    kind: int | None = None
    name = ""
    ids: dict[str, int | None] = {}
    last: Bdf | None = None
    above: dict[int, Bdf] = {}
    depth = 0
    for line in text.splitlines():
        if match := _NODE.match(line):
            depth = match.end()
            above = {column: bridge for column, bridge in above.items() if column < depth}
        elif match := _DESCRIPTION.fullmatch(line):
            name, kind = match[1], CLASS_NAMES.get(match[1].lower())
        elif match := _HWINFO_HEADING.fullmatch(line):
            name, kind = match[2], int(match[1], 16)
        elif match := _LSHW.search(line):
            bdf = parse_address(match[1])
            yield PciFunction.partly(bdf, name=name, class_code=kind)
            yield from _bus_of(above[max(above)] if above else None, bdf)
            name, kind = "", None
            if depth:
                above[depth] = bdf
        elif match := _HWINFO.fullmatch(line):
            last = parse_address(match[1])
            yield PciFunction.partly(last, name=name, class_code=kind)
            name, kind = "", None
        elif match := _QEMU.fullmatch(line):
            last = _decimal(match)
        elif last is not None and (shown := _more(last, line)):
            yield shown
        for match in _INXI.finditer(line):
            vendor, device, code = (int(each, 16) if each else None for each in match.groups()[1:])
            bdf = parse_address(match[1])
            yield PciFunction.partly(bdf, vendor_id=vendor, device_id=device, class_code=code)
        if match := _WINDOWS_IDS.search(line):
            numbers = (int(each, 16) if each else None for each in match.groups())
            ids = dict(zip(("vendor_id", "device_id", "class_code"), numbers, strict=True))
        if (match := _WINDOWS.search(line)) and (place := _decimal(match)):
            yield PciFunction.partly(place, **ids)
            ids = {}


def _bus_of(bridge: Bdf | None, below: Bdf) -> Iterator[PciFunction]:
    """The bus behind a bridge, which a function that is drawn below it has."""
    if bridge is not None and bridge.source_id.bus != below.source_id.bus:
        yield PciFunction.partly(bridge, secondary_bus=below.source_id.bus)


def _more(bdf: Bdf, line: str) -> PciFunction | None:
    """What a further line of QEMU or hwinfo says of a function."""
    if match := _QEMU_KIND.fullmatch(line):
        name = match[1].lower()
        kind = int(name, 16) if re.fullmatch("[0-9a-f]{4}", name) else CLASS_NAMES.get(name)
        ids = {"vendor_id": int(match[2], 16), "device_id": int(match[3], 16)}
        return PciFunction.partly(bdf, name=match[1], class_code=kind, **ids)
    if match := _QEMU_BUS.fullmatch(line):
        return PciFunction.partly(bdf, **{f"{match[1]}_bus": int(match[2]) or None})
    if match := _HWINFO_IDS.fullmatch(line):
        return PciFunction.partly(bdf, **{f"{match[1].lower()}_id": int(match[2], 16)})
    return None


def _decimal(match: re.Match[str]) -> Bdf | None:
    try:
        return Bdf(0, SourceId.of(*map(int, match.groups())))
    except SourceIdError:
        return None


def is_inventory(text: str) -> bool:
    """Whether a text in JSON has what :func:`inventory_objects` looks for."""
    return _OBJECTS.search(text) is not None


def inventory_objects(data: Any, above: Bdf | None = None) -> Iterator[PciFunction]:
    """The functions of ``lshw -json`` and of TrueNAS' choices for passthrough, however nested."""
    if isinstance(data, list):
        for each in data:
            yield from inventory_objects(each, above)
    elif isinstance(data, dict):
        place = str(data.get("businfo", ""))
        if place.startswith("pci@"):
            name = str(data.get("description", ""))
            bdf = parse_address(place[4:])
            yield PciFunction.partly(bdf, name=name, class_code=CLASS_NAMES.get(name.lower()))
            yield from _bus_of(above, bdf)
            above = bdf
        for key, each in data.items():
            if re.fullmatch(_KEY, key, re.ASCII) and isinstance(each, dict):
                yield _of_truenas(key, each)
            else:
                yield from inventory_objects(each, above)


def _of_truenas(key: str, entry: dict[str, Any]) -> PciFunction:
    segment, bus, device, function = key.split("_")[1:]
    shown, group = entry.get("capability") or {}, entry.get("iommu_group") or {}
    try:
        code, number = str(shown.get("class") or ""), group.get("number")
        return PciFunction.partly(
            parse_address(f"{segment}:{bus}:{device}.{function}"),
            name=str(entry.get("description") or ""),
            class_code=int(code, 16) >> 8 if code else None,
            group=None if number is None else int(number),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise PciTreeError(f"PCI tree: {key}: no class or group that can be read") from error
