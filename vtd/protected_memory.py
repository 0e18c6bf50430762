"""Protected memory regions: DMA to them is blocked, without a fault record (VT-d 11.4.8)."""

from __future__ import annotations

from typing import Any

from vtd.register_file import RegisterFile, RegisterWrite
from vtd.registers import (
    ProtectedHighMemoryBase,
    ProtectedHighMemoryLimit,
    ProtectedLowMemoryBase,
    ProtectedLowMemoryLimit,
    ProtectedMemoryEnable,
)


class ProtectedMemory:
    """The low and the high protected region of a unit."""

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        registers.on_write(ProtectedMemoryEnable, self._enable_written)

    @property
    def enabled(self) -> bool:
        return self._registers[ProtectedMemoryEnable].prs

    def blocks(self, address: int, length: int) -> bool:
        """Whether any byte of an access lies in an enabled region."""
        return self.enabled and any(
            address <= limit and base < address + max(length, 1) for base, limit in self._regions()
        )

    def _regions(self) -> list[tuple[int, int]]:
        """Base and inclusive limit of each region present; the low limit bits count as ones."""
        registers, regions = self._registers, []
        if ProtectedLowMemoryBase in registers:
            limit = ProtectedLowMemoryLimit.plml
            regions.append(
                (
                    registers[ProtectedLowMemoryBase].plmb,
                    registers[ProtectedLowMemoryLimit].plml | (1 << limit.low) - 1,
                )
            )
        if ProtectedHighMemoryBase in registers:
            high_limit = ProtectedHighMemoryLimit.phml
            regions.append(
                (
                    registers[ProtectedHighMemoryBase].phmb,
                    registers[ProtectedHighMemoryLimit].phml | (1 << high_limit.low) - 1,
                )
            )
        return regions

    def _enable_written(self, _: RegisterWrite[Any]) -> None:
        enable = self._registers[ProtectedMemoryEnable]
        self._registers[ProtectedMemoryEnable] = enable.replace(prs=enable.epm)
