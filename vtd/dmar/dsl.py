"""The source that iasl compiles into a table, as ``iasl -d``, ``iasl -T`` and people write it.

Like iasl, reading takes the fields in their order, whatever offsets are printed beside them, and
computes Length of the table, of structures and of entries, and Checksum. Raw data that a
disassembly ends with is used only where it agrees with the fields: fields may have been edited
since. Preprocessor lines, labels and expressions are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vtd.dmar.hex_dump import DumpError, hex_blobs
from vtd.dmar.records import (
    FIXED_PART,
    STRUCTURES,
    Undecoded,
)
from vtd.dmar.table import Table, TableError

KNOWN_TO_ALL, DECODES_ALL = 4, 20250101
"""Highest structure type that every iasl in use decodes, and the version that decodes all."""

_START = re.compile(r'^[\s>|]*(?:\[[^\]]*\]\s*)?Signature\s*:\s*"(?:DMAR|RMAD|RAMD)"', re.MULTILINE)
_ANY_START = re.compile(r'^[\s>|]*(?:\[[^\]]*\]\s*)?Signature\s*:\s*"[^"\n]{4}"', re.MULTILINE)
_FIELD = re.compile(
    r"[\s>|]*(?:\[(?P<place>[^\]]*)\])?\s*(?P<label>[A-Za-z(][^:\"]*?)\s+:\s*(?P<value>.*?)\s*"
)
_STRING = re.compile(r'"(.*)"')
"""Names as they are: a disassembly escapes neither quotes nor backslashes."""
_HEX = re.compile(r"(?:0x)?[0-9A-Fa-f]{1,8}", re.ASCII)
_DESCRIPTION = re.compile(r"\s*(?:\[[^\]]*\]|<[^>]*>)\s*$")
_BRACKETED_PATH = re.compile(r"\[([0-9A-F]{2}), ?([0-9A-F]{2})\]", re.ASCII)
_COMMENT = re.compile(r'("[^"\n]*")|/\*.*?\*/|//[^\n]*', re.DOTALL)
"""Or a string, which may have their characters."""
_RAW = re.compile(r"^[\s>|]*Raw Table Data", re.MULTILINE)
_STOPPED = re.compile(r"Unknown DMAR subtable|Invalid zero length|terminates early")
_VERSION = re.compile(r"isassembler version (\d{8})", re.ASCII)

LONGEST_FIELD = 0xFFFF
"""Bytes of the longest name that a structure has room for."""

SIZES = {
    "signature": 4,
    "table length": 4,
    "revision": 1,
    "checksum": 1,
    "oem id": 6,
    "oem table id": 8,
    "oem revision": 4,
    "asl compiler id": 4,
    "asl compiler revision": 4,
    "host address width": 1,
    "subtable type": 2,
    "length": 2,
    "pci segment number": 2,
    "register base address": 8,
    "base address": 8,
    "end address (limit)": 8,
    "proximity domain": 4,
    "device scope type": 1,
    "entry length": 1,
    "enumeration id": 1,
    "pci bus number": 1,
    "device number": 1,
    "acpi device number": 1,
    "flags": 1,
    "size (decoded below)": 1,
}
"""Bytes of fields whose number of digits need not tell."""
OLD_LABELS = {"device scope entry type": "device scope type", "sub-table type": "subtable type"}
"""Labels of iasl before 2013, which also put the path in brackets, and types between < and >."""
RESERVED_IN_HEADER = slice(0x26, FIXED_PART)
"""What iasl before 2013 printed no field for."""
NAMES = ("device name", "acpi device name", "object name")
"""Labels of the one string that ends where it ends."""
SIZE_EXPONENT = "size (pages, log2)"
"""A field of four bits that repeats part of the byte before it."""


class Field(NamedTuple):
    """One line of the source."""

    line: int
    label: str
    """In lower case."""
    value: str
    size: int | None
    """Bytes that the line says it has."""
    offset: int | None
    """Where the line says it is."""


def is_source(text: str) -> bool:
    """Whether a text has the fields of a DMAR table."""
    return _START.search(text) is not None


def sources(text: str) -> Iterator[str]:
    """The source of each DMAR table of a text, on the lines where it is; others are left out."""
    starts = [match.start() for match in _ANY_START.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        if _START.match(text, start):
            before = text[:start]
            yield (before if start == starts[0] else "\n" * before.count("\n")) + text[start:end]


def read_source(text: str) -> tuple[bytes, tuple[str, ...]]:
    """The table of a source, and notes about it; TableError names the line that is wrong."""
    raw_at = _RAW.search(text)
    fields = list(_fields(text[: raw_at.start()] if raw_at else text))
    raw = _raw(text[raw_at.start() :]) if raw_at else None
    stopped = bool(_STOPPED.search(text))
    if raw is not None and _untouched(fields, raw, _known_types(text), stopped):
        return raw, ()
    if raw is None:
        table = _compile(fields)
        if cut := _cut_short(fields, table, stopped):
            return cut, ("read from its fields, which end before its Length does",)
        return table, ("read from its fields, Length and Checksum computed",)
    try:
        compiled = _compile(fields)
    except TableError as error:
        return raw, (f"read from its raw data; its fields make no table: {error}",)
    note = "the fields differ from the raw data below them: the fields count, as for iasl"
    return compiled, (note,)


def _cut_short(fields: list[Field], table: bytes, stopped: bool) -> bytes | None:
    """The beginning of a table whose source somebody cut; None for a whole one.

    Then both the table and its last structure say that they are longer than their fields. Where
    only the table does, a structure was taken out. A name at the end is whole: zeroes behind it are
    not printed. Nor is what follows a structure of length 0, where iasl stops.
    """
    if fields and fields[-1].label == "device name":
        return None
    lengths = [each for each in fields if each.label in ("table length", "length")]
    said = [int(each.value, 16) for each in lengths if _HEX.fullmatch(each.value)]
    start = FIXED_PART
    length = int.from_bytes(table[start + 2 : start + 4], "little")
    while length and start + length < len(table):
        start += length
        length = int.from_bytes(table[start + 2 : start + 4], "little")
    if not length or len(said) < 2 or len(said) != len(lengths):
        return None
    is_zero = stopped and said[-1] == 0 and fields[-1].label == "length"
    if said[0] <= len(table) or not (is_zero or length < said[-1] <= 0xFFFF):
        return None
    cut = bytearray(table)
    cut[4:8] = said[0].to_bytes(4, "little")
    cut[start + 2 : start + 4] = said[-1].to_bytes(2, "little")
    return bytes(cut)


def _raw(text: str) -> bytes | None:
    """The bytes of the raw data, None if that can't be read."""
    try:
        return next(iter(hex_blobs(text)), None)
    except DumpError:
        return None


