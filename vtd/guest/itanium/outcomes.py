"""What an instruction of a virtual processor comes to, and what PAL answers."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from vtd.guest.itanium.causes import InterceptCause


class GuestInstruction(NamedTuple):
    """An instruction of the guest, as the one thing that it does."""

    cause: InterceptCause
    register: int = 0
    """Number of the application, control, debug, key, region, CPUID or monitor register; the slot
    of itr; for probe 1 if it asks for write access."""
    value: int = 0
    """The source operand: a register's new value, an address, the mask of ssm and rsm, CFM for
    cover."""
    opcode: int = 0
    """The 41 bits, if anybody is to see them."""


class Executed(NamedTuple):
    """Done without the monitor, on the VPD or where virtualization does not matter."""

    value: int = 0


class PassedThrough(NamedTuple):
    """Done on the processor's own resource, since its virtualization is disabled."""

    value: int = 0


class Intercept(NamedTuple):
    """The monitor runs, at ``address``; the instruction is not done."""

    cause: InterceptCause
    instruction: GuestInstruction
    address: int
    gr24: int
    """The cause, if INIT_ENV asked for it."""
    gr25: int
    """The opcode."""


class VirtualInterrupt(NamedTuple):
    """The monitor runs, at ``address``: the instruction is done, and unmasked an interrupt."""

    address: int
    value: int = 0


class GuestFault(NamedTuple):
    """An ordinary fault: the monitor runs at its vector, as for any interruption."""

    name: str
    vector: int
    address: int


class NotRunning(NamedTuple):
    """No virtual processor runs: there is nobody to execute it."""


GuestOutcome = Executed | PassedThrough | Intercept | VirtualInterrupt | GuestFault | NotRunning
"""What :meth:`ItaniumProcessor.execute` gives."""


class PalStatus(IntEnum):
    """Status of a PAL procedure, r8."""

    OK = 0
    UNIMPLEMENTED = -1
    INVALID_ARGUMENT = -2
    ERROR = -3


class PalResult(NamedTuple):
    """What a PAL procedure returns: r8 to r11."""

    status: PalStatus
    r9: int = 0
    r10: int = 0
    r11: int = 0


class Served(NamedTuple):
    """A PAL service returned."""

    gr31: int = 0


class Running(NamedTuple):
    """A PAL service let the virtual processor run."""


class Undefined(NamedTuple):
    """A PAL service was called in a way whose outcome is not defined; nothing is changed."""

    why: str


ServiceOutcome = Served | Running | VirtualInterrupt | Undefined
"""What a PAL service comes to."""
