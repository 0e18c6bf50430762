"""Protected memory regions: DMA to them is blocked, without a fault record (VT-d 11.4.8)."""

from __future__ import annotations

from typing import Any

from vtd.layouts.registers import (
    ProtectedHighMemoryBase,
    ProtectedHighMemoryLimit,
    ProtectedLowMemoryBase,
    ProtectedLowMemoryLimit,
    ProtectedMemoryEnable,
)
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite

_BELOW_LOW_LIMIT = (1 << ProtectedLowMemoryLimit.plml.low) - 1
_BELOW_HIGH_LIMIT = (1 << ProtectedHighMemoryLimit.phml.low) - 1
"""Address bits below the fields of the limit registers, which count as ones."""


class ProtectedMemory:
    """The low and the high protected region of a unit."""

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        registers.on_write(ProtectedMemoryEnable, self._enable_written)

    @property
    def enabled(self) -> bool:
        """PMEN_REG.PRS: whether the regions are protected now."""
        return self._registers[ProtectedMemoryEnable].prs

    def blocks(self, address: int, length: int) -> bool:
        """Whether any byte of an access lies in an enabled region."""
        return self.enabled and any(
            address <= limit and base < address + max(length, 1) for base, limit in self._regions()
        )

    def _regions(self) -> list[tuple[int, int]]:
        """Base and inclusive limit of each region that the unit has."""
        registers, regions = self._registers, []
        if ProtectedLowMemoryBase in registers:
            limit = registers[ProtectedLowMemoryLimit].plml | _BELOW_LOW_LIMIT
            regions.append((registers[ProtectedLowMemoryBase].plmb, limit))
        if ProtectedHighMemoryBase in registers:
            limit = registers[ProtectedHighMemoryLimit].phml | _BELOW_HIGH_LIMIT
            regions.append((registers[ProtectedHighMemoryBase].phmb, limit))
        return regions

    def _enable_written(self, _: RegisterWrite[Any]) -> None:
        enable = self._registers[ProtectedMemoryEnable]
        self._registers[ProtectedMemoryEnable] = enable.replace(prs=enable.epm)
