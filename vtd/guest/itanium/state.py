"""The state of a logical processor of Itanium, as far as virtualization goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from vtd.guest.bus import Memory
from vtd.guest.itanium.environment import Registration, VirtualEnvironment
from vtd.guest.itanium.registers import Psr, RegionRegister
from vtd.guest.itanium.synchronization import Kept
from vtd.guest.itanium.translations import Translations


class Features(NamedTuple):
    """What the processor implements."""

    vm: bool = True
    vmsw: bool = True
    gitc: bool = True
    cpuid: tuple[int, ...] = (0x49656E69756E6547, 0x6C65746E, 0, 0x2000_0504, 0x5)


@dataclass
class Resources:
    """Registers of the processor that a guest reaches if their virtualization is disabled."""

    cr: dict[int, int] = field(default_factory=dict)
    pmc: dict[int, int] = field(default_factory=dict)
    pmd: dict[int, int] = field(default_factory=dict)
    ibr: dict[int, int] = field(default_factory=dict)
    dbr: dict[int, int] = field(default_factory=dict)


class ItaniumState:
    """Registers and caches of one logical processor."""

    def __init__(self, memory: Memory, number: int = 0, features: Features | None = None) -> None:
        self.memory = memory
        self.number = number
        self.features = features or Features()
        self.psr = Psr.of(ic=1, dt=1, rt=1, it=1, bn=1)
        self.iva = 0
        self.itc = 0
        """Interval timer counter; it stands still until somebody advances it."""
        self.ito = 0
        """Interval timer offset: what a guest's reads of ar.itc get on top (option gitc)."""
        self.ip = 0
        self.ipsr = Psr(0)
        self.iip = 0
        self.bank = [0] * 16
        """r16 to r31 of the bank that the guest sees."""
        self.rr = [RegionRegister.of(ps=14)] * 8
        self.pkr: dict[int, int] = {}
        self.translations = Translations()
        self.resources = Resources()
        self.environment: VirtualEnvironment | None = None
        self.current: Registration | None = None
        """The virtual processor whose VPD is current."""
        self.kept = Kept()

    @property
    def vpsr(self) -> Psr:
        """The virtual PSR as the processor has it."""
        return Psr(self.field("vpsr"))

    def field(self, name: str, index: int = 0) -> int:
        """A field of the current VPD as the processor has it; 0 without one."""
        return 0 if self.current is None else self.kept.read(self.current, name, index)
