"""The virtual environment: what PAL knows of virtual processors (SDM 11.7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pagetables.bits import BitRecord, Bits
from vtd.guest.itanium.vpd import Vac, Vdc, Vpd


class ConfigOptions(BitRecord, width=64):
    """config_options of PAL_VP_INIT_ENV (Table 11-119); bits 7:2 are not known to us."""

    initialize = Bits(0)  # the buffer: by the first logical processor
    fr_pmc = Bits(1)  # performance counters stop while PAL works
    unknown_7_2 = Bits(7, 2)
    opcode = Bits(8)  # GR25 of an intercept has it: must be 1
    cause = Bits(9)  # GR24 of an intercept has it
    gitc = Bits(10)  # reads of ar.itc do not intercept
    impl = Bits(63)


class Registration(NamedTuple):
    """A virtual processor that PAL knows, by PAL_VP_CREATE or PAL_VP_REGISTER."""

    vpd: Vpd
    vac: Vac
    vdc: Vdc
    host_iva: int
    opt_handler: int

    @property
    def optimized(self) -> bool:
        """Whether any acceleration or disable is on."""
        return bool(self.vac or self.vdc)


@dataclass
class VirtualEnvironment:
    """The environment that logical processors share."""

    pbase: int
    vbase: int
    options: ConfigOptions
    members: set[int] = field(default_factory=set)
    """Numbers of the logical processors that entered it."""
    registered: dict[int, Registration] = field(default_factory=dict)
    """Virtual processors by the address of their VPD."""
    current: dict[int, int] = field(default_factory=dict)
    """Number of the logical processor on which a VPD is current, by address."""
