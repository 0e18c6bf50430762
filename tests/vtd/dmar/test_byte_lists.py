"""Tables in programs and configuration: every way to write bytes gives the bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import clean_tables
from tests.vtd.dmar.test_hex_dump import TABLE, WRAPPINGS, readable, rows
from vtd.dmar.byte_lists import SIGNATURES, listed_tables
from vtd.dmar.hex_dump import hex_blobs
from vtd.dmar.inputs import acpi_tables, dmar_tables


def lines(data: bytes, form: str, between: str = ", ", before: str = "  ") -> str:
    """Rows of 16 bytes, each written in a form."""
    return "\n".join(
        before + between.join(map(form.format, row)) + between.rstrip(" ") for _, row in rows(data)
    )


def chipsec(data: bytes) -> str:
    def part(data: bytes) -> Iterator[str]:
        yield from (f"{row.hex(' ').upper():47}  | {readable(row)}" for _, row in rows(data))

    named = "\n  DMAR Table Contents\n  Host Address Width  : 38\n\n  Remapping Structures:\n"
    return "\n".join(("ACPI Table: DMAR", *part(data[:36]), named, *part(data[36:])))


def octal_words(data: bytes) -> str:
    """As od prints them without any option."""
    pairs = ((at, row.ljust(len(row) + len(row) % 2, b"\0")) for at, row in rows(data))
    return "\n".join(
        " ".join((f"{at:07o}", *(f"{row[n] | row[n + 1] << 8:06o}" for n in range(0, len(row), 2))))
        for at, row in pairs
    )


FORMS: dict[str, Callable[[bytes], str]] = {
    "list of Python": lambda data: f"dmar = bytes({list(data)})",
    "JSON": lambda data: json.dumps({"name": "DMAR", "size": len(data), "data": list(data)}),
    "JSON, a number a line": lambda data: json.dumps(list(data), indent=1),
    "signed numbers of Java": lambda data: str([each - (each >> 7 << 8) for each in data]),
    "bytes of Python": lambda data: f"table = {data!r}\n",
    "bytes of Python in lines": lambda data: (
        "table = (\n" + "\n".join(f"    {row!r}" for _, row in rows(data)) + "\n)\n"
    ),
    "string of C": lambda data: '"' + "".join(map("\\x{:02x}".format, data)) + '"',
    "string of C in lines": lambda data: (
        "\n".join(f'  "{"".join(map(chr(92).join(("", "x{:02x}")).format, row))}"'
                  for _, row in rows(data))
    ),
    "octal escapes": lambda data: "printf '" + "".join(map("\\{:03o}".format, data)) + "' > DMAR",
    "C, hexadecimal": lambda data: "u8 t[] = {\n" + lines(data, "0x{:02X}") + "\n};",
    "C, shortest numbers": lambda data: "{" + ", ".join(map(hex, data)) + "}",
    "C, decimal": lambda data: "unsigned char t[] = {\n" + lines(data, "{:d}") + "\n};",
    "C, with comments": lambda data: "".join(
        f"  /* {at:04x} */ " + ", ".join(f"0x{each:02x}" for each in row) + f", // {row!r}\n"
        for at, row in rows(data)
    ),
    "Rust": lambda data: "[" + ", ".join(f"0x{each:02x}u8" for each in data) + "]",
    "Buffer of ASL": lambda data: "".join(
        f"    /* {at:04X} */  " + ", ".join(f"0x{each:02X}" for each in row) + f",  // {at}\n"
        for at, row in rows(data)
    ),
    "assembler": lambda data: "".join(
        "  db " + ", ".join(f"0{each:02X}h" for each in row) + "\n" for _, row in rows(data)
    ),
    "directives": lambda data: lines(data, "0x{:02x}", ",", ".byte ").replace(",\n", "\n"),
    "numbers alone": lambda data: " ".join(map(str, data)),
    "0x alone": lambda data: " ".join(f"0x{each:02x}" for each in data),
    "dashes": lambda data: data.hex("-").upper(),
    "colons": lambda data: "\n".join(row.hex(":") for _, row in rows(data)),
    "digits in quotes": lambda data: f'bytes.fromhex("{data.hex()}")',
    "digits behind 0x": lambda data: f"0x{data.hex()}",
    "base64 in JSON": lambda data: json.dumps({"dmar": base64.b64encode(data).decode()}),
    "base64 for addresses": lambda data: base64.urlsafe_b64encode(data).decode(),
    "od, decimal": lambda data: "\n".join(
        f"{at:07o} " + " ".join(f"{each:3}" for each in row) for at, row in rows(data)
    ),
    "od, octal": lambda data: "\n".join(
        f"{at:07o} " + " ".join(f"{each:03o}" for each in row) for at, row in rows(data)
    ),
    "od, octal words": octal_words,
    "chipsec": chipsec,
    "rows with text": lambda data: "\n".join(
        f"{row.hex(' ').upper()}  {readable(row)}" for _, row in rows(data)
    ),
    "rows of a log": lambda data: "\n".join(
        f"[    0.012345] ACPI: {row.hex(' ')}" for _, row in rows(data)
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_bytes(form: str, wrapping: str) -> None:
    (table,) = dmar_tables(WRAPPINGS[wrapping](FORMS[form](TABLE)).encode())
    assert table[: len(TABLE)] == TABLE
    assert not any(table[len(TABLE) :])


@pytest.mark.parametrize("form", FORMS)
def test_every_table_survives(form: str) -> None:
    for known in clean_tables():
        (table,) = dmar_tables(FORMS[form](known.data).encode())
        assert table[: len(known.data)] == known.data


@pytest.mark.parametrize("identity", [b"CB-01   ", b"AB CD EF", b"00-11-22"])
@pytest.mark.parametrize("form", ["rows with text", "chipsec"])
def test_text_that_looks_like_bytes_is_not_read_as_such(form: str, identity: bytes) -> None:
    """An OEM table id of hexadecimal digits begins the text column of its row."""
    changed = TABLE[:16] + identity + TABLE[24:]
    named = changed[:9] + bytes([(changed[9] - sum(changed)) % 256]) + changed[10:]
    (table,) = dmar_tables(FORMS[form](named).encode())
    assert table[: len(named)] == named


@pytest.mark.parametrize("form", ["list of Python", "C, hexadecimal", "bytes of Python"])
def test_a_wrong_checksum_is_no_reason_not_to_read(form: str) -> None:
    wrong = TABLE[:9] + bytes([TABLE[9] ^ 1]) + TABLE[10:]
    assert dmar_tables(FORMS[form](wrong).encode()) == [wrong]


@pytest.mark.parametrize(
    "before", ["u8 n = 4; u8 t[] = ", "# ", "// ", "https://acme/5 has ", "#3: "]
)
def test_what_begins_a_comment_does_not_hide_a_list(before: str) -> None:
    assert dmar_tables(f"{before}{list(TABLE)}".encode()) == [TABLE]


def test_a_list_that_was_cut_is_a_cut_table() -> None:
    """As PowerShell prints a property of the registry, but longer."""
    text = "0000 : {" + ", ".join(map(str, TABLE[:60])) + "...}"
    assert dmar_tables(text.encode()) == [TABLE[:60]]


def test_two_arrays_of_one_program_are_two_tables() -> None:
    other = next(each for each in clean_tables() if each.id.endswith("synthetic-sidp-ns")).data
    text = "".join(FORMS["C, decimal"](each) for each in (TABLE, other))
    assert dmar_tables(text.encode()) == [TABLE, other]


def test_tables_of_other_kinds_are_lists_too() -> None:
    table = b"APIC" + (44).to_bytes(4, "little") + bytes([5, 0]) + bytes(34)
    table = table[:9] + bytes([-sum(table) & 0xFF]) + table[10:]
    for form in ("list of Python", "C, hexadecimal", "base64 in JSON"):
        assert acpi_tables(FORMS[form](table).encode()) == [table]


def test_an_offset_is_no_byte() -> None:
    """A dump whose offsets have two digits is read as one, though it looks like a list."""
    dump = "\n".join(f"{at:02x}: {row.hex(' ')}" for at, row in rows(TABLE))
    assert dmar_tables(dump.encode()) == [TABLE]


@given(st.data())
def test_any_change_to_a_list_is_read_or_passed_over(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([form(TABLE) for form in FORMS.values()]))
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.text("0123456789abcdefx, \\\"'-\n{};#/*DMAR", max_size=20))
    changed = text[:at] + put + text[at + data.draw(st.integers(0, 40)) :]
    for found in listed_tables(changed):
        assert {table[:3] for table in found} <= {b"", *(each[:3] for each in SIGNATURES)}


def test_a_text_of_signatures_is_read_once_over() -> None:
    """Each list ends where the next signature is read, so that the work stays in proportion."""
    text = "68, 77, 65, 82, " * 2000
    (found,) = (tables for tables in listed_tables(text) if tables)
    assert found == [b"DMAR" * 2000]
    assert hex_blobs(text) == []