def _known_types(text: str) -> int:
    """The highest structure type that the iasl which printed the text decodes, at least."""
    version = _VERSION.search(text)
    return max(STRUCTURES) if version and int(version[1]) >= DECODES_ALL else KNOWN_TO_ALL


def _untouched(fields: list[Field], raw: bytes, known_types: int, stopped: bool) -> bool:
    """Whether every field is what the raw data has at its offset, and none was taken out.

    ``stopped`` says that iasl gave up, at the last field.
    """
    unprinted = bytearray(b"\1" * len(raw))
    undecoded = min(_undecoded(raw, known_types), default=len(raw))
    end = 0
    for field in fields:
        if field.offset is None:
            if field.label == SIZE_EXPONENT and field.value in _exponent(raw[end - 1 : end]):
                continue
            return False
        end = field.offset + (field.size or 0)
        known = field.offset < undecoded or not stopped
        if known and not _same(field, raw[field.offset : end]):
            return False
        unprinted[field.offset : end] = bytes(len(raw[field.offset : end]))
    for start, stop in _padding(raw):
        unprinted[start:stop] = bytes(len(raw[start:stop]))
    return not any(unprinted[: end if stopped else undecoded])


def _exponent(stored: bytes) -> list[str]:
    """How iasl prints the lower four bits of a byte."""
    return [f"{byte & 0xF:X}" for byte in stored]


def _undecoded(raw: bytes, known_types: int) -> Iterator[int]:
    """Offsets of what iasl can't cut out or does not know, where it may stop."""
    if len(raw) < FIXED_PART:
        return
    table = Table.parse(raw)
    yield table.rest_place.offset
    for each in table.structures:
        if isinstance(each, Undecoded) or each.type > known_types:
            yield each.offset
        yield from (entry.offset for entry in each.scopes if entry.length % 2 or not entry.path)


def _padding(raw: bytes) -> Iterator[tuple[int, int]]:
    """Bytes behind what a structure needs, which iasl passes over."""
    for each in Table.parse(raw).structures if len(raw) >= FIXED_PART else ():
        end = each.offset + each.length
        yield end - len(each.tail), end


def _same(field: Field, stored: bytes) -> bool:
    """Whether a field says what is stored; of strings as much as is printable."""
    if match := _STRING.match(field.value):
        printed, whole, ended = map(
            _printable, (match[1].encode(), stored, stored.partition(b"\0")[0])
        )
        return printed in (whole, ended)
    try:
        words = [int(word, 16) for word in field.value.replace(",", " ").split()]
    except ValueError:
        return False
    return bytes(stored) in (
        bytes(word & 0xFF for word in words),
        sum(words[:1]).to_bytes(max(8, len(stored)), "little")[: len(stored)],
    )


