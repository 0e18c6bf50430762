"""Hex dumps of every tool, at any address, quoted and prefixed, give the bytes that were dumped."""

from __future__ import annotations

import base64
from collections.abc import Callable
from textwrap import wrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import clean_tables
from vtd.dmar.hex_dump import DumpError, hex_blobs
from vtd.dmar.inputs import dmar_tables

TABLE = next(each for each in clean_tables() if each.id.endswith("qemu-4")).data
ADDRESS = 0x7A5F6018


def rows(data: bytes, size: int = 16) -> list[tuple[int, bytes]]:
    return [(start, data[start : start + size]) for start in range(0, len(data), size)]


def readable(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


def words(row: bytes, size: int) -> str:
    """The words of a row as a little-endian machine prints them."""
    whole = row.ljust(-(-len(row) // size) * size, b"\0")
    return " ".join(whole[at : at + size][::-1].hex() for at in range(0, len(whole), size))


def dmem(data: bytes) -> str:
    lines = []
    for at, row in rows(data):
        left, right = row[:8].hex(" ").upper(), row[8:].hex(" ").upper()
        lines.append(f"  {ADDRESS + at:08X}: {left}-{right:24} *{readable(row)}*")
    return "\n".join(lines)


def od(data: bytes) -> str:
    lines = [f"{at:07o} {row.hex(' ')}" for at, row in rows(data)]
    return "\n".join([*lines, f"{len(data):07o}"])


def character(byte: int) -> str:
    """A byte as od -c prints it."""
    escapes = dict(zip(range(7, 14), ("\\" + letter for letter in "abtnvfr"), strict=True))
    named = escapes | {0: "\\0"} | {code: chr(code) for code in range(32, 127)}
    return named.get(byte, f"{byte:03o}")


def gdb(data: bytes) -> str:
    return "\n".join(
        f"0x{ADDRESS + at:x}:\t" + "\t".join(f"0x{byte:02x}" for byte in row)
        for at, row in rows(data, 8)
    )


def registry(data: bytes) -> str:
    lines = ",\\\n  ".join(row.hex(",") for _, row in rows(data, 25))
    key = "[HKEY_LOCAL_MACHINE\\HARDWARE\\ACPI\\DMAR\\INTEL_\\EDK2____\\00000002]"
    return f'Windows Registry Editor Version 5.00\n\n{key}\n"00000000"=hex:{lines}\n'


def kernel(data: bytes) -> str:
    return "\n".join(
        f"[    1.23456{at % 10}] DMAR: {at:08x}: {row.hex(' '):47}  {readable(row)}"
        for at, row in rows(data)
    )


FORMS: dict[str, Callable[[bytes], str]] = {
    "UEFI shell": dmem,
    "U-Boot md.b": lambda data: "\n".join(
        f"{ADDRESS + at:08x}: {row.hex(' '):47}    {readable(row)}" for at, row in rows(data)
    ),
    "U-Boot md.l": lambda data: "\n".join(
        f"{ADDRESS + at:08x}: {words(row, 4):35}    {readable(row)}" for at, row in rows(data)
    ),
    "crash": lambda data: "\n".join(
        f"{ADDRESS + at:x}:  {words(row, 8):33}   {readable(row)}" for at, row in rows(data)
    ),
    "hexdump": lambda data: "\n".join(f"{at:07x} {words(row, 2)}" for at, row in rows(data)),
    "WinDbg": lambda data: "\n".join(
        f"fffff803`{ADDRESS + at:08x}  {row[:8].hex(' ')}-{row[8:].hex(' '):23}  {readable(row)}"
        for at, row in rows(data)
    ),
    "WinDbg dq": lambda data: "\n".join(
        f"fffff803`{ADDRESS + at:08x}  "
        + " ".join(f"{each[:8]}`{each[8:]}" for each in words(row, 8).split())
        for at, row in rows(data)
    ),
    "od": od,
    "od -tx1 -tc": lambda data: "\n".join(
        f"{at:07o}  {row.hex(' ').replace(' ', '  ')}\n"
        + " " * 8
        + "".join(f"{character(byte):>4}" for byte in row)
        for at, row in rows(data)
    ),
    "hexdump -x": lambda data: "\n".join(
        f"{at:07x}    {words(row, 2).replace(' ', '    ')}" for at, row in rows(data)
    ),
    "hexdump -b": lambda data: "\n".join(
        f"{at:07x} {' '.join(f'{byte:03o}' for byte in row)}" for at, row in rows(data)
    ),
    "hexdump -o": lambda data: "\n".join(
        f"{at:07x}  {'  '.join(f'{int(each, 16):06o}' for each in words(row, 2).split())}"
        for at, row in rows(data)
    ),
    "xxd -g 0": lambda data: "\n".join(
        f"{at:08x}: {row.hex():32}  {readable(row)}" for at, row in rows(data)
    ),
    "xxd -d": lambda data: "\n".join(
        f"{at:08d}: {row.hex(' ', -2):39}  {readable(row)}" for at, row in rows(data)
    ),
    "od -Ad": lambda data: "\n".join(f"{at:07d} {row.hex(' ')}" for at, row in rows(data)),
    "hexyl": lambda data: "\n".join(
        f"\u2502{at:08x}\u2502 {row[:8].hex(' '):23} \u250a {row[8:].hex(' '):23} \u2502"
        f"{readable(row[:8])}\u250a{readable(row[8:])}\u2502"
        for at, row in rows(data)
    ),
    "Emacs": lambda data: "\n".join(
        ["87654321  0011 2233 4455 6677 8899 aabb ccdd eeff  0123456789abcdef"]
        + [f"{at:08x}: {row.hex(' ', -2):39}  {readable(row)}" for at, row in rows(data)]
    ),
    "columns": lambda data: "\n".join(
        f"{at:08X} | {row.hex(' ').upper():47} | {readable(row)}" for at, row in rows(data)
    ),
    "table of Markdown": lambda data: (
        "|offset|bytes|text|\n|---|---|---|\n"
        + "\n".join(f"|{at:08x}|{row.hex(' ')}|{readable(row)}|" for at, row in rows(data))
    ),
    "gdb": gdb,
    "kernel": kernel,
    "C array": lambda data: (
        "unsigned char dmar[] = {\n"
        + ",\n".join("  " + ", ".join(f"0x{byte:02x}" for byte in row) for _, row in rows(data))
        + "\n};\nunsigned int dmar_len = 160;\n"
    ),
    "UEFI shell, acpiview": lambda data: (
        f" --- DMAR Table ---\n\nAddress  : 0x{ADDRESS:X}\nLength   : {len(data)}\n\n"
        + "\n".join(
            f"{at:08X} : {row.hex(' ').upper():47}   {readable(row)}" for at, row in rows(data)
        )
        + "\n\nTable Checksum : OK\n"
    ),
    "UEFI shell, acpiview of a table it does not know": lambda data: (
        f" ------ DMAR Table ------ \n\nAddress  : 0x{ADDRESS:X}\nLength   : {len(data)}\n  \n"
        + "\n".join(
            f"{at:08X} : {row[:8].hex(' ')} - {row[8:].hex(' '):23}".upper() + f"   {readable(row)}"
            for at, row in rows(data)
        )
    ),
    "web page": lambda data: (
        "<pre>DMAR @ 0x7a5f6018<br/>\n"
        + "<br>\n".join(f"&nbsp;&nbsp;{at:04x}: {row.hex(' ')}" for at, row in rows(data))
        + "</pre>"
    ),
    "numbered lines": lambda data: "\n".join(
        f"{number:3}  {at:08x}: {row.hex(' ')}" for number, (at, row) in enumerate(rows(data), 1)
    ),
    "numbered lines of hexdump -C": lambda data: "\n".join(
        f"{number:6}\t{at:08x}  {row[:8].hex(' ')}  {row[8:].hex(' '):23}  |{readable(row)}|"
        for number, (at, row) in enumerate(rows(data), 1)
    ),
    "web page without line feeds": lambda data: (
        "<p>Here it is:</p><p>"
        + "<br>".join(f"{at:08x}&nbsp;&nbsp;{row.hex(' ')}" for at, row in rows(data))
        + "</p><p>Thanks</p>"
    ),
    "patch": lambda data: (
        "@@ -0,0 +1,10 @@\n"
        + "".join(f"+{at:08x}: {row.hex(' ', -2):39}  {readable(row)}\n" for at, row in rows(data))
    ),
    "patch of rows": lambda data: (
        "@@ -0,0 +1,10 @@\n" + "".join(f"+{row.hex(' ')}\n" for _, row in rows(data))
    ),
    "od -c": lambda data: "\n".join(
        f"{at:07o}" + "".join(f"{character(byte):>4}" for byte in row) for at, row in rows(data)
    ),
    "hexdump -c": lambda data: (
        "\n".join(
            f"{at:07x}{''.join(f'{character(byte):>4}' for byte in row):64}"
            for at, row in rows(data)
        )
        + f"\n{len(data):07x}"
    ),
    "xxd -b": lambda data: "\n".join(
        f"{at:08x}: {' '.join(f'{byte:08b}' for byte in row):53}  {readable(row)}"
        for at, row in rows(data, 6)
    ),
    "Windows registry": registry,
    "base64": lambda data: base64.encodebytes(data).decode(),
    "bytes in lines": lambda data: (
        "the table:\n" + "\n".join(row.hex(" ") for _, row in rows(data))
    ),
}
WRAPPINGS: dict[str, Callable[[str], str]] = {
    "bare": lambda text: text,
    "quoted": lambda text: "".join(f">>> {line}\n" for line in text.splitlines()),
    "in a mail": lambda text: f"Hello all,\n\nsee below: 12 bytes\n\n{text}\n\nBest, D.\n",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_bytes(form: str, wrapping: str) -> None:
    (table,) = dmar_tables(WRAPPINGS[wrapping](FORMS[form](TABLE)).encode())
    assert table[: len(TABLE)] == TABLE
    assert not any(table[len(TABLE) :])  # words fill up the last line


@pytest.mark.parametrize("form", ["UEFI shell", "U-Boot md.l", "hexdump", "gdb"])
def test_every_table_survives(form: str) -> None:
    for known in clean_tables():
        (table,) = dmar_tables(FORMS[form](known.data).encode())
        assert table[: len(known.data)] == known.data


def test_a_dump_may_begin_before_the_table() -> None:
    text = FORMS["U-Boot md.b"](bytes(48) + TABLE + bytes(8))
    text = "\n".join(f"{0x1000 + 16 * n:08x}{line[8:]}" for n, line in enumerate(text.splitlines()))
    first = f"00000000: {bytes(16).hex(' ')}\n"
    before = "\n".join(f"{16 * n:08x}{line[8:]}" for n, line in enumerate(text.splitlines(), 1))
    assert dmar_tables((first + before).encode()) == [TABLE]


def test_a_star_stands_for_lines_like_the_one_before() -> None:
    """As hexdump prints them: here four rows of zeros."""
    table = TABLE[:4] + (len(TABLE) + 64).to_bytes(4, "little") + TABLE[8:] + bytes(64) + b"\x01"
    lines = FORMS["U-Boot md.b"](table).splitlines()
    zeros = [number for number, line in enumerate(lines) if line[10:57] == " ".join(["00"] * 16)]
    short = [*lines[: zeros[-4] + 1], "*", *lines[zeros[-1] + 1 :]]
    assert len(short) == len(lines) - 2
    assert hex_blobs("\n".join(short)) == hex_blobs("\n".join(lines)) == [table]


def test_a_word_a_line_is_a_dump_too() -> None:
    """As a loop over devmem prints it; a table ends where a word does."""
    text = "\n".join(f"0x{ADDRESS + at:08X}: 0x{words(row, 4)}" for at, row in rows(TABLE, 4))
    assert dmar_tables(text.encode()) == [TABLE]


@pytest.mark.parametrize("width", range(60, 100, 2))
@pytest.mark.parametrize("form", ["kernel", "U-Boot md.b", "od", "numbered lines"])
def test_rows_that_a_mail_program_wrapped_are_whole(form: str, width: int) -> None:
    lines = (wrap(line, width, break_on_hyphens=False) for line in FORMS[form](TABLE).splitlines())
    text = "".join(f"> {part}\n" for parts in lines for part in parts)
    assert dmar_tables(text.encode()) == [TABLE]


def test_a_gap_is_named_by_its_line() -> None:
    lines = dmem(TABLE).splitlines()
    with pytest.raises(DumpError, match="line 3: hex data of offset 0x7a5f6048 is out of order"):
        hex_blobs("\n".join(lines[:2] + lines[3:]))


def test_dumps_one_after_the_other_are_told_apart() -> None:
    other = next(each for each in clean_tables() if each.id.endswith("synthetic-sidp-ns")).data
    assert dmar_tables(f"{dmem(TABLE)}\n\n{dmem(other)}".encode()) == [TABLE, other]


@given(st.data())
def test_any_change_to_a_dump_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([form(TABLE) for form in FORMS.values()]))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 40))
    put = data.draw(st.text("0123456789abcdef: >|\n-xD", max_size=20))
    try:
        blobs = hex_blobs(text[:at] + put + text[at + cut :])
    except DumpError as error:
        assert "out of order" in str(error)
    else:
        assert all(isinstance(blob, bytes) for blob in blobs)
