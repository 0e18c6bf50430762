"""Tables in files: every form in which they are handed around gives the same bytes."""

import quopri
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import clean_tables
from vtd.dmar.inputs import acpi_tables, dmar_tables, find_tables
from vtd.dmar.table import Table, TableError

KNOWN = next(each for each in clean_tables() if each.id.endswith("qemu-4")).data
OTHER = next(each for each in clean_tables() if each.id.endswith("synthetic-sidp-ns")).data


def acpidump(data: bytes, signature: str = "DMAR") -> str:
    lines = [f"{signature} @ 0x0000000000000000"]
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"    {start:04X}: {row.hex(' ').upper():47}  {text}")
    return "\n".join(lines) + "\n\n"


def iasl(data: bytes) -> str:
    head = '[000h 0000   4]                    Signature : "DMAR"\n\nRaw Table Data: Length 128\n\n'
    rows = acpidump(data).splitlines()[1:]
    return head + "\n".join(f"{row[:57]}  // {row[59:]}" for row in rows)


def xxd(data: bytes) -> str:
    rows = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        rows.append(f"{start:08x}: {row.hex(' ', -2):39}  {text}")
    return "\n".join(rows)


def hexdump(data: bytes) -> str:
    rows = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        rows.append(f"{start:08x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  |{text}|")
    return "\n".join([*rows, f"{len(data):08x}"])


FORMS: dict[str, Callable[[bytes], str]] = {
    "acpidump": acpidump,
    "iasl": iasl,
    "xxd": xxd,
    "hexdump": hexdump,
    "hex": lambda data: data.hex(),
    "spaced hex": lambda data: data.hex(" ", 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_text_form_gives_the_same_bytes(form: str) -> None:
    for known in clean_tables():
        assert dmar_tables(FORMS[form](known.data).encode()) == [known.data]


@pytest.mark.parametrize("form", FORMS)
def test_a_mail_that_was_not_decoded_gives_the_same_bytes(form: str) -> None:
    body = quopri.encodestring(FORMS[form](KNOWN).encode(), quotetabs=True)
    assert dmar_tables(b"Content-Transfer-Encoding: quoted-printable\n\n" + body) == [KNOWN]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_files_of_windows_are_read(encoding: str) -> None:
    text = acpidump(KNOWN).replace("\n", "\r\n")
    assert dmar_tables(text.encode(encoding)) == [KNOWN]


def test_raw_bytes_are_the_table() -> None:
    for known in clean_tables():
        assert dmar_tables(known.data) == [known.data]


@pytest.mark.parametrize(
    "text",
    [lambda data: data.replace(b"\n", b"\r\n"), lambda data: data.decode("latin-1").encode()],
)
def test_a_table_that_a_program_took_for_text_is_mended_and_told(
    text: Callable[[bytes], bytes],
) -> None:
    """As FTP does in its ASCII mode, and editors when they write UTF-8."""
    known = Table.parse(KNOWN)
    header = replace(known.header, oem_revision=0xA0A, creator_revision=0xFE0A)
    table = replace(known, header=header).sealed().pack()
    assert text(table) != table
    (found,) = find_tables(text(table))
    assert found.data == table
    assert "took the table for text" in found.notes[0]


def test_a_table_that_lost_bytes_as_text_is_refused_with_the_reason() -> None:
    with pytest.raises(TableError, match="bytes are lost"):
        find_tables(KNOWN.decode("utf-8", "replace").encode())


def test_several_tables_in_one_file_come_one_by_one() -> None:
    assert dmar_tables(KNOWN + OTHER + KNOWN) == [KNOWN, OTHER, KNOWN]
    assert dmar_tables((acpidump(KNOWN) + acpidump(OTHER)).encode()) == [KNOWN, OTHER]


def test_other_tables_are_passed_over() -> None:
    facp = b"FACP" + (40).to_bytes(4, "little") + bytes(32)
    assert dmar_tables(facp + KNOWN) == [KNOWN]
    assert acpi_tables(facp + KNOWN) == [facp, KNOWN]
    assert dmar_tables((acpidump(facp, "FACP") + acpidump(KNOWN)).encode()) == [KNOWN]
    with pytest.raises(TableError, match="no DMAR table among FACP, FACP"):
        dmar_tables(facp + facp)


def test_bytes_after_a_table_stay_with_it() -> None:
    assert dmar_tables(KNOWN + bytes(16)) == [KNOWN + bytes(16)]


def test_a_table_with_a_lying_length_is_taken_whole() -> None:
    lying = KNOWN[:4] + b"\xff\xff\0\0" + KNOWN[8:]
    assert dmar_tables(lying) == [lying]


def test_text_without_hex_data_is_refused() -> None:
    with pytest.raises(TableError, match="without the hex data"):
        dmar_tables(b"root:x:0:0:root\n")


def test_a_dump_with_a_line_missing_is_refused() -> None:
    lines = acpidump(KNOWN).splitlines()
    with pytest.raises(TableError, match="line 3: hex data of offset 0x20 is out of order"):
        dmar_tables("\n".join(lines[:2] + lines[3:]).encode())


@given(st.one_of(st.binary(max_size=300), st.text("0123456789abcdefA: |\n", max_size=300)))
def test_any_file_gives_tables_or_a_table_error(content: bytes | str) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    try:
        tables = dmar_tables(data)
    except TableError:
        return
    assert tables
    assert acpi_tables(data)
