"""The processor's own local APIC, as far as guests reach it: x2APIC registers and EOI (SDM 10.12).

Left out: everything that would make it send or time interrupts.
"""

from __future__ import annotations

from collections.abc import Callable

READ_ONLY = frozenset({0x02, 0x03, 0x0A, 0x0D, *range(0x10, 0x28), 0x39})
WRITE_ONLY = frozenset({0x0B, 0x3F})
READ_WRITE = frozenset({0x08, 0x0F, 0x28, 0x2F, 0x30, *range(0x32, 0x39), 0x3E})
ZERO_ONLY = frozenset({0x0B, 0x28})
"""EOI and ESR take only 0."""


class LocalApic:
    """Registers by MSR number - 800h, in x2APIC mode while ``x2apic``."""

    def __init__(self, apic_id: int = 0, *, x2apic: bool = True) -> None:
        self.x2apic = x2apic
        self.registers: dict[int, int] = {0x02: apic_id, 0x03: 0x5_0014, 0x0F: 0xFF}
        self.eois = 0
        """EOIs that were written."""
        self.on_self_ipi: Callable[[int], None] | None = None

    def eoi(self) -> None:
        """A write of 0 to the EOI register."""
        self.eois += 1

    def read(self, msr: int) -> int | None:
        """RDMSR of 800h to 8FFh; None for a #GP."""
        register = msr - 0x800
        if not self.x2apic or register not in READ_ONLY | READ_WRITE:
            return None
        return self.registers.get(register, 0)

    def write(self, msr: int, value: int) -> bool:
        """WRMSR of 800h to 8FFh; False for a #GP."""
        register = msr - 0x800
        if not self.x2apic or register not in WRITE_ONLY | READ_WRITE:
            return False
        if register in ZERO_ONLY and value:
            return False
        if register != 0x30 and value >> 32:
            return False
        if register == 0x08 and value > 0xFF:
            return False
        if register == 0x0B:
            self.eoi()
        elif register == 0x3F:
            if value > 0xFF:
                return False
            if self.on_self_ipi is not None:
                self.on_self_ipi(value)
        else:
            self.registers[register] = value
        return True
