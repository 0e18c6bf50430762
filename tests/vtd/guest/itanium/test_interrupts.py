"""vhpi and masks: the formula against an independent reading, case by case."""

from __future__ import annotations

from itertools import product

import pytest

from vtd.guest.itanium.interrupts import (
    EXTINT,
    NMI,
    VHPI_VALUES,
    above_in_service,
    highest,
    unmasked,
    vhpi_of,
)
from vtd.guest.itanium.registers import Psr, Tpr


def reading(i: int, mmi: int, mic: int, vhpi: int) -> bool:
    """As a public monitor decides: NMI, ExtINT and classes apart."""
    if not i or not vhpi:
        return False
    if vhpi == 32:
        return True
    if vhpi == 16:
        return not mmi
    return vhpi > mic + 16 * mmi


def test_all_1152_cases() -> None:
    cases = list(product((0, 1), (0, 1), range(16), sorted(VHPI_VALUES)))
    assert len(cases) == 1152
    for i, mmi, mic, vhpi in cases:
        assert unmasked(vhpi, Psr.of(i=i), Tpr.of(mmi=mmi, mic=mic)) is reading(i, mmi, mic, vhpi)


@pytest.mark.parametrize(
    ("vector", "vhpi"), [(None, 0), (EXTINT, 16), (NMI, 32), (16, 1), (0x51, 5), (255, 15)]
)
def test_the_number_of_a_vector(vector: int | None, vhpi: int) -> None:
    assert vhpi_of(vector) == vhpi


def test_nmi_goes_first_and_extint_next() -> None:
    bits = 1 << NMI | 1 << EXTINT | 1 << 0x51 | 1 << 0xF0
    order = []
    while bits:
        vector = highest(bits)
        assert vector is not None
        order.append(vector)
        bits &= ~(1 << vector)
    assert order == [NMI, EXTINT, 0xF0, 0x51]


def test_what_is_in_service_masks_what_is_not_higher() -> None:
    for serving, pending in product([NMI, EXTINT, 0x51, 0x30], repeat=2):
        ranks = [0x30, 0x51, EXTINT, NMI]
        higher = ranks.index(pending) > ranks.index(serving)
        assert above_in_service(pending, 1 << serving) is higher
    assert above_in_service(16, 0)
