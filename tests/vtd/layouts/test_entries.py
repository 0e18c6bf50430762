import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import BitRecord, Implementation
from vtd.layouts.entries import (
    AddressWidth,
    ContextEntry,
    FirstStagePagingMode,
    HostPermissionL1Entry,
    HostPermissionL2Entry,
    HostPermissionL3Entry,
    HostPermissionL4Entry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    TranslationType,
)


def bits(high: int, low: int) -> int:
    return (1 << high + 1) - (1 << low)


@pytest.mark.parametrize("record", [ContextEntry, PasidEntry])
def test_a_domain_id_has_16_bits(record: type[BitRecord]) -> None:
    assert record.of(did=0xFFFF).pack() != record.of().pack()
    with pytest.raises(ValueError, match="did"):
        record.of(did=0x1_0000)


@pytest.mark.parametrize(
    ("record", "quadwords"),
    [
        (RootEntry.of(p=True, ctp=0x1000_0000), [0x10000001, 0]),
        (
            ScalableRootEntry.of(lp=True, lctp=0x1000_0000, up=True, uctp=0x1000_1000),
            [0x10000001, 0x10001001],
        ),
        (
            ContextEntry.of(p=True, ssptptr=0x1234_5000, aw=AddressWidth.AGAW_48, did=5),
            [0x12345001, 0x502],
        ),
        (
            ContextEntry.of(
                p=True,
                tt=TranslationType.DEVICE_TLB,
                ssptptr=0x1234_5000,
                aw=AddressWidth.AGAW_48,
                did=5,
            ),
            [0x12345005, 0x502],
        ),
        (
            ContextEntry.of(
                p=True, tt=TranslationType.PASS_THROUGH, aw=AddressWidth.AGAW_57, did=1
            ),
            [0x9, 0x103],
        ),
        (
            ScalableContextEntry.of(
                p=True, dte=True, paside=True, pre=True, pdts=7, pasiddirptr=0x2000_0000
            ),
            [0x20000E1D, 0, 0, 0],
        ),
        (PasidDirectoryEntry.of(p=True, smptblptr=0x3000_0000), [0x30000001]),
        (
            PasidEntry.of(
                p=True,
                pgtt=PasidTranslationType.SECOND_STAGE,
                aw=AddressWidth.AGAW_48,
                ssptptr=0x1234_5000,
                did=5,
                pwsnp=True,
            ),
            [0x12345089, 0x800005, 0, 0, 0, 0, 0, 0],
        ),
        (
            PasidEntry.of(
                p=True,
                pgtt=PasidTranslationType.FIRST_STAGE,
                fspm=FirstStagePagingMode.FOUR_LEVEL,
                fsptptr=0x4000_0000,
                did=1,
                sre=True,
            ),
            [0x41, 1, 0x40000001, 0, 0, 0, 0, 0],
        ),
        (
            PasidEntry.of(
                p=True,
                pgtt=PasidTranslationType.NESTED,
                aw=AddressWidth.AGAW_48,
                ssptptr=0x1234_5000,
                did=5,
                fsptptr=0x4000_0000,
            ),
            [0x123450C9, 5, 0x40000000, 0, 0, 0, 0, 0],
        ),
    ],
)
@pytest.mark.section("9.1", "9.5")
def test_worked_encodings(record: BitRecord, quadwords: list[int]) -> None:
    stored = b"".join(quadword.to_bytes(8, "little") for quadword in quadwords)
    assert record.pack() == stored
    assert type(record).unpack(stored) == record


@given(st.integers(32, 52), st.integers(4, 16))
@pytest.mark.section("9.3")
def test_a_context_entry_reserves_addresses_and_domain_ids_the_unit_does_not_have(
    haw: int, did_width: int
) -> None:
    mask = ContextEntry.reserved_mask(Implementation(haw, did_width))
    assert mask == bits(127, 88) | bits(87, 72 + did_width) | 1 << 71 | bits(63, haw) | bits(11, 4)


@given(st.integers(32, 52))
@pytest.mark.section("9.2")
def test_the_halves_of_a_scalable_root_entry_reserve_the_same_bits(haw: int) -> None:
    mask = ScalableRootEntry.reserved_mask(Implementation(haw))
    assert mask == (bits(63, haw) | bits(11, 1)) * (1 | 1 << 64)


@pytest.mark.parametrize(
    ("record", "field", "feature"),
    [
        (ScalableContextEntry, "dte", "dt"),
        (ScalableContextEntry, "paside", "pasid"),
        (ScalableContextEntry, "pre", "prs"),
        (ScalableContextEntry, "hpte", "hpts"),
        (ScalableContextEntry, "eptr", "ptrs"),
        (ScalableContextEntry, "rid_pasid", "rps"),
        (ScalableContextEntry, "rid_priv", "rprivs"),
        (PasidEntry, "aw", "ssts"),
        (PasidEntry, "ssade", "ssads"),
        (PasidEntry, "ssptptr", "ssts"),
        (PasidEntry, "pwsnp", "smpwcs"),
        (PasidEntry, "pgsnp", "sc"),
        (PasidEntry, "cd", "mts"),
        (PasidEntry, "emte", "mts"),
        (PasidEntry, "pat", "mts"),
        (PasidEntry, "sre", "srs"),
        (PasidEntry, "fspm", "fsts"),
        (PasidEntry, "wpe", "fsts"),
        (PasidEntry, "eafe", "eafs"),
        (PasidEntry, "fsptptr", "fsts"),
        (PasidEntry, "hptsz", "hpts"),
        (PasidEntry, "hptpfd", "hpts"),
        (PasidEntry, "hptptr", "hpts"),
        (PasidEntry, "hptdid", "hpts"),
        (HostPermissionL3Entry, "pp", "hpt1gps"),
    ],
)
@pytest.mark.section("9.4", "9.6")
def test_a_field_is_reserved_without_its_capability(
    record: type[BitRecord], field: str, feature: str
) -> None:
    mask = record.FIELDS[field].mask
    assert record.reserved_mask(Implementation(52, 16)) & mask == mask
    supported = record.reserved_mask(Implementation(52, 16, frozenset({feature})))
    assert supported & mask != mask


@pytest.mark.section("9.6")
def test_bits_133_and_134_of_a_pasid_entry_are_ignored() -> None:
    assert not PasidEntry.reserved_mask(Implementation()) & bits(134, 133)


@pytest.mark.section("9.12")
def test_page_permissions_reserve_the_upper_two_bits_of_each_four() -> None:
    assert HostPermissionL1Entry.reserved_mask(Implementation()) == 0xC * ((1 << 128) // 15)
    assert HostPermissionL2Entry.reserved_mask(Implementation(52)) & bits(63, 0) == 0xC * (
        (1 << 64) // 15
    )


@given(st.integers(32, 51))
def test_a_host_permission_table_address_ends_at_the_host_address_width(haw: int) -> None:
    mask = HostPermissionL4Entry.reserved_mask(Implementation(haw))
    assert mask == bits(115, haw + 64) | bits(75, 65) | bits(63, 0)
