"""What the values of fields mean, against the tables of VT-d."""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag

import pytest

from vtd.layouts import descriptors, entries, interrupt_entries, registers

SPECIFIED = {
    # 11.4
    registers.LargePages: "2M 1 / 1G 2",
    registers.AddressWidths: "39 2 / 48 4 / 57 8",
    registers.TranslationTableMode: "LEGACY 0 / SCALABLE 1 / ABORT_DMA 3",
    registers.ContextGranularity: "GLOBAL 1 / DOMAIN 2 / DEVICE 3",
    registers.IotlbGranularity: "GLOBAL 1 / DOMAIN 2 / PAGE_IN_DOMAIN 3",
    registers.RequestType: "WRITE 0 / PAGE_REQUEST 1 / READ 2 / ATOMIC_OP 3",
    registers.InvalidationQueueErrorInfo: (
        "NO_INFORMATION 0 / INVALID_TAIL 1 / FETCH_ERROR 2 / INVALID_TYPE 3 / RESERVED_FIELD 4 /"
        " INVALID_WIDTH 5 / TAIL_MISALIGNED 6 / INVALID_TRANSLATION_TABLE_MODE 7"
    ),
    registers.PasidFilterMode: "MATCH 0 / ANY_PASID 1 / WITHOUT_PASID 2",
    # 6.5.2, 7.4.1.1
    descriptors.DescriptorType: (
        "CC_INV 1 / IOTLB_INV 2 / DEV_TLB_INV 3 / IEC_INV 4 / INV_WAIT 5 / P_IOTLB_INV 6 /"
        " PC_INV 7 / P_DEV_TLB_INV 8 / PAGE_GRP_RESP 9 / HPT_INV 10"
    ),
    descriptors.InterruptGranularity: "GLOBAL 0 / INDEX 1",
    descriptors.PasidIotlbGranularity: "PASID 2 / PAGE_IN_PASID 3",
    descriptors.PasidCacheGranularity: "DOMAIN 0 / PASID_IN_DOMAIN 1 / GLOBAL 3",
    descriptors.HostPermissionGranularity: "GLOBAL 1 / DOMAIN 2 / PAGE_IN_DOMAIN 3",
    descriptors.HostPermissionLevels: "L1 0 / L2_L1 1 / L3_TO_L1 2 / ALL 3",
    descriptors.PageRequestType: "PAGE_REQUEST 1",
    # 9.3, 9.6
    entries.TranslationType: "SECOND_STAGE 0 / DEVICE_TLB 1 / PASS_THROUGH 2",
    entries.AddressWidth: "39 1 / 48 2 / 57 3",
    entries.PasidTranslationType: "FIRST_STAGE 1 / SECOND_STAGE 2 / NESTED 3 / PASS_THROUGH 4",
    entries.FirstStagePagingMode: "FOUR_LEVEL 0 / FIVE_LEVEL 1",
    entries.HostPermissionTableSize: "4K 0 / 8K 1 / 16K 2 / 32K 3",
    # 9.9
    interrupt_entries.DeliveryMode: (
        "FIXED 0 / LOWEST_PRIORITY 1 / SMI 2 / NMI 4 / INIT 5 / EXT_INT 7"
    ),
    interrupt_entries.TriggerMode: "EDGE 0 / LEVEL 1",
    interrupt_entries.DestinationMode: "PHYSICAL 0 / LOGICAL 1",
    interrupt_entries.SourceValidationType: "NONE 0 / SOURCE_ID 1 / BUS_RANGE 2",
    interrupt_entries.SourceIdQualifier: (
        "ALL_BITS 0 / IGNORE_BIT_2 1 / IGNORE_BITS_2_1 2 / IGNORE_BITS_2_0 3"
    ),
}
"""Names without what all of an enumeration begin with; values that are reserved are not named."""

RESERVED = re.compile(r"(RESERVED|UNDEFINED)_\d+")
BEGIN = "AGAW_", "PAGE_", "SIZE_"


def declared(kind: type[IntEnum | IntFlag]) -> dict[str, int]:
    every = {str(each.name): each.value for each in kind}
    known = {name: value for name, value in every.items() if not RESERVED.fullmatch(name)}
    for begin in BEGIN:
        if all(name.startswith(begin) for name in known) and len(known) > 1:
            known = {name.removeprefix(begin): value for name, value in known.items()}
    return known


@pytest.mark.parametrize("kind", SPECIFIED, ids=lambda kind: kind.__name__)
def test_values_are_those_that_the_specification_prints(kind: type[IntEnum | IntFlag]) -> None:
    rows = [row.split() for row in SPECIFIED[kind].split(" / ")]
    assert declared(kind) == {name: int(value) for name, value in rows}


def test_every_enumeration_is_in_the_list() -> None:
    every = {
        kind
        for module in (registers, descriptors, entries, interrupt_entries)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, IntEnum | IntFlag)
        and kind.__module__ == module.__name__
    }
    assert every == SPECIFIED.keys()
