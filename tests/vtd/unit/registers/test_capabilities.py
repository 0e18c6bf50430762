import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.layouts.entries import AddressWidth
from vtd.layouts.registers import Capability, ExtendedCapability, Version
from vtd.unit.registers.capabilities import DEPENDENCIES, PROFILES, Capabilities

XEON = PROFILES["xeon"]

REPORTED = {
    "qemu": (0x10, 0x80D2008C222F0606, 0xF00F4A),
    "qemu-scalable": (0x10, 0x80D2008C222F0606, 0x480080F00F4A),
    "qemu-scalable-first": (0x10, 0x81D2008C222F0606, 0x880000F00F4A),
    "openvmm": (0x10, 0xD2008C126F0606, 0xF0101B),
    "client": (0x50, 0xD2008C40660462, 0xF050DA),
    "xeon": (0x60, 0xF9D2078C28780C66, 0x3BEF9EA6F050DF),
    "viommu": (0x10, 0xC1D2008C226F0686, 0x3DD9AA4F00FDF),
}
"""Version, CAP and ECAP."""


def with_cap(**values: int) -> Capabilities:
    return dataclasses.replace(XEON, cap=XEON.cap.replace(**values))


def with_ecap(**values: int) -> Capabilities:
    return dataclasses.replace(XEON, ecap=XEON.ecap.replace(**values))


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_do_not_contradict_themselves(name: str) -> None:
    assert PROFILES[name].check() == []


@pytest.mark.section("11.4.1", "11.4.2", "11.4.3")
@pytest.mark.parametrize("name", PROFILES)
def test_profiles_report_these_values(name: str) -> None:
    """Those of ``qemu`` are what QEMU reports; software may depend on the others by now."""
    profile = PROFILES[name]
    assert (profile.version, profile.cap, profile.ecap) == REPORTED[name]


@pytest.mark.parametrize(("flag", "needed"), DEPENDENCIES)
@pytest.mark.section("11.4.2", "11.4.3")
def test_a_flag_without_what_it_needs_is_found(flag: str, needed: str) -> None:
    cap = {flag: True} if flag in Capability.FIELDS else {}
    ecap = {flag: True} if flag in ExtendedCapability.FIELDS else {}
    lonely = Capabilities(
        Version.of(max=5), Capability.of(**cap), ExtendedCapability.of(**ecap), 39
    )
    section = "11.4.2" if cap else "11.4.3"
    assert f"{section}: {flag.upper()} is set without {needed.upper()}" in lonely.check()


@pytest.mark.parametrize("major", range(5))
@pytest.mark.parametrize("drain", ["drd", "dwd"])
def test_draining_is_reported_from_major_version_2_on(drain: str, major: int) -> None:
    unit = dataclasses.replace(with_cap(**{drain: False}), version=Version.of(max=major))
    told = f"11.4.2: {drain.upper()} is clear in major version 2 or higher"
    assert (told in unit.check()) == (major >= 2)


@pytest.mark.parametrize(
    ("capabilities", "field"),
    [
        (with_cap(nd=7), "11.4.2: ND"),
        (with_cap(sslps=2), "11.4.2: SSLPS"),
        (with_cap(rwbf=True), "11.4.2: RWBF"),
        (with_cap(mgaw=0), "11.4.2: MGAW is 0"),
        (with_cap(mgaw=47), "11.4.2: MGAW of 48 bits"),
        (with_cap(sagaw=1), "11.4.2: SAGAW"),
        (with_cap(drd=False), "11.4.2: DRD"),
        (with_cap(dwd=False), "11.4.2: DWD"),
        (with_cap(dep_23=1), "11.4.2: deprecated bit 23"),
        (dataclasses.replace(XEON, cap=Capability(XEON.cap | 8)), "11.4.2: reserved bits 0x8"),
        (with_ecap(ssts=False, nest=False), "11.4.2: SAGAW is not 0"),
        (with_ecap(dep_28=1), "11.4.3: deprecated bit 28"),
        (with_ecap(dep_24=1), "11.4.3: deprecated bit 24"),
        (with_ecap(dep_5=1), "11.4.3: deprecated bit 5"),
        (with_ecap(ers=True), "11.4.3: ERS"),
        (with_ecap(pss=20), "11.4.3: PSS of 21 bits"),
        (with_ecap(smts=False), "11.4.3: PSS is not 0"),
        (with_ecap(ir=False), "11.4.3: MHMV"),
        (
            dataclasses.replace(XEON, ecap=ExtendedCapability(XEON.ecap | 1 << 63)),
            "11.4.3: reserved bits",
        ),
        (with_cap(fro=0x500), "11.4: FRO or IRO puts"),
        (with_ecap(iro=0x80), "11.4: FRO or IRO puts"),
    ],
)
def test_a_contradiction_is_found_and_named(capabilities: Capabilities, field: str) -> None:
    assert any(message.startswith(field) for message in capabilities.check())


