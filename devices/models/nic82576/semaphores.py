"""SWSM: the semaphore between two drivers of one board, and the one between driver and firmware.

No firmware is modelled, so the second one is always to be had. SW_FW_SYNC, which the first one
guards, is a register that keeps what is written.
"""

from __future__ import annotations

from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import SWSM, SWSM_FIRMWARE_SEMAPHORE, SWSM_SEMAPHORE


class Semaphores:
    """SWSM: whoever reads the semaphore as 0 has it, and writes 0 to give it back."""

    def __init__(self, bank: RegisterBank) -> None:
        self._values = bank.values
        bank.on_read[SWSM] = self._take
        bank.on_write[SWSM] = self._release

    def _take(self, _: int) -> int:
        before = self._values[SWSM]
        self._values[SWSM] = before | SWSM_SEMAPHORE
        return before

    def _release(self, _: int, value: int) -> None:
        self._values[SWSM] = value & (SWSM_SEMAPHORE | SWSM_FIRMWARE_SEMAPHORE)
