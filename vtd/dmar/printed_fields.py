"""A table as systems print its fields: ``acpidump -t`` of FreeBSD and the debug output of edk2.

Neither prints every byte. What is left out has its default, and notes say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from vtd.dmar.description import bytes_text, from_mapping
from vtd.dmar.records import STRUCTURES, DeviceScope
from vtd.dmar.table import TableError

_FREEBSD = re.compile(r"^[\s>|*/]*DMAR: Length=\d+, Revision=", re.MULTILINE)
_EDK2 = re.compile(r"\bDMAR address \.{9,} 0x")
_END = re.compile(r"^[\s>|]*\*/", re.MULTILINE)
_HEADER = re.compile(
    r"Length=(?P<length>\d+), Revision=(?P<revision>\d+), Checksum=(?P<checksum>\d+),[\s>|]*"
    r"OEMID=(?P<oem_id>.{,6}), OEM Table ID=(?P<oem_table_id>.{,8}), "
    r"OEM Revision=(?P<oem_revision>\w+),[\s>|]*"
    r"Creator ID=(?P<creator_id>.{,4}), Creator Revision=(?P<creator_revision>\w+)"
)
_NAMES = {"oem_id": 6, "oem_table_id": 8, "creator_id": 4}
"""Bytes of the names, which FreeBSD prints without the spaces or zeros behind them."""
_NUMBERS = ("revision", "oem_revision", "creator_revision")
_ENTRY = re.compile(r"\bType=(?=[^\n]+\n[\s>|]*Length=\d+\s*\n[\s>|]*EnumerationId=)")
"""FreeBSD calls the type of a scope entry as that of a structure."""
_UNPRINTED = re.compile(r"(?<!Entry )\bType=(\d+)\s*\n[\s>|]*Length=(\d+)\s*$", re.MULTILINE)
"""A structure of which FreeBSD prints no more."""
_HOP = re.compile(r"(\d+):(\d+)")
_FIELD = re.compile(
    r"^(?:.*[\]>|:])?\s*(?P<label>[A-Z][A-Za-z ]*)(?:=| \.{3,} )(?P<value>.*?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
LABELS = {
    "address bits": "address_bits",
    "host address width": "host_address_width",
    "segment": "segment",
    "segment number": "segment",
    "address": "register_base",
    "register base address": "register_base",
    "baseaddress": "base",
    "reserved memory region base address": "base",
    "limitaddress": "limit",
    "reserved memory region limit address": "limit",
    "proximitydomain": "proximity_domain",
    "proximity domain": "proximity_domain",
    "acpi device number": "device_number",
    "enumerationid": "enumeration_id",
    "enumeration id": "enumeration_id",
    "startbusnumber": "start_bus",
    "starting bus number": "start_bus",
}
"""Fields that are numbers, in lower case, and their names in a description."""
FLAGS = {"INCLUDE_ALL": "include_pci_all"}
"""Flags whose name is not that of the specification."""
SCOPE_TYPES = {
    "PCI Endpoint Device": DeviceScope.PCI_ENDPOINT,
    "PCI Sub-Hierarchy": DeviceScope.PCI_SUB_HIERARCHY,
    "IOAPIC": DeviceScope.IOAPIC,
    "HPET": DeviceScope.MSI_CAPABLE_HPET,
}
STRUCTURE_TYPES = frozenset(kind.NAME for kind in STRUCTURES.values())


def is_printed(text: str) -> bool:
    """Whether a text has a table in one of the forms."""
    return _FREEBSD.search(text) is not None or _EDK2.search(text) is not None


def read_printed(text: str) -> tuple[bytes, tuple[str, ...]]:
    """The table, and notes about it; TableError names the field that is wrong."""
    if match := _FREEBSD.search(text):
        end = _END.search(text, match.end())
        return _freebsd(text[match.start() : end.start() if end else len(text)])
    table = from_mapping(_description(text, {}))
    note = "read from its fields as edk2 prints them, without the header up to Creator Revision"
    return table.pack(), (note,)


def _freebsd(text: str) -> tuple[bytes, tuple[str, ...]]:
    """A table of FreeBSD's form."""
    header = _HEADER.search(text)
    if header is None:
        raise TableError("the header of the table is cut")
    text = _ENTRY.sub("Device Scope Entry Type=", text[header.end() :])
    text = text.replace("Host Address Width=", "Address bits=")  # one more than is stored
    unprinted = [(int(number), int(length)) for number, length in _UNPRINTED.findall(text)]
    numbers = {name: _number(name, header[name]) for name in _NUMBERS}
    description = _description(_UNPRINTED.sub("", text), numbers)
    first, *others = map(from_mapping, _possible(description, header))
    checksum = int(header["checksum"])
    exact = (each for each in (first, *others) if each.header.checksum == checksum)
    notes = [f"a structure of type {number} is printed without fields" for number, _ in unprinted]
    length = int(header["length"]) - sum(length for _, length in unprinted)
    if first.header.table_length < length < 1 << 32:
        first = replace(first, header=replace(first.header, table_length=length))
        notes.append("its fields end before its Length does")
    if not notes and (table := next(exact, None)):
        return table.pack(), ("read from its fields as FreeBSD prints them, and its Checksum",)
    notes.append("whether DMA_CTRL_PLATFORM_OPT_IN is set is not printed")
    return first.pack(), ("read from its fields as FreeBSD prints them", *notes)


