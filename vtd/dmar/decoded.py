"""A table as plain values, ready for JSON: every field of every structure, with offsets."""

from __future__ import annotations

from typing import Any

from pagetables.bits import BitRecord
from vtd.dmar.records import (
    Andd,
    Atsr,
    DeviceScope,
    Drhd,
    Satc,
    ScopedStructure,
    Structure,
    Undecoded,
)
from vtd.dmar.table import Table


def decoded(table: Table) -> dict[str, Any]:
    """The content of a table; byte strings as hexadecimal digits, text fields as Latin-1."""
    header = table.header
    content: dict[str, Any] = {
        "length_bytes": table.size,
        "header": {
            "signature": header.signature.decode("latin-1"),
            "length": header.table_length,
            "revision": header.revision,
            "checksum": header.checksum,
            "checksum_valid": not table.truncated and table.byte_sum == 0,
            "oem_id": header.oem_id.decode("latin-1"),
            "oem_table_id": header.oem_table_id.decode("latin-1"),
            "oem_revision": header.oem_revision,
            "creator_id": header.creator_id.decode("latin-1"),
            "creator_revision": header.creator_revision,
        },
        "host_address_width_raw": header.host_address_width,
        "host_address_width": header.address_bits,
        "flags": int(header.flags),
        "flags_decoded": _flags(header.flags),
        "reserved": header.reserved.hex(),
        "structures": [_structure(each) for each in table.structures],
    }
    if table.rest:
        content["stopped_at"] = table.rest_place.offset
    if table.trailing:
        content["trailing_bytes"] = len(table.trailing)
    return content


def _flags(flags: BitRecord) -> dict[str, int]:
    """Named flags as 0 or 1, and the reserved bits."""
    named = {name: int(value) for name, value in flags.fields().items()}
    return {**named, "reserved": flags & flags.RESERVED}


def _structure(structure: Structure) -> dict[str, Any]:
    values: dict[str, Any] = {
        "offset": structure.offset,
        "type": structure.type,
        "name": structure.name,
        "length": structure.length,
    }
    if isinstance(structure, Undecoded):
        return values | {"raw": structure.pack().hex()}
    values |= {
        name: int(value) if isinstance(value, BitRecord) else value
        for name, value in structure.fields().items()
    }
    match structure:
        case Drhd():
            values["include_pci_all"] = int(structure.flags.include_pci_all)
            values["size_raw"] = values.pop("size")
            values["register_set_pages"] = structure.register_bytes >> 12
        case Atsr():
            values["all_ports"] = int(structure.flags.all_ports)
        case Satc():
            values["atc_required"] = int(structure.flags.atc_required)
        case Andd():
            values["reserved"] = structure.reserved.to_bytes(3, "little").hex()
            values["acpi_device_number"] = values.pop("device_number")
            values["object_name"] = structure.object_name
            values["name_field"] = structure.tail.hex()
            return values
    if isinstance(structure, ScopedStructure):
        values["device_scope"] = [_entry(entry) for entry in structure.scopes]
    if structure.tail:
        values["unread"] = structure.tail.hex()
    return values


def _entry(entry: DeviceScope) -> dict[str, Any]:
    values: dict[str, Any] = {
        "offset": entry.offset,
        "type": entry.type,
        "type_name": entry.type_name,
        "length": entry.length,
        "flags": entry.flags,
        "reserved": entry.reserved,
        "enumeration_id": entry.enumeration_id,
        "start_bus": entry.start_bus,
        "path": [list(hop) for hop in entry.path],
    }
    if entry.length % 2:
        values["odd_byte"] = entry.path_bytes[-1]
    return values
