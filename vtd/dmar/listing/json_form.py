"""PCI functions in JSON: a list of objects with ``bdf`` and ``config`` (hex) or decoded values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from devices.source_id import Bdf
from vtd.dmar.json_text import json_list
from vtd.dmar.listing.config_space import HEADER, from_config
from vtd.dmar.listing.inventories import inventory_objects, is_inventory
from vtd.dmar.pci_tree import Acs, PciFunction, PciTreeError, SrIov, parse_address

NUMBERS = {
    "class_code": 0xFFFF,
    "secondary_bus": 0xFF,
    "subordinate_bus": 0xFF,
    "express_type": 0xF,
    "vendor_id": 0xFFFF,
    "device_id": 0xFFFF,
    "group": 0xFFFFFFFF,
}
"""Keys of decoded values and the largest one."""


def json_functions(text: str) -> Iterator[PciFunction]:
    """The functions of a list, or of the list under ``devices``; or of an inventory."""
    if is_inventory(text):
        try:
            yield from inventory_objects(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise PciTreeError(f"PCI tree: not JSON: {error}") from error
        return
    try:
        entries = json_list(text, "devices")
    except ValueError as error:
        raise PciTreeError(f"PCI tree: {error}") from error
    for number, entry in enumerate(entries):
        where = f"PCI tree, function {number}"
        if isinstance(entry, dict) and "iommugroup" in entry and "bdf" not in entry:
            yield _of_proxmox(entry, where)
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("bdf"), str):
            raise PciTreeError(f"{where}: no bdf")
        yield _function(entry, where)


def _of_proxmox(entry: dict[str, Any], where: str) -> PciFunction:
    """A function as ``pvesh get /nodes/NODE/hardware/pci`` prints it; group -1 is none."""
    try:
        numbers = {key: int(entry[key], 16) for key in ("class", "vendor", "device")}
        bdf, group = parse_address(entry["id"]), int(entry["iommugroup"])
    except (KeyError, TypeError, ValueError) as error:
        raise PciTreeError(f"{where}: no id, class, vendor, device or iommugroup") from error
    return PciFunction.partly(
        bdf,
        name=str(entry.get("device_name", "")),
        class_code=numbers["class"] >> 8,
        vendor_id=numbers["vendor"],
        device_id=numbers["device"],
        group=group if group >= 0 else None,
    )


_OF_HEADER = {"class_code", "secondary_bus"}
"""Keys whose presence means that whoever wrote the object looked at the header."""


def _function(entry: dict[str, Any], where: str) -> PciFunction:
    bdf, name = parse_address(entry["bdf"]), str(entry.get("name", ""))
    owner = _address(entry.get("physical_function") or entry.get("physfn"))
    host = _address(entry.get("host"))
    config = _hex(entry.get("config"), where)
    if len(config) >= HEADER:
        return replace(from_config(bdf, config, name), physical_function=owner, host=host)
    numbers = {each: _optional(entry, each, where, last) for each, last in NUMBERS.items()}
    return PciFunction(
        bdf,
        name,
        **numbers,
        physical_function=owner,
        host=host,
        sriov=_registers(entry, "sriov", SrIov, where),
        acs=_registers(entry, "acs", Acs, where),
        phantom_bits=_optional(entry, "phantom_bits", where, 3) or 0,
        is_vmd=entry.get("is_vmd") is True,
        memory=_memory(entry, where),
        header_known=entry.get("header_known", bool(_OF_HEADER & set(entry))) is True,
        express_known="express_type" in entry,
        acs_known=entry.get("acs_known", "acs" in entry) is True,
    )


def _memory(entry: dict[str, Any], where: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(start), int(end)) for start, end in entry.get("memory", ()))
    except (TypeError, ValueError) as error:
        raise PciTreeError(f"{where}: memory is no list of pairs of numbers") from error


def _address(value: object) -> Bdf | None:
    return parse_address(value) if isinstance(value, str) else None


def _registers(entry: dict[str, Any], name: str, kind: Any, where: str) -> Any:
    """A group of 16-bit numbers with the names of ``kind``; None if it is not given."""
    values = entry.get(name)
    if values is None:
        return None
    if not isinstance(values, dict):
        raise PciTreeError(f"{where}: {name} is no object")
    numbers = {each: _optional(values, each, f"{where}, {name}", 0xFFFF) for each in kind._fields}
    missing = [each for each, value in numbers.items() if value is None]
    if missing:
        raise PciTreeError(f"{where}: {name} has no {missing[0]}")
    return kind(**numbers)


def _optional(entry: dict[str, Any], name: str, where: str, largest: int) -> int | None:
    value = entry.get(name)
    if value is None or (type(value) is int and 0 <= value <= largest):
        return value
    raise PciTreeError(f"{where}: {name} is no number up to 0x{largest:x}")


def _hex(value: object, where: str) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError as error:
        raise PciTreeError(f"{where}: config is not hexadecimal") from error
