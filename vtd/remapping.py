"""What DMA remapping works on: capabilities, the latched root table, memory and caches."""

from __future__ import annotations

from dataclasses import dataclass, field

from pagetables.bits import Implementation
from pagetables.memory import TableMemory
from vtd.caches import KEEPS_STALE, CachePolicy, TranslationCaches
from vtd.capabilities import Capabilities
from vtd.registers import RootTableAddress, TranslationTableMode


@dataclass(frozen=True)
class Options:
    """Choices the architecture leaves to a unit, and the deviations of recorded ones."""

    caches: CachePolicy = KEEPS_STALE
    compress_faults: bool = False
    """Drop the fault of a requester that has a fault pending (7.2.1, step 3)."""
    keep_caches_while_disabled: bool = False
    """Where 6.6 and 6.7 leave it open, disabling translation leaves the caches alone."""
    largest_pass_through_page: bool = True
    """Pass-through translation requests are answered with the largest page that fits (4.2.3)."""
    as_recorded: bool = False
    """Follow QEMU 11.1.2 where it departs from the specification; docs/known-differences.md
    lists each departure with its section."""


@dataclass
class Remapping:
    """The state that translations depend on; the unit owns and changes it."""

    capabilities: Capabilities
    memory: TableMemory
    options: Options
    caches: TranslationCaches
    root: RootTableAddress = field(default_factory=RootTableAddress)
    """As latched by GCMD.SRTP (11.4.4.1)."""

    @property
    def implementation(self) -> Implementation:
        """What decides reserved bits, with RTADDR_REG.SSIRWE as latched."""
        plain = self.capabilities.implementation
        if not self.root.ssirwe:
            return plain
        return plain._replace(features=plain.features | {"ssirwe"})

    @property
    def mode(self) -> TranslationTableMode:
        return self.root.ttm
