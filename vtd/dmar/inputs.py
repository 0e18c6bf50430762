"""Finding ACPI tables in files: raw, concatenated, or as the hex text that tools print.

Reads what ``acpidump``, ``acpixtract`` and ``iasl -d`` write (the raw data block of the latter),
``xxd`` and ``hexdump -C`` output, and plain hexadecimal digits. Text without hex data is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vtd.dmar.records import FIXED_PART
from vtd.dmar.table import TableError

ACPI_HEADER = 36
"""Bytes of the header common to all ACPI tables."""

_DUMP_LINE = re.compile(r"\s*([0-9A-Fa-f]{1,8}):?\s+(\S.*)", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]+", re.ASCII)
_SIGNATURE = re.compile(rb"[A-Z][A-Z0-9!_]{3}")


def dmar_tables(data: bytes) -> list[bytes]:
    """The DMAR tables in a file; if there is just one blob, that one whatever its signature.

    TableError if the file has no table at all, or several of which none is a DMAR table.
    """
    tables = acpi_tables(data)
    found = [table for table in tables if table[:4] == b"DMAR"]
    if found:
        return found
    if len(tables) == 1:
        return tables
    names = ", ".join(table[:4].decode("ascii", "replace") for table in tables)
    raise TableError(f"no DMAR table among {names}")


def acpi_tables(data: bytes) -> list[bytes]:
    """All ACPI tables in a file, with the bytes that trail each of them."""
    text = _text(data)
    blobs = [data] if text is None else _hex_blobs(text)
    return [table for blob in blobs for table in _split(blob)]


_ASCII_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f"
_MARKS = {b"\xff\xfe": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""Byte order marks of text files written on Windows, with their encoding."""


def _text(data: bytes) -> str | None:
    """The data as text, None if it is binary."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if not data or data.translate(None, _ASCII_TEXT):
        return None
    return data.decode("ascii")


def _split(blob: bytes) -> Iterator[bytes]:
    """Concatenated tables one by one; what is no table stays behind the one before."""
    start = end = 0
    while (length := _table_length(blob[end : end + ACPI_HEADER], len(blob) - end)) is not None:
        if end > start:
            yield blob[start:end]
        start, end = end, end + length
    yield blob[start:]


def _table_length(header: bytes, available: int) -> int | None:
    """The Length of a table that plausibly starts here, None if none does."""
    if len(header) < ACPI_HEADER or not _SIGNATURE.match(header):
        return None
    length = int.from_bytes(header[4:8], "little")
    shortest = FIXED_PART if header[:4] == b"DMAR" else ACPI_HEADER
    return length if shortest <= length <= available else None


def _hex_blobs(text: str) -> list[bytes]:
    """The bytes of every hex dump in a text; a dump starts at offset 0."""
    words = text.split()
    digits = "".join(words)
    if words and words[0].strip("0") and _HEX.fullmatch(digits) and len(digits) % 2 == 0:
        return [bytes.fromhex(digits)]
    blobs: list[bytearray] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _DUMP_LINE.fullmatch(line)
        data = _line_bytes(match[2]) if match else b""
        if match is None or not data:
            continue
        offset = int(match[1], 16)
        if offset == 0:
            blobs.append(bytearray())
        if not blobs or offset != len(blobs[-1]):
            raise TableError(f"line {number}: hex data of offset 0x{offset:x} is out of order")
        blobs[-1] += data
    if not blobs:
        raise TableError("text without the hex data of a table (for iasl, disassemble with -d)")
    return [bytes(blob) for blob in blobs]


def _line_bytes(text: str) -> bytes:
    """The bytes of a dump line after its offset: the hex column, without the text column."""
    before_bar = _hex_words(text.partition("|")[0]) if text.endswith("|") else b""
    return before_bar or _hex_words(text.partition("  ")[0])


def _hex_words(text: str) -> bytes:
    """The bytes of words of an even number of digits, none if there is anything else."""
    words = text.split()
    digits = "".join(words)
    plausible = len(digits) <= 64 and all(len(word) % 2 == 0 for word in words)
    return bytes.fromhex(digits) if plausible and _HEX.fullmatch(digits) else b""
