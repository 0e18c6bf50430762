"""The copper PHY behind MDIC: IEEE 802.3 registers of an IGP03 PHY at address 1.

Pages (register 1Fh) are not told apart. Auto-negotiation takes 500 ms, and always ends with
1000 Mb/s full duplex and pause in both directions, if there is a link partner.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from devices.clock import Clock
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import MDIC

ADDRESS = 1
NEGOTIATION_NANOSECONDS = 500_000_000

CONTROL, PHY_STATUS = 0, 1
CONTROL_RESET = 1 << 15
CONTROL_LOOPBACK = 1 << 14
CONTROL_POWER_DOWN = 1 << 11
CONTROL_RESTART = 1 << 9
STATUS_NEGOTIATED = 1 << 5
STATUS_LINK = 1 << 2

REGISTERS = {
    CONTROL: 0x1140,
    PHY_STATUS: 0x7949,
    2: 0x02A8,
    3: 0x0391,
    4: 0x0DE1,
    5: 0x0DE1,
    6: 0x0001,
    7: 0x2001,
    8: 0x0000,
    9: 0x0300,
    10: 0x3C00,
    15: 0x3000,
    0x10: 0x0120,
    0x11: 0xC000,
    0x12: 0x0000,
    0x13: 0x0000,
    0x14: 0x0000,
    0x18: 0x0000,
    0x19: 0x008D,
    0x1F: 0x0000,
}
"""Registers and their values after reset; others answer with an error."""
WRITABLE = frozenset({CONTROL, 4, 7, 9, 0x10, 0x12, 0x13, 0x14, 0x18, 0x19, 0x1F})

_REGISTER, _PHY = 16, 21
_WRITE, _READ, _READY, _ERROR = 1 << 26, 1 << 27, 1 << 28, 1 << 30


class Timed(Protocol):
    """Something with a clock, which may be exchanged for that of a machine."""

    clock: Clock


class Phy:
    """``on_link`` hears when the link went up or down; ``attached`` tells of a link partner."""

    def __init__(self, bank: RegisterBank, owner: Timed, on_link: Callable[[], None]) -> None:
        self.attached = False
        self.loopback = False
        """Whether what is sent comes back."""
        self.link = False
        """Whether the link is up: negotiated, or looped back."""
        self._values = bank.values
        self._owner = owner
        self._on_link = on_link
        self._attempt = 0
        self._negotiated = False
        bank.on_write[MDIC] = self._access
        self.reset()

    def reset(self) -> None:
        """All registers as after power-on, and auto-negotiation from the start."""
        self.registers = dict(REGISTERS)
        self._settle()
        self.negotiate()

    def negotiate(self) -> None:
        """Lose the link, and have it again 500 ms later if there is a partner by then."""
        self._attempt += 1
        attempt = self._attempt
        self._set_link(False)
        if self.attached and not self.registers[CONTROL] & CONTROL_POWER_DOWN:
            self._owner.clock.after(NEGOTIATION_NANOSECONDS, partial(self._finish, attempt))

    def attach(self, attached: bool) -> None:
        """A partner came or went."""
        self.attached = attached
        self.negotiate()

    def _finish(self, attempt: int) -> None:
        if attempt == self._attempt:
            self._set_link(self.attached)

    def _set_link(self, up: bool) -> None:
        before, self._negotiated = self._negotiated, up
        self._settle()
        if before != up:
            self._on_link()

    def _settle(self) -> None:
        """Bring what follows from the registers and the negotiation up to date."""
        self.loopback = bool(self.registers[CONTROL] & CONTROL_LOOPBACK)
        self.link = self._negotiated or self.loopback
        status = self.registers[PHY_STATUS] & ~(STATUS_NEGOTIATED | STATUS_LINK)
        status |= STATUS_NEGOTIATED * self._negotiated | STATUS_LINK * self.link
        self.registers[PHY_STATUS] = status

    def _access(self, _: int, value: int) -> None:
        number = value >> _REGISTER & 0x1F
        error = value >> _PHY & 0x1F != ADDRESS or number not in self.registers
        data = value & 0xFFFF
        if error:
            data |= _ERROR
        elif value & _READ:
            data = self.registers[number]
        elif value & _WRITE:
            self._write(number, data)
        self._values[MDIC] = value & 0x2FFF_0000 & ~_READY | data | _READY

    def _write(self, number: int, value: int) -> None:
        if number == CONTROL and value & CONTROL_RESET:
            self.reset()
        elif number in WRITABLE:
            before = self.registers[number]
            self.registers[number] = value & ~CONTROL_RESTART if number == CONTROL else value
            self._settle()
            if number == CONTROL and (
                value & CONTROL_RESTART or (before ^ value) & CONTROL_POWER_DOWN
            ):
                self.negotiate()
