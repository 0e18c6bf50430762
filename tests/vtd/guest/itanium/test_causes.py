"""Intercept causes and the opcode, as public headers number them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vtd.guest.itanium.causes import InterceptCause, Opcode
from vtd.guest.itanium.emulation import EMULATORS
from vtd.guest.itanium.optimizations import HANDLERS

HEADER = (
    "mov_to_ar mov_to_ar_imm mov_from_ar mov_to_cr mov_from_cr mov_to_psr mov_from_psr itc_d itc_i "
    "mov_to_rr mov_to_dbr mov_to_ibr mov_to_pkr mov_to_pmc mov_to_pmd itr_d itr_i mov_from_rr "
    "mov_from_dbr mov_from_ibr mov_from_pkr mov_from_pmc mov_from_cpuid ssm rsm ptc_l ptc_g ptc_ga "
    "ptr_d ptr_i thash ttag tpa tak ptc_e cover rfi bsw_0 bsw_1 vmsw probe"
)


def test_numbers_are_those_of_the_headers() -> None:
    assert [each.name.lower() for each in InterceptCause] == HEADER.split()
    assert [int(each) for each in InterceptCause] == list(range(1, 42))


def test_a_monitor_serves_every_cause() -> None:
    assert set(EMULATORS) == set(InterceptCause)
    assert set(HANDLERS) < set(InterceptCause)


@given(st.integers(0, (1 << 24) - 1))
def test_the_mask_of_ssm_is_in_three_pieces(mask: int) -> None:
    word = (mask & 0x1F_FFFF) << 6 | (mask >> 21 & 3) << 31 | (mask >> 23) << 36
    assert Opcode(word).mask == mask
