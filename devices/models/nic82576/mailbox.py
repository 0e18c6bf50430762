"""The mailboxes between the physical function and each virtual function.

Sixteen words of memory that both see, two registers with a lock each of which only one holds, and a
message or acknowledgement that is an interrupt to the other side. What the words mean is between
the two drivers.
"""

from __future__ import annotations

from collections.abc import Callable

from devices.models.nic82576.interrupts import CauseRegisters
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    ICR_MAILBOX,
    MBVFICR,
    MBVFIMR,
    P2VMAILBOX,
    POOLS,
    V2PMAILBOX,
    VFLRE,
)

PF_SEND, PF_ACKNOWLEDGE, PF_SEES_VF_LOCK, PF_LOCK, PF_REVOKES = 1, 2, 4, 8, 16
VF_REQUEST, VF_ACKNOWLEDGE, VF_LOCK, VF_SEES_PF_LOCK = 1, 2, 4, 8
VF_SENT, VF_TAKEN, VF_IN_RESET, VF_RESET_DONE = 1 << 4, 1 << 5, 1 << 6, 1 << 7
_CLEARED_BY_READ = VF_SENT | VF_TAKEN | VF_RESET_DONE
WORDS = 16


class Mailboxes:
    """All mailboxes; the locks are kept in P2VMAILBOX (PFU, VFU) and shown on both sides."""

    def __init__(self, bank: RegisterBank, interrupts: CauseRegisters) -> None:
        self._values = bank.values
        self._interrupts = interrupts
        self.on_news: Callable[[], None] | None = None
        """Who takes what virtual functions say, in place of an interrupt."""
        bank.on_write[P2VMAILBOX] = self._physical_wrote
        bank.on_write[V2PMAILBOX] = self.virtual_wrote
        bank.on_read[V2PMAILBOX] = self.virtual_reads

    def _physical_wrote(self, vf: int, value: int) -> None:
        at = P2VMAILBOX + vf
        locks = self._values[at]
        if value & PF_REVOKES:
            locks &= ~PF_SEES_VF_LOCK
            self._values[MBVFICR] &= ~(0x1_0001 << vf)
        if not value & PF_LOCK:
            locks &= ~PF_LOCK
        elif not locks & PF_SEES_VF_LOCK:
            locks |= PF_LOCK
        self._values[at] = locks
        self._tell(vf, VF_SENT * bool(value & PF_SEND) | VF_TAKEN * bool(value & PF_ACKNOWLEDGE))

    def virtual_wrote(self, vf: int, value: int) -> None:
        """What a virtual function does with its side of the mailbox."""
        at = P2VMAILBOX + vf
        locks = self._values[at]
        if not value & VF_LOCK:
            locks &= ~PF_SEES_VF_LOCK
        elif not locks & PF_LOCK:
            locks |= PF_SEES_VF_LOCK
        self._values[at] = locks
        if value & VF_REQUEST:
            self._values[MBVFICR] |= 1 << vf
        if value & VF_ACKNOWLEDGE:
            self._values[MBVFICR] |= 0x1_0000 << vf
        if value & (VF_REQUEST | VF_ACKNOWLEDGE):
            self._notify(vf)

    def virtual_reads(self, vf: int) -> int:
        """What a virtual function sees, once: news are cleared by looking at them."""
        at = V2PMAILBOX + vf
        news = self._values[at]
        self._values[at] = news & ~_CLEARED_BY_READ
        locks = self._values[P2VMAILBOX + vf]
        return (
            news | VF_LOCK * bool(locks & PF_SEES_VF_LOCK) | VF_SEES_PF_LOCK * bool(locks & PF_LOCK)
        )

    def virtual_reset(self, vf: int) -> None:
        """The physical function's driver is told that a virtual function was reset."""
        self._values[P2VMAILBOX + vf] &= ~PF_SEES_VF_LOCK
        self._values[VFLRE] |= 1 << vf
        self._notify(vf)

    def physical_reset_done(self) -> None:
        """CTRL_EXT.PFRSTD: virtual functions may go on."""
        for vf in range(POOLS):
            at = V2PMAILBOX + vf
            if self._values[at] & VF_IN_RESET:
                self._values[at] ^= VF_IN_RESET | VF_RESET_DONE

    def _tell(self, vf: int, news: int) -> None:
        if news:
            self._values[V2PMAILBOX + vf] |= news
            self._interrupts.mailbox(vf)

    def _notify(self, vf: int) -> None:
        if self.on_news is not None:
            self.on_news()
        elif self._values[MBVFIMR] >> vf & 1:
            self._interrupts.cause(ICR_MAILBOX)