@pytest.mark.section("11.4.3")
def test_what_revision_2_had_in_bit_27_is_a_remnant_and_no_contradiction() -> None:
    older = dataclasses.replace(XEON, ecap=ExtendedCapability(XEON.ecap | 1 << 27))
    assert older.contradictions() == []
    assert older.remnants() == ["11.4.3: bit 27 is set (extended mode, revision 2)"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 0xFF))
def test_any_register_values_can_be_decoded_and_checked(cap: int, ecap: int, version: int) -> None:
    capabilities = Capabilities.of(version, cap, ecap, 46)
    capabilities.check()
    assert 4 <= capabilities.implementation.did_width <= 16
    assert 0 <= capabilities.pasid_width <= 20
    assert AddressWidth.RESERVED_0 not in capabilities.address_widths


def test_the_server_profile_decodes() -> None:
    assert XEON.major_version == 6
    assert XEON.max_guest_address_width == 57
    assert XEON.address_widths == {AddressWidth.AGAW_48, AddressWidth.AGAW_57}
    assert (XEON.did_width, XEON.pasid_width) == (16, 20)
    assert (XEON.fault_records, XEON.fault_recording_offset, XEON.iotlb_offset) == (8, 0x280, 0x500)
    assert XEON.implementation.haw == 52
    assert {"nest", "prs", "pi", "sslps_1g", "sslps_2m", "pmr"} <= XEON.features


@pytest.mark.parametrize(("plmr", "phmr"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.section("11.4.8.1")
def test_either_protected_region_makes_the_enable_register(plmr: int, phmr: int) -> None:
    assert ("pmr" in with_cap(plmr=plmr, phmr=phmr).features) == bool(plmr or phmr)


def test_second_stage_flags_need_the_second_stage() -> None:
    without = with_ecap(ssts=False)
    assert without.ecap.ssads
    assert "ssads" not in without.features


@pytest.mark.parametrize("nd", range(7))
def test_domain_ids_have_4_bits_and_2_more_for_each_step(nd: int) -> None:
    assert with_cap(nd=nd).did_width == 4 + 2 * nd


@pytest.mark.parametrize("width", [11, 53])
def test_a_host_address_width_of_no_platform_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="host_address_width"):
        Capabilities.of(0x10, 0, 0, width)


@pytest.mark.parametrize("width", [12, 52])
def test_a_platform_may_have_one_page_of_addresses_or_all_that_entries_hold(width: int) -> None:
    assert Capabilities.of(0x10, 0, 0, width).host_address_width == width


@pytest.mark.parametrize("values", [(1 << 32, 0, 0), (0, 1 << 64, 0), (0, 0, -1)])
def test_values_that_do_not_fit_a_register_are_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"Version|Capability"):
        Capabilities.of(*values, 39)


def test_a_unit_without_any_way_to_invalidate_contradicts_itself() -> None:
    known = PROFILES["client"]
    without = dataclasses.replace(known, ecap=ExtendedCapability.of(iro=0x500, pt=True, sc=True))
    for version, told in ((5, False), (6, True)):
        unit = dataclasses.replace(
            without, version=Version.of(max=version), cap=known.cap.replace(sagaw=0)
        )
        assert any(each.startswith("6.5: QI is clear") for each in unit.contradictions()) == told


def test_a_unit_without_an_address_width_is_told_of_and_is_no_contradiction() -> None:
    known = PROFILES["xeon"]
    assert not known.consequences()
    none = dataclasses.replace(known, cap=known.cap.replace(sagaw=0))
    assert ["9.3" in each for each in none.consequences()] == [True, False]
    assert not none.contradictions()


@pytest.mark.section("3.10")
@pytest.mark.parametrize(
    ("c", "smts", "smpwcs", "snoops"),
    [(0, 0, 0, False), (1, 0, 0, True), (1, 1, 0, False), (1, 1, 1, True), (0, 1, 1, False)],
)
def test_a_unit_snoops_if_it_does_for_every_structure(
    c: int, smts: int, smpwcs: int, snoops: bool
) -> None:
    assert with_ecap(c=c, smts=smts, smpwcs=smpwcs).snoops is snoops