def _printable(data: bytes) -> bytes:
    """The characters that iasl prints; it has a space for all others."""
    return bytes(byte for byte in data if 0x20 < byte < 0x7F)


def _fields(text: str) -> Iterator[Field]:
    """The fields in their order; only comments, blank lines and remarks may be between them."""
    plain = _COMMENT.sub(lambda match: match[1] or "\n" * match[0].count("\n"), text)
    missing = True
    for number, line in enumerate(plain.splitlines(), 1):
        match = _FIELD.fullmatch(line)
        if match is None:
            continue
        value = match["value"]
        if not value.startswith('"'):
            value = _DESCRIPTION.sub("", _BRACKETED_PATH.sub(r"\1,\2", value))
        size, offset = _place(match["place"])
        label = match["label"].strip().lower()
        label = OLD_LABELS.get(label, label)
        if missing and label == "subtable type":
            start, end = RESERVED_IN_HEADER.start, RESERVED_IN_HEADER.stop
            yield Field(number, "reserved", "0", end - start, None if offset is None else start)
        missing = missing and label not in ("reserved", "subtable type")
        yield Field(number, label, value, size, offset)


def _place(text: str | None) -> tuple[int | None, int | None]:
    """Length and offset in ``[000h 0000 4]``, ``[000h 0000 004h]`` or, length only, ``[0004]``."""
    words = (text or "").split()
    try:
        size = int(words[-1][:-1], 16) if words[-1].endswith("h") else int(words[-1])
        return size, int(words[0].removesuffix("h"), 16) if len(words) > 1 else None
    except (ValueError, IndexError):
        return None, None


def _compile(fields: list[Field]) -> bytes:
    """The table of the fields."""
    data = bytearray()
    structure = entry = None
    for field in fields:
        if not data and field.label != "signature":
            continue
        if field.label == SIZE_EXPONENT:
            data[-1] = data[-1] & 0xF0 | _number(field, 1) & 0xF
            continue
        if field.label in ("subtable type", "device scope type"):
            _close(data, entry, 1)
            entry = len(data) if field.label == "device scope type" else None
            if field.label == "subtable type":
                _close(data, structure, 2)
                structure = len(data)
        data += _bytes(field)
    _close(data, entry, 1)
    _close(data, structure, 2)
    if len(data) < FIXED_PART:
        raise TableError(
            f"the fields make {len(data)} bytes, the fixed part alone has {FIXED_PART}"
        )
    data[4:8] = len(data).to_bytes(4, "little")
    data[9] = 0
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def _close(data: bytearray, start: int | None, size: int) -> None:
    """Write the Length of the structure or entry that ends here behind its type."""
    if start is not None and len(data) >= start + 2 * size:
        length = len(data) - start
        if length >> 8 * size:
            raise TableError(f"{length} bytes at 0x{start:x} are too many for Length")
        data[start + size : start + 2 * size] = length.to_bytes(size, "little")


def _bytes(field: Field) -> bytes:
    """The bytes of one field."""
    if field.size is not None and field.size > LONGEST_FIELD:
        raise TableError(f"line {field.line}: {field.label} has {field.size} bytes")
    if match := _STRING.match(field.value):
        return _string(field, match[1])
    words = field.value.replace(",", " ").split()
    if not words:
        raise TableError(f"line {field.line}: {field.label} has no value")
    if len(words) > 1:
        return b"".join(_number(field, 1, word).to_bytes(1, "little") for word in words)
    digits = words[0].lower().removeprefix("0x")
    size = field.size or SIZES.get(field.label) or max(1, (len(digits) + 1) // 2)
    if size > 8:
        return _number(field, 8).to_bytes(size, "little")
    return _number(field, size).to_bytes(size, "little")


def _string(field: Field, text: str) -> bytes:
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise TableError(f"line {field.line}: {field.label} has other characters") from error
    size = field.size or SIZES.get(field.label) or len(data) + 1
    if field.label in NAMES:
        return data.ljust(max(size, len(data) + 1), b"\0")
    if len(data) > size:
        raise TableError(f"line {field.line}: {field.label} has more than {size} characters")
    return data.ljust(size, b"\0")


def _number(field: Field, size: int, word: str | None = None) -> int:
    if not field.value:
        raise TableError(f"line {field.line}: {field.label} has no value")
    text = (word or field.value.split()[0]).lower().removeprefix("0x")
    try:
        if not re.fullmatch(r"[0-9a-f]+", text, re.ASCII):
            raise ValueError(text)
        value = int(text, 16)
        value.to_bytes(size, "little")
    except (ValueError, OverflowError) as error:
        raise TableError(
            f"line {field.line}: {field.label} {text!r} is no hexadecimal number of {size} bytes"
        ) from error
    return value
