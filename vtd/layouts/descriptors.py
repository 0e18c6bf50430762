"""Invalidation descriptors and the page request descriptor (VT-d 6.5.2, 7.4.1.1, 7.6.1).

Descriptors 1 to 5 are declared with 128 bits; in a queue of 256-bit entries their upper half is
reserved. Descriptors 6 to A exist with 256 bits only. Left out: what a descriptor does, and checks
that depend on a field's value, such as reserved granularities.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar, Self

from pagetables.bits import BitRecord, Bits, ignored
from vtd.layouts.registers import ContextGranularity, IotlbGranularity, TranslationTableMode


class DescriptorType(IntEnum):
    """Type of an invalidation descriptor (6.5.2)."""

    CC_INV = 0x1
    IOTLB_INV = 0x2
    DEV_TLB_INV = 0x3
    IEC_INV = 0x4
    INV_WAIT = 0x5
    P_IOTLB_INV = 0x6
    PC_INV = 0x7
    P_DEV_TLB_INV = 0x8
    PAGE_GRP_RESP = 0x9
    HPT_INV = 0xA


class InterruptGranularity(IntEnum):
    """G of iec_inv_dsc (6.5.2.8)."""

    GLOBAL = 0
    INDEX = 1


class PasidIotlbGranularity(IntEnum):
    """G of p_iotlb_inv_dsc (6.5.2.4)."""

    RESERVED_0 = 0
    RESERVED_1 = 1
    PASID = 2
    PAGE_IN_PASID = 3


class PasidCacheGranularity(IntEnum):
    """G of pc_inv_dsc (6.5.2.2)."""

    DOMAIN = 0
    PASID_IN_DOMAIN = 1
    RESERVED_2 = 2
    GLOBAL = 3


class HostPermissionGranularity(IntEnum):
    """G of hpt_inv_dsc (6.5.2.7)."""

    RESERVED_0 = 0
    GLOBAL = 1
    DOMAIN = 2
    PAGE_IN_DOMAIN = 3


class HostPermissionLevels(IntEnum):
    """IH of hpt_inv_dsc: the levels of cached entries that go (6.5.2.7)."""

    L1 = 0
    L2_L1 = 1
    L3_TO_L1 = 2
    ALL = 3


class DescriptorHead(BitRecord, width=128):
    """What every invalidation descriptor has in common: its type, in two parts (6.5.2)."""

    type_3_0 = Bits(3, 0)
    other_8_4 = Bits(8, 4)
    type_6_4 = Bits(11, 9)
    other_127_12 = Bits(127, 12)

    @property
    def type(self) -> int:
        """The 7-bit type."""
        return type_of(self)


def type_of(data: int) -> int:
    """The 7-bit type of an invalidation descriptor as it lies in the queue."""
    return data >> _UPPER_AT & _UPPER | data & _LOWER


_LOWER, _UPPER = DescriptorHead.type_3_0.max, DescriptorHead.type_6_4.max << 4
_UPPER_AT = DescriptorHead.type_6_4.low - 4


class Descriptor(BitRecord):
    """What software puts into the queue; a class of descriptors knows its type and fills it in."""

    TYPE: ClassVar[DescriptorType]

    def __init_subclass__(cls, *, type_: DescriptorType, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.TYPE = type_

    @classmethod
    def of(cls, **values: int) -> Self:
        """The descriptor with these field values, its own type, and everything else 0."""
        return super().of(**{"type_3_0": cls.TYPE & 15, "type_6_4": cls.TYPE >> 4, **values})


class ContextCacheInvalidateDescriptor(Descriptor, width=128, type_=DescriptorType.CC_INV):
    """cc_inv_dsc (6.5.2.1)."""

    type_3_0 = Bits(3, 0)
    g = Bits(5, 4, as_=ContextGranularity)
    type_6_4 = Bits(11, 9)
    did = Bits(31, 16)
    sid = Bits(47, 32)
    fm = Bits(49, 48)  # function mask


class IotlbInvalidateDescriptor(Descriptor, width=128, type_=DescriptorType.IOTLB_INV):
    """iotlb_inv_dsc (6.5.2.3)."""

    type_3_0 = Bits(3, 0)
    g = Bits(5, 4, as_=IotlbGranularity)
    dw = Bits(6, as_=bool)  # drain writes
    dr = Bits(7, as_=bool)  # drain reads
    type_6_4 = Bits(11, 9)
    did = Bits(31, 16)
    am = Bits(69, 64)  # address mask
    ih = Bits(70, as_=bool)  # invalidation hint
    addr = Bits(127, 76, shift=12)


class DeviceTlbInvalidateDescriptor(Descriptor, width=128, type_=DescriptorType.DEV_TLB_INV):
    """dev_tlb_inv_dsc (6.5.2.5)."""

    type_3_0 = Bits(3, 0)
    type_6_4 = Bits(11, 9)
    pfsid_3_0 = Bits(15, 12, needs="dit")
    mip = Bits(20, 16)  # maximum invalidations pending; 0 is 32
    sid = Bits(47, 32)
    pfsid_15_4 = Bits(63, 52, shift=4, needs="dit")
    s = Bits(64, as_=bool)
    addr = Bits(127, 76, shift=12)

    @property
    def pfsid(self) -> int:
        return self.pfsid_15_4 | self.pfsid_3_0


class InterruptEntryCacheInvalidateDescriptor(Descriptor, width=128, type_=DescriptorType.IEC_INV):
    """iec_inv_dsc (6.5.2.8)."""

    type_3_0 = Bits(3, 0)
    g = Bits(4, as_=InterruptGranularity)
    type_6_4 = Bits(11, 9)
    im = Bits(31, 27)  # index mask: 2**IM entries
    iidx = Bits(47, 32)


class InvalidationWaitDescriptor(Descriptor, width=128, type_=DescriptorType.INV_WAIT):
    """inv_wait_dsc (6.5.2.9). Address bits at and above the HAW are ignored."""

    type_3_0 = Bits(3, 0)
    if_ = Bits(4, as_=bool)  # interrupt
    sw = Bits(5, as_=bool)  # status write
    fn = Bits(6, as_=bool)  # fence
    pd = Bits(7, as_=bool, needs="pds")  # page-request drain
    type_6_4 = Bits(11, 9)
    status_data = Bits(63, 32)
    status_address = Bits(127, 66, shift=2)


class PasidIotlbInvalidateDescriptor(Descriptor, width=256, type_=DescriptorType.P_IOTLB_INV):
    """p_iotlb_inv_dsc (6.5.2.4)."""

    type_3_0 = Bits(3, 0)
    g = Bits(5, 4, as_=PasidIotlbGranularity)
    type_6_4 = Bits(11, 9)
    did = Bits(31, 16)
    pasid = Bits(51, 32)
    am = Bits(69, 64)
    ih = Bits(70, as_=bool)
    addr = Bits(127, 76, shift=12)


class PasidCacheInvalidateDescriptor(Descriptor, width=256, type_=DescriptorType.PC_INV):
    """pc_inv_dsc (6.5.2.2)."""

    type_3_0 = Bits(3, 0)
    g = Bits(5, 4, as_=PasidCacheGranularity)
    type_6_4 = Bits(11, 9)
    did = Bits(31, 16)
    pasid = Bits(51, 32)


class PasidDeviceTlbInvalidateDescriptor(Descriptor, width=256, type_=DescriptorType.P_DEV_TLB_INV):
    """p_dev_tlb_inv_dsc (6.5.2.6). PASID is ignored with GI = 1."""

    type_3_0 = Bits(3, 0)
    mip = Bits(8, 4)
    type_6_4 = Bits(11, 9)
    pfsid_3_0 = Bits(15, 12, needs="dit")
    sid = Bits(31, 16)
    pasid = Bits(51, 32)
    pfsid_15_4 = Bits(63, 52, shift=4, needs="dit")
    gi = Bits(64, as_=bool)  # global invalidate
    s = Bits(75, as_=bool)
    addr = Bits(127, 76, shift=12)

    @property
    def pfsid(self) -> int:
        return self.pfsid_15_4 | self.pfsid_3_0


class PageGroupResponseDescriptor(Descriptor, width=256, type_=DescriptorType.PAGE_GRP_RESP):
    """page_grp_resp_dsc (7.6.1)."""

    type_3_0 = Bits(3, 0)
    pp = Bits(4, as_=bool)  # PASID present
    type_6_4 = Bits(11, 9)
    rc = Bits(15, 12)  # response code
    rid = Bits(31, 16)
    pasid = Bits(51, 32)
    ign_66 = ignored(66)
    prgi = Bits(75, 67)  # page request group index


class HostPermissionInvalidateDescriptor(Descriptor, width=256, type_=DescriptorType.HPT_INV):
    """hpt_inv_dsc (6.5.2.7)."""

    type_3_0 = Bits(3, 0)
    g = Bits(5, 4, as_=HostPermissionGranularity)
    type_6_4 = Bits(11, 9)
    hptdid = Bits(31, 16)
    am = Bits(69, 64)
    ih = Bits(71, 70, as_=HostPermissionLevels)
    addr = Bits(127, 76, shift=12)


DESCRIPTORS: Mapping[DescriptorType, type[Descriptor]] = {
    each.TYPE: each
    for each in (
        ContextCacheInvalidateDescriptor,
        IotlbInvalidateDescriptor,
        DeviceTlbInvalidateDescriptor,
        InterruptEntryCacheInvalidateDescriptor,
        InvalidationWaitDescriptor,
        PasidIotlbInvalidateDescriptor,
        PasidCacheInvalidateDescriptor,
        PasidDeviceTlbInvalidateDescriptor,
        PageGroupResponseDescriptor,
        HostPermissionInvalidateDescriptor,
    )
}
"""The layout of each descriptor."""

NEEDS: Mapping[DescriptorType, str] = {
    DescriptorType.DEV_TLB_INV: "dt",
    DescriptorType.P_DEV_TLB_INV: "dt",
    DescriptorType.PAGE_GRP_RESP: "prs",
    DescriptorType.HPT_INV: "hpts",
}
"""The capability without which a descriptor is of an invalid type."""

_NARROW = frozenset(type_ for type_ in DescriptorType if DESCRIPTORS[type_].WIDTH == 128)
_ALL = frozenset(DescriptorType)

VALID_TYPES: Mapping[tuple[TranslationTableMode, int], frozenset[DescriptorType]] = {
    (TranslationTableMode.LEGACY, 128): _NARROW,
    (TranslationTableMode.LEGACY, 256): _NARROW,
    (TranslationTableMode.SCALABLE, 128): frozenset(),
    (TranslationTableMode.SCALABLE, 256): _ALL,
    (TranslationTableMode.RESERVED_2, 128): frozenset(),
    (TranslationTableMode.RESERVED_2, 256): frozenset(),
    (TranslationTableMode.ABORT_DMA, 128): frozenset(),
    (TranslationTableMode.ABORT_DMA, 256): _ALL,
}
"""Types that are valid by translation table mode and descriptor width in bits (Table 26)."""


class PageRequestType(IntEnum):
    """Type of a page request queue entry (7.4.1)."""

    PAGE_REQUEST = 0x1


class PageRequestDescriptor(BitRecord, width=256):
    """page_req_dsc, written by hardware (7.4.1.1)."""

    type = Bits(7, 0)
    pp = Bits(8, as_=bool)  # PASID present
    rid = Bits(31, 16)
    pasid = Bits(51, 32)
    exr = Bits(52, as_=bool)  # execute requested
    pmr = Bits(53, as_=bool)  # privileged mode requested
    rdr = Bits(64, as_=bool)  # read requested
    wrr = Bits(65, as_=bool)  # write requested
    lpig = Bits(66, as_=bool)  # last page in group
    prgi = Bits(75, 67)
    addr = Bits(127, 76, shift=12)
