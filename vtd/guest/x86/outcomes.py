"""What an instruction or an event comes to, besides a VM exit."""

from __future__ import annotations

from typing import NamedTuple

CF, ZF = 1, 0x40
"""RFLAGS bits of VMfailInvalid and VMfailValid; the other arithmetic flags are 0 (30.2)."""
UD, NP, SS, GP, PF, VE, DB = 6, 11, 12, 13, 14, 20, 1
"""Exception vectors."""


class VmResult(NamedTuple):
    """What a VMX instruction that completes tells (30.2)."""

    flags: int
    """Arithmetic flags: 0 for VMsucceed, CF for VMfailInvalid, ZF for VMfailValid."""
    error: int | None = None
    """VM-instruction error of a VMfailValid."""
    value: int | None = None
    """What VMREAD and VMPTRST give."""

    @property
    def ok(self) -> bool:
        """Whether it is VMsucceed."""
        return not self.flags


SUCCEED = VmResult(0)
FAIL_INVALID = VmResult(CF)


class CpuException(NamedTuple):
    """An exception that is delivered in the mode that the processor is in."""

    vector: int
    error_code: int | None = None
    address: int | None = None
    """CR2 of a page fault."""


class Entered(NamedTuple):
    """A VM entry that succeeded: the guest runs."""

    injected: int | None = None
    """Vector of the event that was injected."""


class Delivered(NamedTuple):
    """An interrupt that the guest takes through its IDT, without an exit."""

    vector: int


class Nothing(NamedTuple):
    """Nothing that anybody sees."""


NOTHING = Nothing()


class VmxAbort(NamedTuple):
    """The processor is in the VMX-abort shutdown state until reset (27.7)."""

    code: int
