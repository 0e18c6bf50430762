"""A virtual function of the 82576: the part of the controller's registers that its BAR shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from devices.capabilities import add_aer, add_ari
from devices.models.nic82576.interrupts import VF_VECTORS, CauseRegisters, vf_cause
from devices.models.nic82576.mailbox import WORDS
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    CTRL_RESET,
    EIAC,
    EIAM,
    EIMS,
    EITR,
    STATUS,
    V2PMAILBOX,
    VFGORC,
    VFGOTC,
    VFGPRC,
    VFGPTC,
    VFMPRC,
    VMBMEM,
    VTIVAR,
    VTIVAR_MISC,
    offset_of,
)
from devices.sriov import Sriov, VirtualFunction

VF_BAR = 0x4000
MSIX_TABLE, MSIX_PENDING = 0, 0x2000
_OWN = (1 << VF_VECTORS) - 1
_CTRL, _STATUS, _EICS, _EIMS, _EIMC, _EIAC, _EIAM, _EICR = (
    0x0000, 0x0008, 0x1520, 0x1524, 0x1528, 0x152C, 0x1530, 0x1580,
)  # fmt: skip


class PhysicalSide(Protocol):
    """What a virtual function needs of the physical one."""

    bank: RegisterBank
    interrupts: CauseRegisters

    def reset_virtual(self, index: int) -> None:
        """A virtual function is reset."""
        ...


def _shown(index: int) -> dict[int, int]:
    """Offsets in the BAR of a virtual function, and the registers of the controller there."""
    shown = {
        _STATUS: offset_of(STATUS),
        0x0C40: offset_of(V2PMAILBOX, index),
        0x0F10: offset_of(VFGPRC, index),
        0x0F14: offset_of(VFGPTC, index),
        0x0F18: offset_of(VFGORC, index),
        0x0F34: offset_of(VFGOTC, index),
        0x0F3C: offset_of(VFMPRC, index),
        0x1700: offset_of(VTIVAR, index),
        0x1740: offset_of(VTIVAR_MISC, index),
    }
    for vector in range(VF_VECTORS):
        shown[0x1680 + 4 * vector] = offset_of(EITR, vf_cause(index, vector))
    for word in range(WORDS):
        shown[0x0800 + 4 * word] = offset_of(VMBMEM, WORDS * index + word)
    for at, ring in ((0x2800, 0xC000), (0x3800, 0xE000)):
        for queue in range(2):
            for register in range(0, 0x40, 4):
                shown[at + 0x100 * queue + register] = ring + 0x40 * (index + 8 * queue) + register
    return shown


class VirtualRegisters:
    """BAR0 of a virtual function."""

    def __init__(self, owner: PhysicalSide, index: int) -> None:
        self._owner = owner
        self._index = index
        self._shown = _shown(index)
        self._shift = vf_cause(index)
        interrupts = owner.interrupts
        self._on_write: dict[int, Callable[[int], None]] = {
            _EICS: interrupts.extended,
            _EIMS: interrupts.unmask_extended,
            _EIMC: interrupts.mask_extended,
            _EICR: interrupts.clear_extended,
            _EIAC: partial(self._keep, EIAC),
            _EIAM: partial(self._keep, EIAM),
        }
        self._windows: dict[int, int] = {_EIMS: EIMS, _EIMC: EIMS, _EIAC: EIAC, _EIAM: EIAM}

    def read(self, offset: int, size: int) -> int:
        """4 aligned bytes, or 8 as two of them; anything else, and what is no register, reads 0."""
        if size == 8 and not offset & 3:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        if offset in self._shown:
            return self._owner.bank.read(self._shown[offset], size)
        if size != 4:
            return 0
        if offset == _EICR:
            return self._owner.interrupts.take_extended(_OWN << self._shift) >> self._shift
        if offset in self._windows:
            return self._owner.bank.values[self._windows[offset]] >> self._shift & _OWN
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """4 aligned bytes, or 8 as two of them; anything else is dropped."""
        if size == 8 and not offset & 3:
            self.write(offset, 4, value & 0xFFFF_FFFF)
            self.write(offset + 4, 4, value >> 32)
        elif offset in self._shown:
            self._owner.bank.write(self._shown[offset], size, value)
        elif offset == _CTRL and size == 4:
            if value & CTRL_RESET:
                self._owner.reset_virtual(self._index)
        elif offset in self._on_write and size == 4:
            self._on_write[offset]((value & _OWN) << self._shift)

    def _keep(self, register: int, bits: int) -> None:
        values = self._owner.bank.values
        values[register] = values[register] & ~(_OWN << self._shift) | bits


class Nic82576Vf(VirtualFunction):
    """A virtual function: two queues of each direction, three vectors, a mailbox."""

    def __init__(self, sriov: Sriov, index: int, owner: PhysicalSide, *, ari: bool) -> None:
        super().__init__(sriov, index, express_at=0xA0)
        self.add_msix(VF_VECTORS, table=(3, MSIX_TABLE), pending=(3, MSIX_PENDING), offset=0x70)
        add_aer(self.config, offset=0x100)
        if ari:
            add_ari(self.config, offset=0x150)
        self.bars[0].place(0, VF_BAR, VirtualRegisters(owner, index))
        self.at_reset.append(partial(owner.reset_virtual, index))
