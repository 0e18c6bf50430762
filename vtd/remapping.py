"""What DMA remapping works on: capabilities, the latched root table, memory and caches."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pagetables.memory import TableMemory
from pagetables.observed import UnchangedMemory
from vtd.caches import KEEPS_STALE, UNCACHED, CachePolicy, TranslationCaches
from vtd.capabilities import Capabilities
from vtd.faults import FaultReason
from vtd.registers import RootTableAddress, TranslationTableMode
from vtd.state import Stateful


@dataclass(frozen=True)
class Options:
    """Choices the architecture leaves to a unit, and the deviations of recorded ones."""

    caches: CachePolicy = KEEPS_STALE
    compress_faults: bool = False
    """Drop the fault of a requester that has a fault pending (7.2.1, step 3)."""
    largest_pass_through_page: bool = True
    """Pass-through translation requests are answered with the largest page that fits (4.2.3)."""
    itags: int = 32
    """Invalidation requests that may be on their way to device-TLBs at a time."""
    as_recorded: bool = False
    """Follow QEMU 11.1.2 where it departs from the specification; docs/known-differences.md
    lists each departure with its section."""


class Remapping(Stateful):
    """The state that translations depend on; the unit owns and changes it."""

    STATE = "root", "caches"

    def __init__(
        self,
        capabilities: Capabilities,
        memory: TableMemory,
        options: Options,
        caches: TranslationCaches,
    ) -> None:
        self.capabilities = capabilities
        self.memory = memory
        self.options = options
        self.caches = caches
        self.root = RootTableAddress(0)

    @property
    def root(self) -> RootTableAddress:
        """RTADDR_REG as latched by GCMD.SRTP (11.4.4.1)."""
        return self._root

    @root.setter
    def root(self, latched: RootTableAddress) -> None:
        self._root = latched
        self.mode = latched.ttm
        self.mode_known = self._known(latched.ttm)
        """Whether the unit has this mode."""
        self.mode_fault = self._judge(latched)
        plain = self.capabilities.implementation
        features = plain.features | ({"ssirwe"} if latched.ssirwe else set())
        self.implementation = plain._replace(features=features)
        """What decides reserved bits, with SSIRWE as latched."""

    def _known(self, mode: TranslationTableMode) -> bool:
        features = self.capabilities.features
        return {
            TranslationTableMode.LEGACY: True,
            TranslationTableMode.SCALABLE: "smts" in features,
            TranslationTableMode.RESERVED_2: False,
            TranslationTableMode.ABORT_DMA: "adms" in features,
        }[mode]

    def _judge(self, root: RootTableAddress) -> FaultReason | None:
        """What requests meet under this root table pointer (RTA.1, RTA.4)."""
        if not self._known(root.ttm) or (root.ttm is TranslationTableMode.LEGACY and root.ssirwe):
            return FaultReason.MODE_INVALID
        abort = root.ttm is TranslationTableMode.ABORT_DMA
        return FaultReason.ABORT_DMA if abort else None


def onlooker(remapping: Remapping, memory: TableMemory | None = None) -> Remapping:
    """The same tables seen without caches, and by someone who changes nothing.

    ``memory`` is where to look instead of the memory of ``remapping``.
    """
    observer = Remapping(
        remapping.capabilities,
        UnchangedMemory(memory or remapping.memory),
        replace(remapping.options, caches=UNCACHED),
        TranslationCaches(UNCACHED),
    )
    observer.root = remapping.root
    return observer