def _possible(description: dict[str, Any], header: re.Match[str]) -> Iterator[dict[str, Any]]:
    """What the header may be: FreeBSD prints neither padding nor the third flag.

    Padding counts in multiples of 32 for the Checksum, so that it tells whether the flag is set.
    """
    flags = description["header"].get("flags", [])
    paddings = product(" \0", repeat=len(_NAMES))
    for extra, pads in product(([], ["dma_ctrl_platform_opt_in"]), paddings):
        names = zip(_NAMES.items(), pads, strict=True)
        padded = {
            name: bytes_text(header[name].ljust(size, pad).encode()) for (name, size), pad in names
        }
        yield {
            "header": description["header"] | padded | {"flags": [*flags, *extra]},
            "structure": description["structure"],
        }


def _description(text: str, header: dict[str, Any]) -> dict[str, Any]:
    """The description of a table, whose header has the values that are given too."""
    structures: list[dict[str, Any]] = []
    here = header
    for label, value in _fields(text):
        if label == "type":
            here = {"type": _structure_type(value)}
            structures.append(here)
        elif label == "device scope entry type":
            if not structures:
                raise TableError("a device scope entry before every structure")
            here = {"type": SCOPE_TYPES.get(value) or _number(label, value), "path": []}
            structures[-1].setdefault("scope", []).append(here)
        elif label == "flags":
            here["flags"] = _flags(value)
        elif label == "acpi object name":
            here["object_name"] = value.strip("'")
        elif label == "path":
            here["path"] = [f"{int(device):x}.{int(hop):x}" for device, hop in _HOP.findall(value)]
        elif label == "device":
            here.setdefault("path", []).append(f"{_number(label, value):x}")
        elif label == "function" and here.get("path"):
            here["path"][-1] += f".{_number(label, value):x}"
        elif name := LABELS.get(label):
            base_of_unit = name == "base" and here.get("type") == "RHSA"
            here["register_base" if base_of_unit else name] = _number(label, value)
    return {"header": header, "structure": structures}


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Labels, in lower case, and values."""
    for match in _FIELD.finditer(text):
        yield match["label"].lower(), match["value"]


def _structure_type(value: str) -> str | int:
    if value in STRUCTURE_TYPES:
        return value
    number = _number("type", value)
    return STRUCTURES[number].NAME if number in STRUCTURES else number


def _flags(value: str) -> int | list[str]:
    """Flags as a number, or in braces by name."""
    if value.startswith("0x"):
        return _number("flags", value)
    return [FLAGS.get(name, name.lower()) for name in re.findall(r"\w+", value)]


def _number(label: str, value: str) -> int:
    """Decimal, or hexadecimal behind 0x."""
    try:
        return int(value, 0)
    except ValueError as error:
        raise TableError(f"{label.replace('_', ' ')}: {value!r} is no number") from error
