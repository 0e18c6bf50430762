"""The source of iasl: fields count, lengths are computed, stale raw data is told."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import clean_tables
from tests.vtd.dmar.test_inputs import acpidump
from vtd.dmar.description import build
from vtd.dmar.inputs import find_tables
from vtd.dmar.rules import validate
from vtd.dmar.source import write_source
from vtd.dmar.table import Table, TableError

TABLE = build(
    """
[header]
address_bits = 39
oem_id = "ACME  "
oem_table_id = "BOARD"
flags = ["intr_remap"]
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed91000
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
[[structure]]
type = "RMRR"
base = 0x7b000000
limit = 0x7f7fffff
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]
""".replace('"BOARD"', '"hex:424f415244000000"')
)
SOURCE, _ = write_source(TABLE)
RAW = "\nRaw Table Data: Length 120 (0x78)\n\n" + "\n".join(acpidump(TABLE.pack()).splitlines()[1:])


def test_fields_without_raw_data_are_the_table() -> None:
    (found,) = find_tables(SOURCE.encode())
    assert found.data == TABLE.pack()
    assert found.notes


@pytest.mark.parametrize("raw", ["", RAW, "\nRaw Table Data: left out\n"])
def test_several_sources_in_a_text_are_several_tables(raw: str) -> None:
    other = SOURCE.replace("7B000000", "7A000000")
    facp = 'Signature : "FACP"  [Fixed ACPI Description Table]\nTable Length : 0114\n'
    text = f"before:\n{SOURCE}{raw}\nother:\n{facp}\nafter:\n{other}"
    first, second = find_tables(text.encode())
    assert first.data == TABLE.pack()
    assert second.data == find_tables(other.encode())[0].data != first.data
    assert find_tables(f"{facp}{SOURCE}".encode())[0].data == TABLE.pack()
    wrong = text.replace("7A000000", "seven")
    line = wrong[: wrong.index("seven")].count("\n") + 1
    with pytest.raises(TableError, match=f"line {line}\\b"):
        find_tables(wrong.encode())


def test_placeholders_of_lengths_and_checksum_do_not_matter() -> None:
    placeholders = SOURCE
    for label in ("Table Length", "Checksum", "Entry Length", "Length"):
        lines = placeholders.splitlines()
        placeholders = "\n".join(
            line.rpartition(":")[0] + ": 00" if f" {label} :" in line else line for line in lines
        )
    assert find_tables(placeholders.encode())[0].data == TABLE.pack()


def test_lines_without_offsets_and_with_comments_are_read() -> None:
    bare = "\n".join(line.partition("]")[2] if line else "" for line in SOURCE.splitlines())
    commented = "/* a table\n   of mine */\n" + bare.replace(
        "Flags :", "Flags :  // why\n Flags :", 0
    )
    assert find_tables(commented.encode())[0].data == TABLE.pack()


def test_an_untouched_disassembly_is_its_raw_data() -> None:
    (found,) = find_tables((SOURCE + RAW).encode())
    assert found == (TABLE.pack(), ())


def older(brackets: bool) -> str:
    """The source as iasl of 2009 to 2012 printed it."""
    lines = [line for line in SOURCE.splitlines() if not line.startswith("[026h")]
    text = "\n".join(lines).replace("Device Scope Type", "Device Scope Entry Type")
    if not brackets:
        return text
    path = re.sub(r"PCI Path : (..),(..)", r"PCI Path : [\1, \2]", text)
    return re.sub(r" \[([A-Z][^\],]+)\]$", r" <\1>", path, flags=re.MULTILINE)


@pytest.mark.parametrize("brackets", [False, True])
def test_a_disassembly_of_an_older_iasl_is_the_table(brackets: bool) -> None:
    text = older(brackets)
    assert "[026h" not in text
    assert ("[1F, 00]" in text, "<" in text) == (brackets, brackets)
    assert find_tables(text.encode())[0].data == TABLE.pack()
    assert find_tables((text + RAW).encode()) == [(TABLE.pack(), ())]


def test_edited_fields_count_and_the_stale_raw_data_is_told() -> None:
    edited = SOURCE.replace("000000007F7FFFFF", "000000007FFFFFFF") + RAW
    (found,) = find_tables(edited.encode())
    assert Table.parse(found.data).structures[1].fields()["limit"] == 0x7FFFFFFF
    assert "fields differ" in found.notes[0]
    assert not [each for each in validate(found.data) if each.rule in ("DMAR-H05", "DMAR-H03")]


def test_a_structure_taken_out_of_the_fields_is_gone() -> None:
    lines = SOURCE.splitlines()
    start = next(number for number, line in enumerate(lines) if "[RMRR]" in line)
    (found,) = find_tables(("\n".join(lines[:start]) + RAW).encode())
    assert [each.name for each in Table.parse(found.data).structures] == ["DRHD"]
    assert found.notes


def test_what_iasl_does_not_decode_is_taken_from_the_raw_data() -> None:
    """Versions before 2021 stop at the first SATC."""
    with_cache = build(
        '[[structure]]\ntype = "DRHD"\nregister_base = 0x1000\n[[structure]]\ntype = "SATC"\n'
    )
    source, _ = write_source(with_cache)
    stopped = source[: source.index("Subtable Type : 0005")]
    stopped = stopped[: stopped.rindex("\n")] + "\n**** Unknown DMAR subtable type 0x5\n"
    raw = "\nRaw Table Data: Length 80\n\n" + acpidump(with_cache.pack()).partition("\n")[2]
    assert find_tables((stopped + raw).encode())[0] == (with_cache.pack(), ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Revision : 01", "Revision : zz", "revision 'zz' is no hexadecimal number of 1 bytes"),
        ("Revision : 01", "Revision : 0123", "is no hexadecimal number of 1 bytes"),
        ('"ACME  "', '"TOO LONG"', "oem id has more than 6 characters"),
        ("Flags : 01", "Flags :", "flags has no value"),
        ("log2) : 0", "log2) :", "has no value"),
        ("0004 004h]", "0004 FFFFFFFh]", "table length has 268435455 bytes"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        find_tables(SOURCE.replace(old, new, 1).encode())


def test_what_a_source_can_not_say_is_told_or_refused() -> None:
    for known in clean_tables():
        table = Table.parse(known.data)
        for older in (False, True):
            try:
                text, left_out = write_source(table, older)
            except TableError as error:
                assert "iasl has no field" in str(error)
                continue
            (found,) = find_tables(text.encode())
            assert (found.data == known.data) or left_out, known.id


@given(st.data())
def test_any_change_to_a_source_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([SOURCE, SOURCE + RAW]))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 60))
    put = data.draw(st.text('0123456789ABCDEFh[]: "\n,x', max_size=20))
    try:
        tables = find_tables((text[:at] + put + text[at + cut :]).encode())
    except TableError as error:
        assert str(error)
    else:
        assert tables


@pytest.mark.parametrize("before", ["Base Address", "End Address", "Device Scope Type", "PCI Path"])
def test_a_source_cut_in_its_last_structure_is_a_cut_table(before: str) -> None:
    (found,) = find_tables(SOURCE[: SOURCE.rindex(before)].encode())
    assert "end before" in found.notes[0]
    assert {finding.rule for finding in validate(found.data)} == {"DMAR-H03"}


def test_a_structure_of_length_0_where_iasl_stopped_keeps_its_length() -> None:
    start = SOURCE.index("Subtable Type : 0001")
    length = SOURCE.index("Length : ", start)
    line_end = SOURCE.index("\n", length)
    cut = f"{SOURCE[:length]}Length : 0000{SOURCE[length + 13 : line_end]}"
    (found,) = find_tables(f"{cut}\n\n**** Invalid zero length subtable\n".encode())
    assert "end before" in found.notes[0]
    assert {finding.rule for finding in validate(found.data)} == {"DMAR-H03", "DMAR-S02"}


def test_a_source_without_one_structure_is_an_edited_table() -> None:
    start = SOURCE.index("Subtable Type : 0001")
    edited = SOURCE[: SOURCE.rindex("\n", 0, start)]
    (found,) = find_tables(edited.encode())
    assert len(found.data) == 48 + 24
    assert not any("end before" in note for note in found.notes)
