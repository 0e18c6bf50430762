"""Names that look like bytes, offsets, fields or punctuation do not change how a table is read.

Dumps show the names of the header as text beside their bytes, source and printed fields have them
as they are, and firmware may put anything there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.dmar_corpus import clean_tables
from tests.vtd.dmar import test_byte_lists, test_hex_dump, test_inputs
from tests.vtd.dmar.test_hex_dump import ADDRESS, TABLE, WRAPPINGS, readable, rows, words
from tests.vtd.dmar.test_inputs import acpidump
from tests.vtd.dmar.test_printed_fields import TABLE as PRINTED_TABLE
from tests.vtd.dmar.test_printed_fields import freebsd
from vtd.dmar.inputs import dmar_tables
from vtd.dmar.source import write_source
from vtd.dmar.table import Table, TableError

TABLES = [
    each.data
    for each in clean_tables()
    if len(each.data) == Table.parse(each.data).header.table_length < 400
]
ALPHABET = "0123456789ABCDEFabcdef -xhDMARSTyp.,:;=|<>()[]{}'\"\\/*#&+_"
TOKENS = (
    " : ",
    "0x12",
    "12h ",
    "//",
    "/*",
    "<p ",
    "<br>",
    "&lt;",
    "hex:",
    "DMAR",
    "]Type=1",
    "CB-01 ",
)
SIZES = {10: 6, 16: 8, 28: 4}
"""Offsets and bytes of OEM id, OEM table id and Creator ID."""


class Line(NamedTuple):
    """A line of a dump: how offset, bytes and text of so many bytes are printed."""

    offset: Callable[[int], str]
    data: Callable[[bytes, int], str]
    text: str = "{}"


def spaced(row: bytes, width: int) -> str:
    return f"{row.hex(' '):{3 * width - 1}}"


def no_offset(at: int) -> str:
    return ""


def at_address(at: int) -> str:
    return f"{ADDRESS + at:08x}: "


LINES = {
    "acpidump": Line("    {:04X}: ".format, spaced, "  {}"),
    "iasl": Line("    {:04X}: ".format, spaced, "  // {}"),
    "xxd": Line("{:08x}: ".format, lambda row, size: f"{row.hex(' ', -2):{5 * size // 2}}", " {}"),
    "xxd -g 1": Line("{:08x}: ".format, spaced, "  {}"),
    "hexdump -C": Line(
        "{:08x}  ".format, lambda row, _: f"{row[:8].hex(' '):23}  {row[8:].hex(' '):23}", "  |{}|"
    ),
    "od -z": Line("{:07o} ".format, spaced, "  >{}<"),
    "U-Boot md.b": Line(at_address, spaced, "    {}"),
    "U-Boot md.l": Line(at_address, lambda row, size: f"{words(row, 4):{9 * size // 4}}", "   {}"),
    "crash": Line(at_address, lambda row, width: f"{words(row, 8):{17 * width // 8}}", "  {}"),
    "kernel": Line("[    1.234560] DMAR: {:08x}: ".format, spaced, "  {}"),
    "journal": Line("Nov 24 14:00:01 host kernel: DMAR: {:08x}: ".format, spaced, "  {}"),
    "rows": Line(no_offset, spaced, "  {}"),
    "rows, bar": Line(no_offset, spaced, " | {}"),
    "rows of a log": Line("[    1.234560] ACPI: ".format, spaced, "  {}"),
    "C": Line(no_offset, lambda row, _: "".join(map("0x{:02x}, ".format, row)), "// {}"),
    "assembler": Line("db ".format, lambda row, _: "".join(map("0{:02x}h,".format, row)), " ; {}"),
    "Python": Line(no_offset, lambda row, _: "".join(map("{}, ".format, row)), "# {}"),
}  # fmt: skip
FORMS: dict[str, Callable[[bytes], str]] = {
    f"{module.__name__.rpartition('.')[2]}, {name}": form
    for module in (test_byte_lists, test_hex_dump, test_inputs)
    for name, form in module.FORMS.items()
}


@st.composite
def names(draw: st.DrawFn, size: int) -> bytes:
    """A name that a reader may stumble over."""
    part = st.sampled_from([*ALPHABET, *TOKENS])
    return "".join(draw(st.lists(part, max_size=size))).ljust(size).encode()[:size]


def named(table: bytes, given_names: tuple[bytes, bytes, bytes], sound: bool = True) -> bytes:
    """A table with other names and its checksum right, or not."""
    data = bytearray(table)
    for (start, size), name in zip(SIZES.items(), given_names, strict=True):
        data[start : start + size] = name
    data[9] = (data[9] - sum(data) + (not sound)) % 256
    return bytes(data)


def can_be_source(table: bytes) -> bool:
    """Whether iasl has a field for everything in a table."""
    try:
        return not write_source(Table.parse(table))[1]
    except TableError:
        return False


SOURCED = list(filter(can_be_source, TABLES))
NAMES = st.tuples(*map(names, SIZES.values()))
NAMED = st.builds(named, st.sampled_from(TABLES), NAMES, st.booleans())
DIGITS = named(TABLE, (b"CB-01 ", b"AB CD EF", b"12  "))
EQUALS = named(TABLE, (b"ACME_=", b"BOARD 1=", b"INT="))
"""As if the mail went on in the next line (quoted-printable)."""


def read(text: str, table: bytes) -> bytes:
    """The table that a text gives, without what fills up its last line."""
    (data,) = dmar_tables(text.encode())
    assert not any(data[len(table) :])
    return data[: len(table)]


@pytest.mark.parametrize("form", LINES)
@given(NAMED, st.sampled_from([8, 16, 32]), st.booleans(), st.sampled_from(sorted(WRAPPINGS)))
@example(DIGITS, 8, True, "bare")
@example(EQUALS, 16, True, "bare")
@example(EQUALS, 8, True, "bare")
def test_text_beside_bytes_is_not_read(
    form: str, table: bytes, width: int, upper: bool, wrapping: str
) -> None:
    line = LINES[form]
    case = str.upper if upper else str
    text = "\n".join(
        line.offset(at) + case(line.data(row, width)) + line.text.format(readable(row))
        for at, row in rows(table, width)
    )
    assert read(WRAPPINGS[wrapping](text), table) == table


@pytest.mark.parametrize("form", FORMS)
@given(NAMED, st.sampled_from(sorted(WRAPPINGS)))
@example(DIGITS, "bare")
def test_names_change_nothing_in_any_form(form: str, table: bytes, wrapping: str) -> None:
    assert read(WRAPPINGS[wrapping](FORMS[form](table)), table) == table


@given(st.sampled_from(SOURCED), NAMES, st.sampled_from(["", "raw data", "no offsets"]))
@example(TABLE, (b"A//B  ", b"X\\\\Y    ", b" : 4"), "no offsets")
@example(TABLE, (b'"ABC" ', b'"\\"     ', b"/*  "), "raw data")
def test_a_source_has_names_as_they_are(
    table: bytes, given_names: tuple[bytes, bytes, bytes], form: str
) -> None:
    """What iasl takes for the end of a name, or of a comment, can't be said without raw data."""
    table = named(table, given_names)
    source, left_out = write_source(Table.parse(table))
    text = b"".join(given_names).decode()
    assert bool(left_out) == ('"' in text)
    if form == "no offsets":
        source = "\n".join(line.partition("]")[2] for line in source.splitlines())
    if form == "raw data":
        source += "\nRaw Table Data: Length 1\n\n" + acpidump(table).partition("\n")[2]
    if '"' not in text or (form == "raw data" and "/" not in text):
        assert dmar_tables(source.encode()) == [table]


@given(NAMES)
@example((b"A,B=C ", b"]Type=1 ", b"hex:"))
def test_printed_fields_have_names_as_they_are(given_names: tuple[bytes, bytes, bytes]) -> None:
    table = named(PRINTED_TABLE.pack(), given_names)
    assert dmar_tables(freebsd(Table.parse(table)).encode()) == [table]
