import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import BitRecord, Implementation
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    NEEDS,
    VALID_TYPES,
    ContextCacheInvalidateDescriptor,
    DescriptorHead,
    DescriptorType,
    DeviceTlbInvalidateDescriptor,
    HostPermissionInvalidateDescriptor,
    HostPermissionLevels,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PageRequestDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
    type_of,
)
from vtd.layouts.registers import ContextGranularity, IotlbGranularity, TranslationTableMode

EVERYTHING = Implementation(52, 16, frozenset({"dit", "pds"}))


def bits(high: int, low: int) -> int:
    return (1 << high + 1) - (1 << low)


@pytest.mark.parametrize(
    ("record", "low", "high"),
    [
        (ContextCacheInvalidateDescriptor.of(type_3_0=1, g=ContextGranularity.GLOBAL), 0x11, 0),
        (
            ContextCacheInvalidateDescriptor.of(
                type_3_0=1, g=ContextGranularity.DEVICE, sid=0x0100, did=5
            ),
            0x0000010000050031,
            0,
        ),
        (
            IotlbInvalidateDescriptor.of(
                type_3_0=2, g=IotlbGranularity.DOMAIN, did=5, dr=True, dw=True
            ),
            0x00000000000500E2,
            0,
        ),
        (
            IotlbInvalidateDescriptor.of(
                type_3_0=2, g=IotlbGranularity.PAGE_IN_DOMAIN, did=5, addr=0x200000, am=9, ih=True
            ),
            0x0000000000050032,
            0x0000000000200049,
        ),
        (
            DeviceTlbInvalidateDescriptor.of(
                type_3_0=3, sid=0x0100, s=True, addr=0x7FFF_FFFF_FFFF_F000
            ),
            0x0000010000000003,
            0x7FFFFFFFFFFFF001,
        ),
        (
            InterruptEntryCacheInvalidateDescriptor.of(
                type_3_0=4, g=InterruptGranularity.INDEX, iidx=0x1234, im=2
            ),
            0x0000123410000014,
            0,
        ),
        (
            InvalidationWaitDescriptor.of(
                type_3_0=5, sw=True, fn=True, status_data=0xDEADBEEF, status_address=0x5000_0000
            ),
            0xDEADBEEF00000065,
            0x0000000050000000,
        ),
        (
            PasidIotlbInvalidateDescriptor.of(
                type_3_0=6,
                g=PasidIotlbGranularity.PAGE_IN_PASID,
                pasid=0x12345,
                did=1,
                addr=0x7000,
            ),
            0x0001234500010036,
            0x0000000000007000,
        ),
        (
            PasidCacheInvalidateDescriptor.of(
                type_3_0=7, g=PasidCacheGranularity.PASID_IN_DOMAIN, pasid=0x12345, did=1
            ),
            0x0001234500010017,
            0,
        ),
        (
            PasidDeviceTlbInvalidateDescriptor.of(
                type_3_0=8, sid=0x0100, pasid=0x12345, s=True, addr=0x7FFF_FFFF_FFFF_F000
            ),
            0x0001234501000008,
            0x7FFFFFFFFFFFF800,
        ),
        (
            PageGroupResponseDescriptor.of(type_3_0=9, pp=True, rid=0x0100, pasid=0x12345, prgi=3),
            0x0001234501000019,
            0x0000000000000018,
        ),
    ],
)
def test_worked_encodings(record: BitRecord, low: int, high: int) -> None:
    assert record == high << 64 | low


@pytest.mark.parametrize(
    ("type_", "reserved"),
    [
        (DescriptorType.CC_INV, bits(8, 6) | bits(15, 12) | bits(127, 50)),
        (DescriptorType.IOTLB_INV, 1 << 8 | bits(15, 12) | bits(63, 32) | bits(75, 71)),
        (DescriptorType.DEV_TLB_INV, bits(8, 4) | bits(31, 21) | bits(51, 48) | bits(75, 65)),
        (DescriptorType.IEC_INV, bits(8, 5) | bits(26, 12) | bits(127, 48)),
        (DescriptorType.INV_WAIT, 1 << 8 | bits(31, 12) | bits(65, 64)),
        (
            DescriptorType.P_IOTLB_INV,
            bits(8, 6) | bits(15, 12) | bits(63, 52) | bits(75, 71) | bits(255, 128),
        ),
        (DescriptorType.PC_INV, bits(8, 6) | bits(15, 12) | bits(63, 52) | bits(255, 64)),
        (DescriptorType.P_DEV_TLB_INV, bits(74, 65) | bits(255, 128)),
        (
            DescriptorType.PAGE_GRP_RESP,
            bits(8, 5) | bits(63, 52) | bits(65, 64) | bits(127, 76) | bits(255, 128),
        ),
        (
            DescriptorType.HPT_INV,
            bits(8, 6) | bits(15, 12) | bits(63, 32) | bits(75, 72) | bits(255, 128),
        ),
    ],
)
def test_bits_without_a_field_are_reserved(type_: DescriptorType, reserved: int) -> None:
    assert DESCRIPTORS[type_].reserved_mask(EVERYTHING) == reserved


