"""Enhanced commands: the registers that control the performance counters (VT-d 11.4.14).

Every command is carried out before the next access, so software never sees one in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

from vtd.layouts.registers import (
    EnhancedCommand,
    EnhancedCommandCapability,
    EnhancedCommandResponse,
)
from vtd.unit.monitoring.performance import PerformanceMonitoring
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite

COMMANDS_PER_CAPABILITY = 64


class EnhancedCommandStatusCode(IntEnum):
    """SC of ECRSP_REG."""

    SUCCESS = 0
    UNDEFINED_COMMAND = 1
    COUNTER_ERROR = 16
    """The checks of 10.5 failed, or there is no such counter."""


class EnhancedCommands:
    """ECMD_REG and its response."""

    def __init__(self, registers: RegisterFile, performance: PerformanceMonitoring) -> None:
        self._registers = registers
        self._commands: Mapping[int, Callable[[int], bool]] = {
            240: performance.enable,
            241: performance.disable,
            242: _without_operand(performance.reset_configuration),
            243: _without_operand(performance.reset_values),
            244: _without_operand(performance.freeze),
            245: _without_operand(performance.unfreeze),
        }
        registers.on_write(EnhancedCommand, self._written)

    def _written(self, write: RegisterWrite[EnhancedCommand]) -> None:
        if not write.mask & EnhancedCommand.cmd.mask:
            return  # the operand's upper half, which comes first
        command = self._commands.get(write.new.cmd)
        if command is None or not self._supported(write.new.cmd):
            status = EnhancedCommandStatusCode.UNDEFINED_COMMAND
        elif command(write.new.oa):
            status = EnhancedCommandStatusCode.SUCCESS
        else:
            status = EnhancedCommandStatusCode.COUNTER_ERROR
        self._registers[EnhancedCommandResponse] = EnhancedCommandResponse.of(sc=status)

    def _supported(self, command: int) -> bool:
        index, bit = divmod(command, COMMANDS_PER_CAPABILITY)
        return bool(self._registers[EnhancedCommandCapability, index] >> bit & 1)


def _without_operand(command: Callable[[], None]) -> Callable[[int], bool]:
    def carry_out(_: int) -> bool:
        command()
        return True

    return carry_out
