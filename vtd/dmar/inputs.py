"""Finding ACPI tables in files: raw, concatenated, as hex text, as source, as printed fields.

Hex text is described in :mod:`vtd.dmar.hex_dump`, source in :mod:`vtd.dmar.dsl`, what other systems
print in :mod:`vtd.dmar.printed_fields`. Of a file that holds other memory too, such as a dump that
starts before the table, the DMAR tables are cut out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vtd.dmar.dsl import is_source, read_source, sources
from vtd.dmar.hex_dump import ACPI_SIGNATURE, DumpError, hex_blobs
from vtd.dmar.printed_fields import is_printed, read_printed
from vtd.dmar.records import ACPI_HEADER, FIXED_PART
from vtd.dmar.rules.header import SIGNATURES
from vtd.dmar.table import TableError
from vtd.mail import unquoted

_DMAR = re.compile(b"|".join(SIGNATURES))


class Found(NamedTuple):
    """A table of a file, and what the reader of the file should know about it."""

    data: bytes
    notes: tuple[str, ...] = ()


def dmar_tables(data: bytes) -> list[bytes]:
    """The DMAR tables in a file, see :func:`find_tables`."""
    return [found.data for found in find_tables(data)]


def find_tables(data: bytes) -> list[Found]:
    """The DMAR tables in a file; if there is just one blob, that one whatever its signature.

    TableError if the file has no table at all, or several of which none is a DMAR table.
    """
    tables = _tables(data)
    found = [table for table in tables if table.data[:4] in SIGNATURES]
    if found:
        return found
    inside = [Found(table) for each in tables for table in _cut_out(each.data)]
    if inside:
        return inside
    if len(tables) == 1:
        return tables
    if not tables:
        raise TableError("no DMAR table: text without the hex data or the fields of one")
    names = ", ".join(table.data[:4].decode("ascii", "replace") for table in tables)
    raise TableError(f"no DMAR table among {names}")


def acpi_tables(data: bytes) -> list[bytes]:
    """All ACPI tables in a file, with the bytes that trail each of them."""
    return [found.data for found in _tables(data)]


def _tables(data: bytes) -> list[Found]:
    text = _text(data)
    if text is None:
        return _raw(data)
    text = unquoted(text)
    if is_source(text):
        return [Found(*read_source(source)) for source in sources(text)]
    if is_printed(text):
        return [Found(*read_printed(text))]
    try:
        blobs = hex_blobs(text)
    except DumpError as error:
        raise TableError(str(error)) from error
    return [Found(table) for blob in blobs for table in _split(blob)]


_LOST = "\ufffd".encode()
"""What programs for text write for bytes that are none."""


def _raw(data: bytes) -> list[Found]:
    """The tables of a binary file; TableError for one of which a program for text lost bytes."""
    if _DMAR.match(data) and not _is_whole(data):
        if _LOST in data:
            raise TableError(
                f"{data.count(_LOST)} bytes are lost: a program took the table for text, and wrote "
                "ef bf bd for them; copy the file itself, or a hex dump of it (xxd)"
            )
        for done, undone in _undone(data):
            if _is_whole(undone):
                return [Found(undone, (f"a program took the table for text: {done}, undone here",))]
    return list(map(Found, _split(data)))


def _undone(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a program for text may have done to a table, and the table before."""
    yield "line feeds were written as CR LF", data.replace(b"\r\n", b"\n")
    try:
        yield "its bytes were written as UTF-8", data.decode().encode("latin-1")
    except UnicodeError:
        return


def _is_whole(data: bytes) -> bool:
    """Whether these are the bytes of one table, with its Length and checksum."""
    return _table_length(data[:ACPI_HEADER], len(data)) == len(data) and sum(data) % 256 == 0


_ASCII_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f\v\x1b"
_MARKS = {b"\xff\xfe": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""Byte order marks of text files written on Windows, with their encoding."""
MOST_STRANGE = 0.05
"""Share of bytes beyond ASCII that a text may have if it is no UTF-8."""


def _text(data: bytes) -> str | None:
    """The data as text, None if it is binary."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    strange = data.translate(None, _ASCII_TEXT)
    if not data or 0 in strange or (strange and _DMAR.match(data)):
        return None
    if len(strange) > MOST_STRANGE * len(data) and not _is_utf8(data, strange):
        return None
    return data.decode("utf-8", "replace")


def _is_utf8(data: bytes, strange: bytes) -> bool:
    """Whether all that is not ASCII is text in UTF-8, such as lines around columns."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return min(strange) > 0x7F


def _split(blob: bytes) -> Iterator[bytes]:
    """Concatenated tables one by one; what is no table stays behind the one before."""
    start = end = 0
    while (length := _table_length(blob[end : end + ACPI_HEADER], len(blob) - end)) is not None:
        if end > start:
            yield blob[start:end]
        start, end = end, end + length
    yield blob[start:]


def _cut_out(blob: bytes) -> Iterator[bytes]:
    """DMAR tables somewhere in a dump of memory, with a Length that fits and a right checksum."""
    for match in _DMAR.finditer(blob):
        start = match.start()
        header = blob[start : start + ACPI_HEADER]
        length = _table_length(header, len(blob) - start)
        if length is not None and sum(blob[start : start + length]) % 256 == 0:
            yield blob[start : start + length]


def _table_length(header: bytes, available: int) -> int | None:
    """The Length of a table that plausibly starts here, None if none does."""
    if len(header) < ACPI_HEADER or not ACPI_SIGNATURE.match(header):
        return None
    length = int.from_bytes(header[4:8], "little")
    shortest = FIXED_PART if header[:4] in SIGNATURES else ACPI_HEADER
    return length if shortest <= length <= available else None