@given(st.sampled_from(DescriptorType))
def test_the_head_tells_the_type_of_every_descriptor(type_: DescriptorType) -> None:
    record = DESCRIPTORS[type_].of(type_3_0=type_)
    assert DescriptorHead(record & (1 << 128) - 1).type == type_


@pytest.mark.parametrize("number", range(128))
def test_bits_11_to_9_are_the_upper_part_of_the_type(number: int) -> None:
    data = number & 15 | number >> 4 << 9
    assert DescriptorHead(data).type == number
    assert type_of(data | 0x1F0 | 1 << 12) == number


@given(st.integers(0, 0xFFFF))
def test_a_physical_function_is_split_over_two_fields(pfsid: int) -> None:
    for record in (DeviceTlbInvalidateDescriptor, PasidDeviceTlbInvalidateDescriptor):
        descriptor = record.of(pfsid_3_0=pfsid & 0xF, pfsid_15_4=pfsid & 0xFFF0)
        assert descriptor.pfsid == pfsid
        assert not descriptor & record.reserved_mask(EVERYTHING)
        assert bool(descriptor & record.reserved_mask(Implementation())) == bool(pfsid)


def test_page_request_drain_is_reserved_without_its_capability() -> None:
    assert InvalidationWaitDescriptor.reserved_mask(Implementation()) & 1 << 7


def test_descriptors_6_to_a_have_256_bits() -> None:
    for type_, record in DESCRIPTORS.items():
        assert (256 if type_ >= DescriptorType.P_IOTLB_INV else 128) == record.WIDTH


def test_valid_types_follow_mode_and_width() -> None:
    assert VALID_TYPES[TranslationTableMode.LEGACY, 128] == frozenset(range(1, 6))
    assert VALID_TYPES[TranslationTableMode.LEGACY, 256] == frozenset(range(1, 6))
    for mode in (TranslationTableMode.SCALABLE, TranslationTableMode.ABORT_DMA):
        assert VALID_TYPES[mode, 256] == frozenset(range(1, 11))
        assert not VALID_TYPES[mode, 128]
    assert not VALID_TYPES[TranslationTableMode.RESERVED_2, 128]
    assert not VALID_TYPES[TranslationTableMode.RESERVED_2, 256]


@pytest.mark.parametrize("kind", DescriptorType)
def test_a_descriptor_knows_its_type(kind: DescriptorType) -> None:
    record = DESCRIPTORS[kind]
    assert DescriptorHead(record.of() & (1 << 128) - 1).type == kind
    assert record.of(type_3_0=kind & 15, type_6_4=kind >> 4) == record.of()
    assert DescriptorHead(record.of(type_3_0=15) & (1 << 128) - 1).type == 15


def test_some_types_need_a_capability() -> None:
    assert NEEDS == {3: "dt", 8: "dt", 9: "prs", 0xA: "hpts"}


def test_the_hint_of_a_host_permission_invalidation_names_levels() -> None:
    descriptor = HostPermissionInvalidateDescriptor.of(ih=HostPermissionLevels.ALL)
    assert descriptor == 3 << 70 | DescriptorType.HPT_INV


def test_a_page_request_keeps_every_field_apart() -> None:
    request = PageRequestDescriptor.of(
        type=1,
        pp=True,
        rid=0x0100,
        pasid=0x12345,
        pmr=True,
        rdr=True,
        lpig=True,
        prgi=3,
        addr=0x7000,
    )
    assert request == (0x7000 | 3 << 3 | 1 << 2 | 1) << 64 | 0x0021_2345_0100_0101
    assert bits(255, 128) | bits(63, 54) | bits(15, 9) == PageRequestDescriptor.RESERVED
