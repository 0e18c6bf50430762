"""A table as TOML text and back: :func:`describe` and :func:`build` give the same bytes again.

Keys are the field names of :mod:`vtd.dmar.records`. What equals its default is left out; Length
and Checksum are computed unless the description gives them, so only a wrong one is written down.
Bytes that are no text are hexadecimal digits after ``hex:``. A path is a list of
``device.function`` in hexadecimal.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pagetables.bits import BitRecord
from vtd.dmar.records import (
    SCOPE_HEADER,
    STRUCTURES,
    Andd,
    DeviceScope,
    DrhdSize,
    Header,
    Record,
    ScopedStructure,
    Structure,
    Undecoded,
)
from vtd.dmar.table import Table, TableError

SCOPE_TYPES = {name: number for number, name in DeviceScope.NAMES.items()}
STRUCTURE_TYPES = {kind.NAME: kind for kind in STRUCTURES.values()}
COMPUTED = ("table_length", "checksum")
"""Fields of the header that follow from all the others, unless they are wrong."""


def describe(table: Table) -> str:
    """The TOML text of a table."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: Table) -> Iterator[str]:
    for name, data in (("rest", table.rest), ("trailing", table.trailing)):
        if data:
            yield f"{name} = {_toml(data)}"
    yield "[header]"
    for name, value in _header_values(table).items():
        yield f"{name} = {_toml(value)}"
    for each in table.structures:
        yield ""
        yield "[[structure]]"
        for name, value in _structure_values(each).items():
            yield f"{name} = {_toml(value)}"
        for entry in each.scopes:
            pairs = (f"{name} = {_toml(value)}" for name, value in _entry_values(entry).items())
            yield "[[structure.scope]]"
            yield from pairs


def _header_values(table: Table) -> dict[str, Any]:
    header = table.header
    values = _changed(header)
    values.pop("host_address_width", None)
    right = table.sealed().header
    for name in COMPUTED:
        values.pop(name, None)
        if getattr(header, name) != getattr(right, name):
            values[name] = getattr(header, name)
    return {"address_bits": header.address_bits, **values}


def _structure_values(structure: Structure) -> dict[str, Any]:
    if isinstance(structure, Undecoded):
        return {"type": structure.number, "payload": structure.tail}
    values = {"type": structure.name, **_changed(structure)}
    if isinstance(structure, Andd):
        return values | _name_values(structure)
    if structure.tail:
        values["tail"] = structure.tail
    return values


def _name_values(andd: Andd) -> dict[str, Any]:
    """The name and how many zeros follow its NUL, or the bytes if there is more to it."""
    end = andd.terminator
    if end is None or any(andd.tail[end:]) or andd.object_name.encode() != andd.tail[:end]:
        return {"tail": andd.tail}
    padding = len(andd.tail) - end - 1
    return {"object_name": andd.object_name} | ({"padding": padding} if padding else {})


def _entry_values(entry: DeviceScope) -> dict[str, Any]:
    values: dict[str, Any] = {"type": DeviceScope.NAMES.get(entry.type, entry.type)}
    for name in ("flags", "reserved", "enumeration_id", "start_bus"):
        if getattr(entry, name):
            values[name] = getattr(entry, name)
    values["path"] = [f"{device:02x}.{function:x}" for device, function in entry.path]
    if entry.length % 2:
        values["odd_byte"] = entry.path_bytes[-1]
    return values


def _changed(record: Record) -> dict[str, Any]:
    """The fields that differ from their default."""
    defaults = record.defaults()
    return {name: value for name, value in record.fields().items() if value != defaults[name]}


