"""A virtual processor as its monitor knows it: the VPD, and what is not in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.interrupts import (
    SPURIOUS,
    above_in_service,
    highest,
    unmasked,
    vhpi_of,
)
from vtd.guest.itanium.partition import Partition
from vtd.guest.itanium.registers import Cr, Psr, RegionRegister, Tpr
from vtd.guest.itanium.translations import Translations
from vtd.guest.itanium.vpd import Vpd


@dataclass
class VirtualProcessor:
    """One virtual processor; what is not in the VPD is here while it does not run."""

    vpd: Vpd
    partition: Partition
    ip: int = 0
    bank: list[int] = field(default_factory=lambda: [0] * 16)
    itc_offset: int = 0
    rr: list[RegionRegister] = field(default_factory=lambda: [RegionRegister.of(ps=14)] * 8)
    registers: dict[tuple[str, int], int] = field(default_factory=dict)
    """Its own pkr, pmc, pmd, ibr and dbr, by file and number."""
    translations: Translations = field(default_factory=Translations)
    """What it inserted: its region identifiers, its physical addresses."""
    in_service: int = 0
    """External interrupts that it serves, 256 bits."""
    intercepts: Counter[InterceptCause] = field(default_factory=Counter)

    @property
    def tpr(self) -> Tpr:
        """Its task priority."""
        return Tpr(self.vpd.cr(Cr.TPR) & ~Tpr.RESERVED)

    @property
    def pending(self) -> int:
        """External interrupts that are pending, 256 bits of IRR0 to IRR3."""
        return sum(self.vpd.cr(Cr.IRR0 + number) << 64 * number for number in range(4))

    def set_pending(self, vector: int, *, pending: bool) -> None:
        """Change one bit of IRR0 to IRR3."""
        number, bit = Cr.IRR0 + (vector >> 6), 1 << (vector & 63)
        self.vpd.set_cr(number, self.vpd.cr(number) & ~bit | (bit if pending else 0))

    def deliverable(self) -> int | None:
        """The highest pending vector, if nothing in service masks it."""
        vector = highest(self.pending)
        if vector is None or not above_in_service(vector, self.in_service):
            return None
        return vector

    def recognized(self, vpsr: Psr) -> int | None:
        """The same, if PSR.i, as in ``vpsr``, and TPR do not mask it either."""
        vector = self.deliverable()
        return vector if unmasked(vhpi_of(vector), vpsr, self.tpr) else None

    def read_ivr(self) -> int:
        """A read of IVR: the vector is in service from now on; spurious if there is none."""
        vector = self.recognized(Psr.of(i=1))
        if vector is None:
            return SPURIOUS
        self.set_pending(vector, pending=False)
        self.in_service |= 1 << vector
        return vector

    def end_of_interrupt(self) -> None:
        """A write of EOI: the highest vector in service is done."""
        serving = highest(self.in_service)
        if serving is not None:
            self.in_service &= ~(1 << serving)
