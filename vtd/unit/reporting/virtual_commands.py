"""Virtual commands: PASIDs handed out by whoever emulates the unit (VT-d 11.4.16).

Every command is carried out before the next access. PASID 0 is never handed out: it serves requests
without PASID where RID_PASID is not supported.
"""

from __future__ import annotations

import heapq
from enum import IntEnum

from vtd.layouts.registers import VirtualCommand, VirtualCommandCapability, VirtualCommandResponse
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.state import Stateful

PASID_BITS = 20


class VirtualCommandCode(IntEnum):
    """CMD of VCMD_REG."""

    NULL = 0
    ALLOCATE_PASID = 1
    FREE_PASID = 2


class VirtualCommandStatusCode(IntEnum):
    """SC of VCRSP_REG."""

    SUCCESS = 0
    UNDEFINED_COMMAND = 1
    PASID_ERROR = 16
    """No PASID is available, or the one to free is not allocated."""


class PasidPool(Stateful):
    """PASIDs of a width in bits; the lowest free one is handed out first."""

    STATE = "_fresh", "_returned", "allocated"

    def __init__(self, width: int) -> None:
        self._end = 1 << width
        self._fresh = 1
        self._returned: list[int] = []
        self.allocated: set[int] = set()

    def allocate(self) -> int | None:
        """A PASID that nobody has, or None."""
        if self._returned:
            pasid = heapq.heappop(self._returned)
        elif self._fresh < self._end:
            pasid = self._fresh
            self._fresh += 1
        else:
            return None
        self.allocated.add(pasid)
        return pasid

    def free(self, pasid: int) -> bool:
        """Take a PASID back; False if it was not allocated."""
        if pasid not in self.allocated:
            return False
        self.allocated.remove(pasid)
        heapq.heappush(self._returned, pasid)
        return True


class VirtualCommands(Stateful):
    """VCMD_REG and its response."""

    STATE = ("pasids",)

    def __init__(self, registers: RegisterFile, pasid_width: int) -> None:
        self._registers = registers
        self.pasids = PasidPool(pasid_width)
        registers.on_write(VirtualCommand, self._written)

    def _written(self, write: RegisterWrite[VirtualCommand]) -> None:
        if not write.mask & VirtualCommand.cmd.mask:
            return  # the operand's upper half, which comes first
        capability = self._registers[VirtualCommandCapability]
        supported: dict[int, bool] = {
            VirtualCommandCode.NULL: capability.ns,
            VirtualCommandCode.ALLOCATE_PASID: capability.pas,
            VirtualCommandCode.FREE_PASID: capability.fps,
        }
        if supported.get(write.new.cmd):
            self._carry_out(write.new)
        else:
            self._respond(VirtualCommandStatusCode.UNDEFINED_COMMAND)

    def _carry_out(self, command: VirtualCommand) -> None:
        match VirtualCommandCode(command.cmd):
            case VirtualCommandCode.NULL:
                self._respond(VirtualCommandStatusCode.SUCCESS)
            case VirtualCommandCode.ALLOCATE_PASID:
                pasid = self.pasids.allocate()
                if pasid is None:
                    self._respond(VirtualCommandStatusCode.PASID_ERROR)
                else:
                    self._respond(VirtualCommandStatusCode.SUCCESS, pasid)
            case VirtualCommandCode.FREE_PASID:
                freed = self.pasids.free(command.oa & (1 << PASID_BITS) - 1)
                self._respond(
                    VirtualCommandStatusCode.SUCCESS
                    if freed
                    else VirtualCommandStatusCode.PASID_ERROR
                )

    def _respond(self, status: VirtualCommandStatusCode, result: int = 0) -> None:
        self._registers[VirtualCommandResponse] = VirtualCommandResponse.of(sc=status, rslt=result)


def capability_registers(*, pasid: bool) -> dict[int, int]:
    """Constants for a unit that understands every command, as far as it has PASIDs (11.4.16.4)."""
    return {0xE30: int(VirtualCommandCapability.of(ns=True, pas=pasid, fps=pasid))}
