"""Where interrupt requests go, and what a remappable address says (VT-d 3.15, 5.1.2.2)."""

from __future__ import annotations

from typing import Self

from pagetables.bits import BitRecord, Bits, ignored

INTERRUPT_RANGE = range(0xFEE0_0000, 0xFEF0_0000)
"""The interrupt address range FEEx_xxxxh (3.15)."""


class RemappableAddress(BitRecord, width=32):
    """Address of a remappable-format interrupt request (5.1.2.2)."""

    ign_1_0 = ignored(1, 0)
    handle_15 = Bits(2)
    shv = Bits(3, as_=bool)  # the subhandle is valid: the data is to be added
    format = Bits(4, as_=bool)  # 1: remappable
    handle_14_0 = Bits(19, 5)
    fee = Bits(31, 20)

    @property
    def handle(self) -> int:
        return self.handle_15 << 15 | self.handle_14_0

    @classmethod
    def for_handle(cls, handle: int, *, shv: bool) -> Self:
        """The address that names ``handle``; ValueError unless it has 16 bits."""
        return cls.of(
            fee=INTERRUPT_RANGE.start >> 20,
            format=True,
            shv=shv,
            handle_15=handle >> 15,
            handle_14_0=handle & 0x7FFF,
        )
