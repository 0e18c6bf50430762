"""Every field of a table in order: where it lies, its name, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pagetables.bits import BitRecord
from vtd.dmar.records import Andd, DeviceScope, Place, Record
from vtd.dmar.table import Table


class FieldLine(NamedTuple):
    """One field."""

    place: Place
    name: str
    value: str


def field_lines(table: Table) -> Iterator[FieldLine]:
    """The fields of header and structures, and bytes that no field covers."""
    yield from _fields(table.header)
    for each in table.structures:
        yield FieldLine(Place(each.offset, 2), "type", f"{each.type} [{each.name}]")
        yield FieldLine(Place(each.offset + 2, 2), "length", str(each.length))
        yield from _fields(each)
        for entry in each.scopes:
            yield from _fields(entry)
            path = " ".join(f"{device:02x}.{function:x}" for device, function in entry.path)
            place = Place(entry.offset + 6, len(entry.path_bytes))
            yield FieldLine(place, "path", path)
        tail = Place(each.offset + each.length - len(each.tail), len(each.tail))
        if isinstance(each, Andd):
            yield FieldLine(tail, "object_name", repr(each.object_name))
        elif each.tail:
            yield FieldLine(tail, "unread", "")
    if table.rest:
        yield FieldLine(table.rest_place, "unreadable", "")
    if table.trailing:
        place = Place(table.size - len(table.trailing), len(table.trailing))
        yield FieldLine(place, "after the table", "")


def _fields(record: Record) -> Iterator[FieldLine]:
    for name, value in record.fields().items():
        text = field_text(name, value)
        if isinstance(record, DeviceScope) and name == "type":
            text += f" [{record.type_name}]"
        yield FieldLine(record.place(name), name, text)


def field_text(name: str, value: object) -> str:
    """A value of a field in words."""
    match value:
        case BitRecord():
            names = [field for field, number in value.fields().items() if number is True]
            return f"0x{int(value):02x} {' '.join(names)}".rstrip()
        case bytes():
            return repr(value.decode("latin-1")) if name != "reserved" else value.hex()
        case int():
            if name == "host_address_width":
                return f"{value} ({value + 1} bits)"
            return hex(value) if value > 255 else str(value)
    return str(value)
