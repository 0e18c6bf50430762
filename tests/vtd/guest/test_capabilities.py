"""Capability MSRs: profiles, what public acceptance tests demand of them, contradictions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vtd.guest.x86.capabilities import (
    DEFAULT1,
    MSRS,
    REVISION,
    VMX_PROFILES,
    ControlMsr,
    EptVpid,
    VmcsEnum,
    VmxBasic,
    VmxCapabilities,
    VmxMisc,
    of_msrs,
)

BROADWELL = VMX_PROFILES["broadwell"]


@pytest.mark.parametrize("name", VMX_PROFILES)
def test_profiles_do_not_contradict_themselves(name: str) -> None:
    assert VMX_PROFILES[name].check() == []


@pytest.mark.parametrize("name", ["broadwell", "broadwell-posted", "kut"])
def test_profiles_pass_the_relations_of_the_public_tests(name: str) -> None:
    caps = VMX_PROFILES[name]
    assert caps.basic >> 56 == 0
    assert caps.vmcs_enum & 0x3FE >= 0x2A
    allowed = {0, 6, 7, 8, 14, 16, 17, 20, 21, 22, 25, 26, 32, 40, 41, 42, 43}
    assert not caps.ept_vpid & ~sum(1 << bit for bit in allowed)
    for word, default in DEFAULT1.items():
        plain, true = getattr(caps, word), getattr(caps, f"true_{word}")
        assert plain.must_be_1 & default == default
        assert plain.must_be_1 == true.must_be_1 | default
        assert plain.may_be_1 == true.may_be_1


def test_broadwell_has_the_published_values() -> None:
    msrs = BROADWELL.msrs()
    assert msrs[0x481] == 0x7F_0000_0016
    assert msrs[0x485] == 0x3004_81E5
    assert msrs[0x48B] == 0x0005_7CFF_0000_0000
    assert msrs[0x490] == 0xFFFF_0000_11FB
    basic = VmxBasic(msrs[0x480])
    assert (basic.revision, basic.size) == (REVISION, 4096)
    assert int(basic.replace(revision=0x12, size=0x400)) == 0x00DA_0400_0000_0012


def test_msrs_of_missing_features_are_not_there() -> None:
    assert 0x492 not in BROADWELL.msrs()
    assert set(VMX_PROFILES["everything"].msrs()) == set(MSRS) - {0x493}
    bare = of_msrs({0x480: 1 << 32, 0x482: 0x7FFF_FFFF_0401_E172})
    assert not {0x48B, 0x48C, 0x48D, 0x491} & set(bare.msrs())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"basic": VmxBasic(BROADWELL.basic | 1 << 31)}, "BASIC"),
        ({"basic": BROADWELL.basic.replace(memory_type=3)}, "memory type"),
        ({"basic": BROADWELL.basic.replace(size=0)}, "region"),
        ({"pin": ControlMsr(BROADWELL.pin & ~2)}, "default1"),
        ({"exit": ControlMsr(BROADWELL.exit & ~(1 << 32))}, "must be 1 and may not"),
        ({"true_entry": ControlMsr(BROADWELL.true_entry & ~(1 << 47))}, "differ"),
        ({"true_primary": ControlMsr(BROADWELL.true_primary | 1 << 7)}, "TRUE MSR"),
        ({"cr4_fixed0": 1 << 60}, "CR4"),
        ({"vmcs_enum": VmcsEnum(0x28)}, "highest index"),
        ({"ept_vpid": EptVpid(BROADWELL.ept_vpid | 1 << 5)}, "EPT_VPID"),
        ({"misc": BROADWELL.misc.replace(store_lma=False)}, "LMA"),
        ({"misc": VmxMisc(BROADWELL.misc | 300 << 16)}, "CR3 targets"),
    ],
)
def test_contradictions_are_named(change: dict[str, int], word: str) -> None:
    broken: VmxCapabilities = replace(BROADWELL, **change)  # type: ignore[arg-type]
    assert any(word in sentence for sentence in broken.check())


def test_canonical_follows_the_linear_width() -> None:
    assert BROADWELL.canonical(0x7FFF_FFFF_FFFF)
    assert not BROADWELL.canonical(1 << 47)
    assert BROADWELL.canonical(0xFFFF_8000_0000_0000)
    wide = VMX_PROFILES["everything"]
    assert wide.canonical(1 << 47)
    assert not wide.canonical(1 << 56)


@pytest.mark.parametrize(
    ("eptp", "good"),
    [
        (0x1_001E, True),
        (0x1_0018, True),  # uncacheable
        (0x1_005E, True),  # accessed and dirty
        (0x1_001D, False),  # write-protected
        (0x1_0016, False),  # 3 levels
        (0x1_0026, False),  # 5 levels
        (0x1_009E, False),  # supervisor shadow stack
        (0x1_011E, False),
        (1 << 39 | 0x1E, False),
    ],
)
def test_eptp(eptp: int, good: bool) -> None:
    assert BROADWELL.valid_eptp(eptp) is good


def test_eptp_of_a_wider_machine() -> None:
    wide = VMX_PROFILES["everything"]
    assert wide.valid_eptp(0x1_0026)
    assert wide.valid_eptp(0x1_009E)


def test_an_unknown_capability_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="colour"):
        of_msrs({}, colour=1)
