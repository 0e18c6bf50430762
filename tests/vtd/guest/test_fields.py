"""VMCS fields: every encoding of the tables, and the places in the public layout."""

from __future__ import annotations

import pytest

from vtd.guest.x86.capabilities import VMX_PROFILES
from vtd.guest.x86.fields import (
    BY_ENCODING,
    BY_NAME,
    FIELDS,
    Encoding,
    Field,
    FieldType,
    FieldWidth,
    find_field,
)
from vtd.guest.x86.vmcs import PLACES

EVERYTHING = VMX_PROFILES["everything"].features


def even(first: int, last: int) -> list[int]:
    return list(range(first, last + 1, 2))


ENCODINGS = [
    *even(0x0000, 0x000A),
    *even(0x0800, 0x0814),
    *even(0x0C00, 0x0C0C),
    *even(0x2000, 0x2044),
    *even(0x204A, 0x204E),
    0x2052,
    *even(0x2400, 0x2404),
    *even(0x2800, 0x2814),
    *even(0x2818, 0x2828),
    0x282E,
    0x2830,
    *even(0x2C00, 0x2C16),
    0x2C1A,
    *even(0x4000, 0x4024),
    *even(0x4400, 0x440E),
    *even(0x4800, 0x482A),
    0x482E,
    0x4C00,
    *even(0x6000, 0x600E),
    *even(0x6400, 0x640A),
    *even(0x6800, 0x682C),
    *even(0x6C00, 0x6C1C),
]
"""The tables of appendix B, and of public implementations, as runs of indexes."""


def test_every_encoding_of_the_tables_is_one_field_with_one_name() -> None:
    assert sorted(BY_ENCODING) == sorted(ENCODINGS)
    assert len(BY_NAME) == len(BY_ENCODING) == len(FIELDS)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_encodings_say_type_and_width(field: Field) -> None:
    encoding = Encoding(field.encoding)
    assert not encoding & Encoding.RESERVED
    assert not encoding.high
    if field.name.startswith("host_"):
        assert field.type is FieldType.HOST
    if field.name.startswith("guest_"):
        assert field.type in (FieldType.GUEST, FieldType.READ_ONLY, FieldType.CONTROL)
    if field.name.endswith("_selector"):
        assert field.width is FieldWidth.W16
    if field.name.endswith(("_base", "_rip", "_rsp")):
        assert field.width is FieldWidth.NATURAL


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("io_bitmap_a", 40),
        ("posted_interrupt_descriptor_address", 112),
        ("eptp", 120),
        ("guest_physical_address", 168),
        ("vmcs_link_pointer", 176),
        ("pml_address", 312),
        ("exit_qualification", 408),
        ("guest_cr3", 432),
        ("guest_tr_base", 504),
        ("guest_rflags", 552),
        ("host_rip", 672),
        ("guest_ssp_table", 720),
        ("pin_controls", 744),
        ("secondary_controls", 804),
        ("exit_reason", 812),
        ("guest_idtr_limit", 876),
        ("guest_tr_access_rights", 908),
        ("preemption_timer", 928),
        ("vpid", 960),
        ("guest_tr_selector", 978),
        ("guest_interrupt_status", 980),
        ("host_tr_selector", 994),
        ("pml_index", 996),
    ],
)
def test_offsets_of_the_public_layout(name: str, offset: int) -> None:
    assert BY_NAME[name].offset == PLACES[name] == offset


def test_no_two_fields_share_a_byte() -> None:
    taken: dict[int, str] = {}
    for field in FIELDS:
        for byte in range(PLACES[field.name], PLACES[field.name] + field.size):
            assert taken.setdefault(byte, field.name) == field.name
    assert min(taken) >= 12
    assert max(taken) < 4096


def test_the_high_half_is_of_64_bit_fields_only() -> None:
    for field in FIELDS:
        if field.exists(EVERYTHING):
            high = find_field(field.encoding | 1, EVERYTHING)
            assert (high is field) is (field.width is FieldWidth.W64)


@pytest.mark.parametrize("encoding", [0x1000, 0x8000, 1 << 31, 1 << 32, 0x0016, 0x7000])
def test_other_encodings_are_no_fields(encoding: int) -> None:
    assert find_field(encoding, EVERYTHING) is None


def test_fields_follow_from_the_capabilities() -> None:
    client, posted = VMX_PROFILES["broadwell"].features, VMX_PROFILES["broadwell-posted"].features
    for encoding in (0x0002, 0x0810, 0x0812, 0x200E, 0x2016, 0x201C):
        assert find_field(encoding, client) is None
        assert find_field(encoding, posted) is BY_ENCODING[encoding]
    assert find_field(0x0000, client) is BY_ENCODING[0x0000]
    assert find_field(0x2042, posted) is None