def bytes_text(value: bytes) -> str:
    """Bytes as a description has them: as text, or as digits."""
    text = value.decode("latin-1")
    plain = value.isascii() and text.isprintable() and not text.startswith("hex:")
    return text if plain else f"hex:{value.hex()}"


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case DrhdSize():
            return str(int(value))
        case BitRecord():
            names = [name for name, number in value.fields().items() if number]
            return hex(value) if value & value.RESERVED else _toml(names)
        case int():
            return hex(value) if value > 255 else str(value)
        case bytes():
            return _toml(bytes_text(value))
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
    return '"' + "".join(_escaped(character) for character in str(value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\u{ord(character):04x}"


def build(text: str) -> Table:
    """The table that TOML text describes; TableError names the key that is wrong."""
    try:
        description = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TableError(f"description: {error}") from error
    return from_mapping(description)


def from_mapping(description: Mapping[str, Any]) -> Table:
    """The table that a mapping of the form of the TOML text describes."""
    top = _Keys(dict(description), "description")
    header = _Keys(top.take("header", dict, {}), "header")
    structures = top.take("structure", list, [])
    rest, trailing = top.take_bytes("rest"), top.take_bytes("trailing")
    top.done()
    bits = header.take("address_bits", int)
    if bits is not None:
        header.values["host_address_width"] = bits - 1
    fields = header.take_fields(Header)
    header.done()
    records = tuple(
        _structure(values, f"structure {number}") for number, values in enumerate(structures)
    )
    sealed = Table(Header(**fields), records, rest).sealed()
    wrong = {name: fields[name] for name in COMPUTED if name in fields}
    return replace(sealed, header=replace(sealed.header, **wrong), trailing=trailing)


def _structure(values: object, where: str) -> Structure:
    keys = _Keys(values, where)
    type = keys.take("type", (str, int))
    if isinstance(type, int):
        _fits(type, 16, f"{where}: type")
        structure: Structure = Undecoded(number=type, tail=keys.take_bytes("payload"))
    elif type in STRUCTURE_TYPES:
        structure = _known_structure(keys, STRUCTURE_TYPES[type])
    else:
        raise TableError(f"{where}: type {type!r} is none of {', '.join(STRUCTURE_TYPES)}")
    keys.done()
    return structure


def _known_structure(keys: _Keys, kind: type[Structure]) -> Structure:
    body: dict[str, Any] = {"tail": keys.take_bytes("tail")}
    if issubclass(kind, Andd) and (name := keys.take("object_name", str)) is not None:
        padding = keys.take("padding", int, 0)
        _fits(padding, 16, f"{keys.where}: padding")
        if not name.isascii():
            raise TableError(f"{keys.where}: object_name is not ASCII")
        body["tail"] = name.encode() + bytes(1 + padding) + body["tail"]
    if issubclass(kind, ScopedStructure):
        entries = keys.take("scope", list, [])
        body["scopes"] = tuple(
            scope_entry(entry, f"{keys.where}, scope {number}")
            for number, entry in enumerate(entries)
        )
    return kind(**keys.take_fields(kind), **body)


def scope_entry(values: object, where: str = "scope") -> DeviceScope:
    """The scope entry that a mapping with the keys of a description gives."""
    keys = _Keys(values, where)
    type = keys.take("type", (str, int))
    if not isinstance(type, int):
        if type not in SCOPE_TYPES:
            raise TableError(f"{where}: type {type!r} is none of {', '.join(SCOPE_TYPES)}")
        type = SCOPE_TYPES[type]
    path = b"".join(_hop(hop, where) for hop in keys.take("path", list, []))
    odd = keys.take("odd_byte", int)
    if odd is not None:
        _fits(odd, 8, f"{where}: odd_byte")
        path += bytes([odd])
    length = SCOPE_HEADER + len(path)
    if length > 0xFF:
        raise TableError(f"{where}: path of {len(path)} bytes is too long for an entry")
    keys.values |= {"type": type, "entry_length": length}
    fields = keys.take_fields(DeviceScope)
    keys.done()
    return DeviceScope(**fields, path_bytes=path)


def _hop(text: object, where: str) -> bytes:
    try:
        device, function = str(text).split(".")
        return bytes([int(device, 16), int(function, 16)])
    except ValueError as error:
        raise TableError(f"{where}: path element {text!r} is not device.function") from error


def _fits(value: int, bits: int, where: str) -> None:
    if not 0 <= value < 1 << bits:
        raise TableError(f"{where}: {value} does not fit {bits} bits")


class _Keys:
    """The keys of one TOML table, taken one by one so that none is overlooked."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise TableError(f"{where}: a table of keys is needed")
        self.values: dict[str, Any] = dict(values)
        self.where = where

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self.values.pop(name, default)
        if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TableError(f"{self.where}: {name} has a value of the wrong kind")
        return value

    def take_bytes(self, name: str) -> bytes:
        text = self.take(name, str, "")
        try:
            if text.startswith("hex:"):
                return bytes.fromhex(text.removeprefix("hex:"))
            encoded: bytes = text.encode("ascii")
            return encoded
        except (ValueError, UnicodeEncodeError) as error:
            raise TableError(f"{self.where}: {name} is neither ASCII nor hex:") from error

    def take_fields(self, kind: type[Record]) -> dict[str, Any]:
        """The values given for fields of a record, checked against their size."""
        given: dict[str, Any] = {}
        defaults = kind.defaults()
        for name, place in kind.field_places().items():
            if name not in self.values:
                continue
            default = defaults[name]
            if isinstance(default, bytes):
                given[name] = self._bytes_field(name, place.length)
            elif isinstance(default, BitRecord):
                given[name] = self._bits_field(name, type(default))
            else:
                value = self.take(name, int)
                _fits(value, 8 * place.length, f"{self.where}: {name}")
                given[name] = value
        return given

    def _bytes_field(self, name: str, length: int) -> bytes:
        data = self.take_bytes(name)
        if len(data) != length:
            raise TableError(f"{self.where}: {name} has {len(data)} bytes instead of {length}")
        return data

    def _bits_field(self, name: str, kind: type[BitRecord]) -> BitRecord:
        value = self.take(name, (int, list))
        try:
            return kind.of(**dict.fromkeys(value, 1)) if isinstance(value, list) else kind(value)
        except (TypeError, ValueError) as error:
            raise TableError(f"{self.where}: {name}: {error}") from error

    def done(self) -> None:
        if self.values:
            raise TableError(f"{self.where}: unknown key {next(iter(self.values))!r}")
