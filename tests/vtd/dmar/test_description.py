"""Tables as TOML: the description gives the same bytes back, and bad descriptions are named."""

import tomllib

import pytest
from hypothesis import given

from tests.support.dmar_corpus import CleanTable, MalformedTable, clean_tables, malformed_tables
from tests.support.dmar_strategies import any_bytes, tables
from vtd.dmar.description import build, describe
from vtd.dmar.records import Andd, Header
from vtd.dmar.table import Table, TableError


@pytest.mark.parametrize("known", clean_tables(), ids=lambda known: known.id)
def test_export_then_build_gives_the_same_bytes(known: CleanTable) -> None:
    assert build(describe(Table.parse(known.data))).pack() == known.data


@pytest.mark.parametrize("broken", malformed_tables(), ids=lambda broken: broken.id)
def test_malformed_tables_survive_export_and_build(broken: MalformedTable) -> None:
    if len(broken.data) >= 48:
        assert build(describe(Table.parse(broken.data))).pack() == broken.data


@given(tables())
def test_any_table_survives_export_and_build(table: Table) -> None:
    assert build(describe(table)).pack() == table.pack()


@given(any_bytes())
def test_any_bytes_survive_export_and_build(data: bytes) -> None:
    if len(data) >= 48:
        text = describe(Table.parse(data))
        tomllib.loads(text)
        assert build(text).pack() == data


def test_a_description_says_what_matters_in_a_few_lines() -> None:
    text = """
[header]
address_bits = 39
flags = ["intr_remap"]

[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
"""
    data = build(text).pack()
    assert data[36:38] == b"\x26\x01"
    assert data[48:] == bytes.fromhex("00001800 01000000 0000d9fe00000000 03080000 02f01f00")
    assert sum(data) % 256 == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[header", "description"),
        ("colour = 1", "unknown key 'colour'"),
        ("header = 1", "header has a value of the wrong kind"),
        ("[header]\nrevision = 256", "header: revision: 256 does not fit 8 bits"),
        ("[header]\naddress_bits = 0", "host_address_width: -1 does not fit"),
        ("[header]\nchecksum = 256", "header: checksum: 256 does not fit"),
        ("[header]\noem_id = 'long name'", "oem_id has 9 bytes instead of 6"),
        ("[header]\nflags = ['nonsense']", "HeaderFlags has no field nonsense"),
        ("[header]\nflags = 256", "header: flags"),
        ("structure = [1]", "structure 0: a table of keys is needed"),
        ("[[structure]]\ntype = 'DHRD'", "structure 0: type 'DHRD' is none of DRHD"),
        ("[[structure]]\ntype = 65536", "structure 0: type: 65536 does not fit 16 bits"),
        ("[[structure]]\ntype = 'DRHD'\nregister_base = 'x'", "register_base has a value"),
        ("[[structure]]\ntype = 'RMRR'\nscope = [{type = 9, path = ['1']}]", "element '1'"),
        ("[[structure]]\ntype = 'RMRR'\nscope = [{type = 'usb'}]", "scope 0: type 'usb'"),
        ("[[structure]]\ntype = 'RMRR'\nscope = [{type = 300}]", "type: 300 does not fit"),
        ("[[structure]]\ntype = 'RMRR'\nscope = [{path = ['1.0']}]", "scope 0: type"),
        ("[[structure]]\npath = 1", "structure 0: type"),
        ("[[structure]]\ntype = 'RMRR'\nscope = [{type = 1, odd_byte = -1}]", "odd_byte"),
        ("[[structure]]\ntype = 'ANDD'\nobject_name = 'é'", "object_name is not ASCII"),
        ("[[structure]]\ntype = 'ANDD'\nobject_name = 'A'\npadding = -1", "padding"),
        ("[[structure]]\ntype = 'ANDD'\nobject_name = 'A'\npadding = 65535", "too many for Length"),
        ("[[structure]]\ntype = 9\npayload = 'hex:0'", "payload is neither ASCII nor hex:"),
    ],
)
def test_a_bad_description_is_refused_with_the_key_named(text: str, message: str) -> None:
    with pytest.raises(TableError, match=message.replace("(", r"\(")):
        build(text)


def test_a_path_too_long_for_an_entry_is_refused() -> None:
    path = ", ".join(["'1.0'"] * 125)
    with pytest.raises(TableError, match="path of 250 bytes is too long"):
        build(f"[[structure]]\ntype = 'RMRR'\nscope = [{{type = 1, path = [{path}]}}]")


@pytest.mark.parametrize("name", [b"\\_SB.\x1b[31m\0", b"\\A\n\0\0", b"\\x1b\0", b"\xff\0"])
def test_an_object_name_of_any_bytes_survives(name: bytes) -> None:
    table = Table(Header(), (Andd(tail=name),)).sealed()
    text = describe(table)
    assert "\x1b" not in text
    assert build(text).pack() == table.pack()
