"""What DMA remapping works on: capabilities, the latched root table, memory and caches."""

from __future__ import annotations

from dataclasses import replace

from pagetables.bits import BitRecord
from pagetables.memory import TableMemory
from pagetables.stores import UnsnoopedMemory
from pagetables.unchanged import UnchangedMemory
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import GlobalStatus, RootTableAddress, TranslationTableMode
from vtd.unit.caching.caches import TranslationCaches
from vtd.unit.caching.policy import UNCACHED
from vtd.unit.observer import Observer
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.requests.faults import FaultReason
from vtd.unit.requests.target import Target
from vtd.unit.state import Stateful
from vtd.unit.translation import rules


class Remapping(Stateful):
    """The state that translations depend on; the unit owns and changes it."""

    STATE = "root", "new_root", "caches", "passed", "pasid_entries"

    def __init__(
        self,
        capabilities: Capabilities,
        memory: TableMemory,
        options: Options,
        caches: TranslationCaches,
    ) -> None:
        self.capabilities = capabilities
        self.memory = memory
        self.snooped = memory.snooped if isinstance(memory, UnsnoopedMemory) else memory
        """Where accesses go that are always snooped (11.4.3, C)."""
        self.options = options
        self.caches = caches
        self.domain_ids = (1 << capabilities.did_width) - 1
        """The bits that domain-ids have."""
        self.guest_addresses = (1 << capabilities.max_guest_address_width) - 1
        """The bits that input addresses of the second stage have at most: MGAW."""
        self.observer: Observer | None = None
        """Who watches the road of requests, if anybody does."""
        self.keeps_faults = options.caches.cache_faults and "cm" in capabilities.features
        """Whether what faulted is kept too: CAP.CM = 1 and a policy that does it (6.1)."""
        self.fractures = options.caches.fractured
        self.records: dict[tuple[type[BitRecord], int], BitRecord] = {}
        """Structures as they were read, so that the fields of none are taken apart twice."""
        self.targets: dict[tuple[int, int, bool], Target] = {}
        """What context and PASID table entries come to, so that none is decoded twice."""
        self.passed: set[int] = set()
        """Of a unit that keeps devices passed through: their source-ids."""
        self.pasid_entries: dict[int, int] = {}
        """Of the same: what it knows of each device, to see what changed."""
        self.new_root: RootTableAddress | None = None
        """What SRTP has set, while the old one is still in use (6.6)."""
        self.root = RootTableAddress()

    def set_root(self, latched: RootTableAddress, status: GlobalStatus) -> None:
        """SRTP: from now on, or by policy in a running unit from the global invalidation on."""
        only_moved = not (latched ^ self.root) & ~RootTableAddress.rta.mask
        delayed = self.options.caches.old_pointers and "esrtps" not in self.capabilities.features
        self.new_root = latched
        if not (delayed and status.tes and status.rtps and only_moved):
            self.use_new_root()

    def use_new_root(self) -> None:
        """The root table that was set last is the one in use."""
        if self.new_root is not None:
            self.root, self.new_root = self.new_root, None

    @property
    def root(self) -> RootTableAddress:
        """RTADDR_REG as latched by GCMD.SRTP (11.4.4.1)."""
        return self._root

    @root.setter
    def root(self, latched: RootTableAddress) -> None:
        self._root = latched
        self.root_table = latched.rta
        """Where the root table is."""
        self.mode = latched.ttm
        self.mode_known = self._known(latched.ttm)
        """Whether the unit has this mode."""
        self.mode_fault = self._judge(latched)
        plain = self.capabilities.implementation
        features = plain.features | ({"ssirwe"} if latched.ssirwe else set())
        self.implementation = plain._replace(features=features)
        """What decides reserved bits, with SSIRWE as latched."""
        self.reserved = {
            record: rules.reserved_bits(self.options.departures, record, self.implementation)
            for record in (
                RootEntry,
                ContextEntry,
                ScalableRootEntry,
                ScalableContextEntry,
                PasidDirectoryEntry,
            )
        }
        """The bits of structures that have to be 0."""
        self.targets.clear()
        self.caches.lookups.clear()

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
