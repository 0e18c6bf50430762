"""A table as the source that iasl compiles, ``iasl -z`` (which keeps the Creator ID) to its bytes.

Fields and labels are those of ``iasl -d``. What no source can say comes back as notes: bytes behind
a name or the table, strings that are not printable, a wrong Length or Checksum.
"""

from __future__ import annotations

from collections.abc import Iterator

from vtd.dmar.records import Andd, DeviceScope, Drhd, Record, Rhsa, Structure, Undecoded
from vtd.dmar.table import Table, TableError

LABELS = {
    "table_length": "Table Length",
    "oem_id": "Oem ID",
    "oem_table_id": "Oem Table ID",
    "creator_id": "Asl Compiler ID",
    "creator_revision": "Asl Compiler Revision",
    "segment": "PCI Segment Number",
    "register_base": "Register Base Address",
    "base": "Base Address",
    "limit": "End Address (limit)",
    "type": "Device Scope Type",
    "enumeration_id": "Enumeration ID",
    "start_bus": "PCI Bus Number",
}
"""Labels that are not the name of the field with capitals."""
STRINGS = ("signature", "oem_id", "oem_table_id", "creator_id")


def write_source(table: Table, older: bool = False) -> tuple[str, list[str]]:
    """The source of a table and what it leaves out; ``older`` for iasl before 2023.

    TableError for structures that iasl does not know.
    """
    for each in table.structures:
        if isinstance(each, Undecoded) or (each.tail and not isinstance(each, Andd)):
            raise TableError(f"iasl has no field for the bytes of {each.name} at 0x{each.offset:x}")
    if table.rest:
        raise TableError(f"iasl has no field for the bytes from 0x{table.rest_place.offset:x} on")
    return "\n".join(_lines(table, older)) + "\n", list(_left_out(table, older))


def _left_out(table: Table, older: bool) -> Iterator[str]:
    header = table.header
    if table.trailing:
        yield f"{len(table.trailing)} bytes after the table"
    for name in STRINGS:
        value = getattr(header, name)
        if not _text(value).isprintable() or '"' in _text(value):
            yield f"characters of {name}"
    for each in table.structures:
        if isinstance(each, Andd) and each.tail != each.object_name.encode() + b"\0":
            yield f"bytes behind the name of ANDD at 0x{each.offset:x}"
    for record in (*table.structures, *(entry for _, entry in table.entries)):
        if _reserved(record, older):
            yield f"reserved bytes of the record at 0x{record.offset:x}, for which iasl writes 0"
    sealed = table.sealed().header
    for name in ("table_length", "checksum"):
        if getattr(header, name) != getattr(sealed, name):
            yield f"{name} 0x{getattr(header, name):x}, iasl computes 0x{getattr(sealed, name):x}"


def _reserved(record: Record, older: bool) -> bool:
    """Whether fields that iasl takes for reserved are not 0."""
    values = record.fields()
    late = values.get("size", 0) or (isinstance(record, DeviceScope) and record.flags)
    return bool(values.get("reserved", 0) or (older and late))


def _lines(table: Table, older: bool) -> Iterator[str]:
    for name, value in table.header.fields().items():
        yield _line(table.header, name, value)
    for each in table.structures:
        yield ""
        yield from _structure(each, older)


def _structure(structure: Structure, older: bool) -> Iterator[str]:
    start = structure.offset
    yield _field(start, 2, "Subtable Type", f"{structure.type:04X} [{structure.name}]")
    yield _field(start + 2, 2, "Length", f"{structure.length:04X}")
    for name, value in structure.fields().items():
        if name == "size" and isinstance(structure, Drhd):
            place = structure.place(name)
            label = "Reserved" if older else "Size (decoded below)"
            yield _field(*place, label, f"{int(value):02X}")
            if not older:
                yield f"{'Size (pages, log2)':>44} : {structure.size.n:X}"
        else:
            yield _line(structure, name, value)
    if isinstance(structure, Andd):
        place = structure.name_place
        name = structure.object_name
        yield _field(place.offset, len(name) + 1, "Device Name", f'"{name}"')
    for entry in structure.scopes:
        yield ""
        yield from _entry(entry, older)


def _entry(entry: DeviceScope, older: bool) -> Iterator[str]:
    for name, value in entry.fields().items():
        if name == "flags" and older:
            both = entry.flags | entry.reserved << 8
            yield _field(entry.offset + 2, 2, "Reserved", f"{both:04X}")
        elif name != "reserved" or not older:
            yield _line(entry, name, value)
    for number, (device, function) in enumerate(entry.path):
        yield _field(entry.offset + 6 + 2 * number, 2, "PCI Path", f"{device:02X},{function:02X}")


def _line(record: Record, name: str, value: object) -> str:
    place = record.place(name)
    label = LABELS.get(name, name.replace("_", " ").title())
    if isinstance(record, Rhsa) and name == "register_base":
        label = LABELS["base"]
    match value:
        case bytes() if name in STRINGS:
            return _field(*place, label, f'"{_text(value)}"')
        case bytes():
            return _field(*place, label, value.hex(" ").upper())
        case int():
            return _field(*place, label, f"{int(value):0{2 * place.length}X}")
    raise TypeError(f"{name}: no field of a source")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("latin-1")


def _field(offset: int, length: int, label: str, value: str) -> str:
    return f"[{offset:03X}h {offset:04d} {length:03X}h] {label:>27} : {value}"
