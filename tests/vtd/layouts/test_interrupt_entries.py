import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import BitRecord, Implementation
from vtd.layouts.interrupt_entries import (
    CompatibilityAddress,
    CompatibilityData,
    DeliveryMode,
    DestinationMode,
    EventAddress,
    EventData,
    EventUpperAddress,
    PostedInterruptDescriptor,
    PostedIrte,
    RemappableData,
    RemappedIrte,
    SourceValidationType,
    TriggerMode,
)

POSTING = Implementation(52, 16, frozenset({"pi"}))


@pytest.mark.section("9.9")
def test_worked_encoding_of_a_remapped_entry() -> None:
    entry = RemappedIrte.of(
        p=True, v=0x41, dst=3 << 8, svt=SourceValidationType.SOURCE_ID, sid=0x0100
    )
    assert entry == 0x0000_0000_0004_0100 << 64 | 0x0000_0300_0041_0001


@pytest.mark.section("5.2.1", "9.10")
def test_worked_encoding_of_a_posted_entry() -> None:
    entry = PostedIrte(0x0000_0001_0004_0100 << 64 | 0x2345_6780_0041_8001)
    assert entry.descriptor_address == 0x1_2345_6780
    assert entry == PostedIrte.of(
        p=True,
        im=True,
        vv=0x41,
        pdal=0x2345_6780,
        pdah=1 << 32,
        svt=SourceValidationType.SOURCE_ID,
        sid=0x0100,
    )


def test_posting_fields_are_reserved_without_posted_interrupts() -> None:
    without = Implementation(52)
    assert RemappedIrte.reserved_mask(without) & 1 << 15
    assert PostedIrte.reserved_mask(without) & (1 << 14 | 1 << 15) == 1 << 14 | 1 << 15
    assert not PostedIrte.reserved_mask(POSTING) & (1 << 14 | 1 << 15)


@given(st.integers(32, 52))
def test_a_descriptor_address_ends_at_the_host_address_width(haw: int) -> None:
    mask = PostedIrte.reserved_mask(POSTING._replace(haw=haw))
    assert mask >> 96 == (1 << 32) - (1 << haw - 32)


@pytest.mark.parametrize(
    ("record", "ranges"),
    [
        (RemappedIrte, [(14, 12), (31, 24), (127, 84)]),
        (PostedIrte, [(7, 2), (13, 12), (31, 24), (37, 32), (95, 84)]),
        (PostedInterruptDescriptor, [(271, 258), (287, 280), (511, 320)]),
    ],
)
@pytest.mark.section("9.9", "9.10", "9.11")
def test_what_is_reserved_is_what_the_figures_say(
    record: type[BitRecord], ranges: list[tuple[int, int]]
) -> None:
    expected = sum((1 << high + 1) - (1 << low) for high, low in ranges)
    assert record.reserved_mask(POSTING._replace(haw=64)) == expected


def test_bits_for_software_are_never_reserved() -> None:
    for record in (RemappedIrte, PostedIrte):
        assert not record.reserved_mask(Implementation()) & 0xF00


@pytest.mark.section("5.2.2", "9.11")
def test_a_posted_interrupt_descriptor_has_a_request_bit_for_each_vector() -> None:
    descriptor = PostedInterruptDescriptor.of(pir=1 << 0x41, on=True, nv=0xF2, ndst=3 << 8)
    assert descriptor.pack()[0x41 // 8] == 1 << 0x41 % 8
    assert descriptor.pack()[32:40] == bytes([1, 0, 0xF2, 0, 0, 3, 0, 0])


def test_event_data_is_fixed_or_lowest_priority() -> None:
    assert EventData.of(v=0x30, dlm=DeliveryMode.LOWEST_PRIORITY) == 0x130


@pytest.mark.section("5.1.6.2")
def test_worked_encodings_of_the_messages_of_a_unit() -> None:
    address = EventAddress.of(fee=0xFEE, dst_7_0=0x42, rh=True, dm=DestinationMode.LOGICAL)
    assert address == 0xFEE4_200C
    upper = EventUpperAddress.of(dst_31_8=0x0123_4500)
    assert upper == 0x0123_4500
    assert EventData.of(v=0x51, dlm=DeliveryMode.LOWEST_PRIORITY) == 0x151
    for record, reserved in ((address, 0x000F_FFF3 & ~0xFF000), (upper, 0xFF)):
        assert record.reserved_mask(POSTING) == reserved
        assert len(record.pack()) == 4
    assert EventData.reserved_mask(POSTING) == 0xFFFF_FE00
    assert len(EventData(0).pack()) == 4


@pytest.mark.section("5.1.2.1")
def test_worked_encodings_of_a_compatibility_format_message() -> None:
    address = CompatibilityAddress.of(fee=0xFEE, dst=0x42, rh=True, dm=DestinationMode.LOGICAL)
    assert address == 0xFEE4_200C
    assert CompatibilityAddress.reserved_mask(POSTING) == 0x0000_0FE0
    data = CompatibilityData.of(
        v=0x23, dlm=DeliveryMode.LOWEST_PRIORITY, level=True, tm=TriggerMode.LEVEL
    )
    assert data == 0xC123
    assert CompatibilityData.reserved_mask(POSTING) == 0xFFFF_3800
    assert RemappableData.reserved_mask(POSTING) == 0xFFFF_0000
