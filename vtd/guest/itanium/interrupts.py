"""External interrupts of a virtual processor: what is pending, in service, and masked.

The highest pending interrupt is told to the processor as a number, vhpi: none is 0, a vector v from
16 on is its class v >> 4, ExtINT (vector 0) is 16, NMI (vector 2) is 32.
"""

from __future__ import annotations

from vtd.guest.itanium.registers import Psr, Tpr

EXTINT, NMI = 0, 2
SPURIOUS = 15
"""What IVR gives when no interrupt is unmasked."""
VHPI_EXTINT, VHPI_NMI = 16, 32
VHPI_VALUES = frozenset({*range(16), VHPI_EXTINT, VHPI_NMI})
VECTORS = frozenset({EXTINT, NMI, *range(16, 256)})
"""Vectors that can be pending; the others are reserved."""


def vhpi_of(vector: int | None) -> int:
    """The number that stands for the highest pending vector."""
    match vector:
        case None:
            return 0
        case 0:
            return VHPI_EXTINT
        case 2:
            return VHPI_NMI
    return vector >> 4


def unmasked(vhpi: int, vpsr: Psr, tpr: Tpr) -> bool:
    """Whether the processor takes a pending interrupt: PSR.i, TPR.mmi and TPR.mic decide."""
    masked_to = (0 if vpsr.i else 1) << 5 | tpr.mmi << 4 | tpr.mic
    return vhpi > masked_to


def priority(vector: int) -> int:
    """NMI, ExtINT, then 255 down to 16."""
    return {NMI: 257, EXTINT: 256}.get(vector, vector)


def highest(bits: int) -> int | None:
    """The vector of highest priority in a set of 256 bits."""
    for vector in (NMI, EXTINT):
        if bits >> vector & 1:
            return vector
    return bits.bit_length() - 1 if bits >> 16 else None


def above_in_service(vector: int, in_service: int) -> bool:
    """Whether a vector has a higher priority than everything in service.

    A vector in service masks those up to itself; NMI masks all, ExtINT all but NMI.
    """
    serving = highest(in_service)
    return serving is None or priority(vector) > priority(serving)
