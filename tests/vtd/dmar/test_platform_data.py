"""Data of the platform: memory maps, ACPI tables, registers; and what is refused."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.dmar.platform_data import (
    PlatformDataError,
    parse_hpet,
    parse_madt,
    parse_namespace,
    parse_registers,
    parse_srat,
)


def acpi(signature: bytes, body: bytes) -> bytes:
    return signature + (36 + len(body)).to_bytes(4, "little") + bytes(28) + body


MADT = acpi(
    b"APIC",
    bytes(8)
    + bytes([0, 8, 0, 0, 1, 0, 0, 0])
    + bytes([1, 12, 2])
    + bytes(9)
    + bytes([6, 16, 5])
    + bytes(13),
)
HPET = acpi(b"HPET", bytes(16) + bytes([3, 0x80, 0, 0]))
SRAT = acpi(
    b"SRAT",
    bytes(12)
    + bytes([0, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    + bytes([1, 40, 7]) + bytes(37)
    + bytes([2, 24, 0, 0, 9]) + bytes(19),
)  # fmt: skip


def test_io_apic_ids_come_from_io_apic_and_io_sapic_entries() -> None:
    assert parse_madt(MADT) == {2, 5}


def test_the_hpet_number_is_at_offset_52() -> None:
    assert parse_hpet(HPET) == 3


def test_proximity_domains_come_from_processors_and_memory() -> None:
    assert parse_srat(SRAT) == {0x01000001 & 0xFF | 0x010000 << 8, 7, 9}


@pytest.mark.parametrize("parse", [parse_madt, parse_hpet, parse_srat])
@given(data=st.binary(max_size=120), signature=st.sampled_from([b"APIC", b"HPET", b"SRAT"]))
def test_any_acpi_table_is_read_or_refused(
    parse: Callable[[bytes], object], data: bytes, signature: bytes
) -> None:
    for table in (data, acpi(signature, data)):
        try:
            parse(table)
        except PlatformDataError as error:
            assert str(error)


def test_registers_are_given_in_hexadecimal() -> None:
    base, registers = parse_registers("fed90000:d2008c40660462:f050da")
    assert base == 0xFED90000
    assert (registers.cap.fro, registers.cap.nfr) == (0x400, 0)
    assert registers.ecap.iro == 0x500
    assert registers.end == 0x510
    assert registers.answers
    ones = "f" * 16
    assert not parse_registers(f"fed90000:{ones}:{ones}")[1].answers
    assert not parse_registers("fed90000:0:0:ffffffff")[1].answers


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4:5", "x:1:2", "1:-2:3", f"1:{'f' * 17}:0"])
def test_bad_registers_are_refused(text: str) -> None:
    with pytest.raises(PlatformDataError, match=r"is not BASE:CAP:ECAP\[:VER\]"):
        parse_registers(text)


def test_object_names_compare_with_padded_segments() -> None:
    assert parse_namespace("\\_SB_.PCI0.I2C0\n\n") == parse_namespace("\\_SB.PCI0.I2C0")
    for text in ("", "\n", "no names here", "\0\1"):
        with pytest.raises(PlatformDataError, match="namespace"):
            parse_namespace(text)
