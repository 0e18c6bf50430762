"""Translation caches with the tags of the architecture: context, PASID, IOTLB, paging structures.

VT-d 6.2. Each cache may have any shape: off, unbounded, or sets and ways with a replacement; what
may be kept is the policy's choice within 6.1 and 6.2.4. What an invalidation removes: 6.5.2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from vtd.entries import PasidTranslationType, ScalableContextEntry
from vtd.faults import TranslationFault
from vtd.target import Target

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Replacement(Enum):
    """Which way of a full set makes room."""

    LRU = "lru"
    FIFO = "fifo"
    RANDOM = "random"


@dataclass(frozen=True)
class Shape:
    """Size and replacement of a cache; ``ways`` 0 is off, None unbounded."""

    ways: int | None = None
    sets: int = 1
    replacement: Replacement = Replacement.LRU
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sets < 1 or (self.ways is not None and self.ways < 0):
            raise ValueError(f"cache shape: {self.sets} sets of {self.ways} ways")


OFF = Shape(ways=0)
UNBOUNDED = Shape()


@dataclass
class Counters:
    """What a cache did since the counters were made."""

    hits: int = 0
    misses: int = 0
    insertions: int = 0
    evictions: int = 0
    invalidated: int = 0


class Cache(Generic[K, V]):
    """Entries by key, in sets; the first entry of a set is the next to be replaced."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.counters = Counters()
        self._sets: list[dict[K, V]] = [{} for _ in range(shape.sets)]
        self._refresh = shape.ways is not None and shape.replacement is Replacement.LRU
        self._random = random.Random(shape.seed)

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for entries in self._sets:
            yield from entries.items()

    def find(self, *keys: K) -> V | None:
        """The entry of the first key that has one, now the most recently used; counts once."""
        for key in keys:
            entries = self._sets[hash(key) % len(self._sets)]
            entry = entries.get(key)
            if entry is not None:
                self.counters.hits += 1
                if self._refresh:
                    entries[key] = entries.pop(key)
                return entry
        self.counters.misses += 1
        return None

    def put(self, key: K, entry: V) -> None:
        """Keep an entry, if the shape has room for any; a full set loses one first."""
        ways = self.shape.ways
        if ways == 0:
            return
        entries = self._sets[hash(key) % len(self._sets)]
        if ways is not None and len(entries) >= ways and key not in entries:
            victim = next(iter(entries))
            if self.shape.replacement is Replacement.RANDOM:
                victim = self._random.choice(list(entries))
            del entries[victim]
            self.counters.evictions += 1
        entries[key] = entry
        self.counters.insertions += 1

    def remove(self, matches: Callable[[K, V], bool]) -> int:
        """Invalidate the entries that match; returns how many there were."""
        count = 0
        for entries in self._sets:
            doomed = [key for key, entry in entries.items() if matches(key, entry)]
            for key in doomed:
                del entries[key]
            count += len(doomed)
        self.counters.invalidated += count
        return count

    def clear(self) -> int:
        """Invalidate everything; returns how many entries there were."""
        count = len(self)
        for entries in self._sets:
            entries.clear()
        self.counters.invalidated += count
        return count


@dataclass(frozen=True)
class CachePolicy:
    """What a unit caches, of what the architecture lets it cache."""

    context: Shape = UNBOUNDED
    pasid: Shape = UNBOUNDED
    iotlb: Shape = UNBOUNDED
    paging_structure: Shape = OFF
    interrupt: Shape = UNBOUNDED
    cache_faults: bool = False
    """Under CAP.CM = 1, keep what faulted too (6.1)."""
    trust_cached_rights: bool = False
    """A cached right that is missing denies the request; without this the tables are read again."""


KEEPS_STALE = CachePolicy()
"""Everything but paging structures is kept until an invalidation that covers it."""
AGGRESSIVE = CachePolicy(paging_structure=UNBOUNDED, cache_faults=True, trust_cached_rights=True)
"""All that 6.1 and 6.2.4 permit: a missing invalidation is caught instead of hidden."""
UNCACHED = CachePolicy(OFF, OFF, OFF, OFF, OFF)
POLICIES = {"default": KEEPS_STALE, "aggressive": AGGRESSIVE, "off": UNCACHED}


class ContextCacheEntry(NamedTuple):
    """What the context cache holds for a source-id (Table 17)."""

    domain_id: int | None
    """Legacy mode only; 0 for what faulted."""
    value: Target | ScalableContextEntry | TranslationFault


class PasidCacheEntry(NamedTuple):
    """What the PASID cache holds for a source-id and PASID."""

    domain_id: int
    value: Target | TranslationFault


class IotlbEntry(NamedTuple):
    """A translation, with the tags that invalidations match (Table 17)."""

    domain_id: int
    kind: PasidTranslationType
    pasid: int
    """The PASID whose tables were used: RID_PASID for requests without PASID, 0 in legacy mode."""
    address: int
    """Start of the input page."""
    shift: int
    """log2 of the page size."""
    physical: int
    """Start of the output page."""
    rights: int
    """READ and WRITE as far as a request may use them without a flag update."""
    snoop: bool
    """Whether the access is forced to be snooped (3.10)."""
    fault: TranslationFault | None = None
    """What the request met, for a faulting result cached under CM = 1."""

    def overlaps(self, start: int, end: int) -> bool:
        """Whether the input page has addresses from ``start`` up to ``end``."""
        return self.address < end and start < self.address + (1 << self.shift)


IotlbKey = tuple[int, int | None, bool, int, int]
"""Source-id, PASID of the request, privileged mode, shift, page number."""

Pages = tuple[dict[int, int], ...]
"""Output pages by 4 KiB input page number, by the access they allow."""


class Iotlb:
    """The IOTLB, with an index by 4 KiB page that answers repeated hits in one step.

    The index holds nothing that the cache does not: any removal empties it.
    """

    def __init__(self, shape: Shape) -> None:
        self.cache: Cache[IotlbKey, IotlbEntry] = Cache(shape)
        self.counters = self.cache.counters
        self.indexed = shape.ways is None
        """Whether repeated hits go through the index: not where their order decides evictions."""
        self._shifts: tuple[int, ...] = ()
        self._pages: dict[tuple[int, int | None, bool], Pages] = {}

    def pages(self, source_id: int, pasid: int | None, privileged: bool) -> Pages:
        """The index of one kind of request; emptied in place, so a port may keep it."""
        return self._pages.setdefault((source_id, pasid, privileged), ({}, {}, {}, {}))

    def find(
        self, source_id: int, pasid: int | None, privileged: bool, address: int
    ) -> IotlbEntry | None:
        """The entry that covers ``address``; counts one hit or one miss."""
        return self.cache.find(
            *((source_id, pasid, privileged, shift, address >> shift) for shift in self._shifts)
        )

    def insert(
        self, source_id: int, pasid: int | None, privileged: bool, entry: IotlbEntry
    ) -> None:
        """Keep a translation."""
        if entry.shift not in self._shifts:
            self._shifts = tuple(sorted((*self._shifts, entry.shift)))
        evictions = self.counters.evictions
        key = source_id, pasid, privileged, entry.shift, entry.address >> entry.shift
        self.cache.put(key, entry)
        if self.counters.evictions != evictions:
            self.forget_pages()

    def index(self, pages: Pages, address: int, entry: IotlbEntry) -> None:
        """Let further accesses to the 4 KiB page of ``address`` be answered by the index."""
        if not self.indexed:
            return
        offset = address & (1 << entry.shift) - 1 & -0x1000
        for access in (1, 2, 3):
            if entry.rights & access == access:
                pages[access][address >> 12] = entry.physical | offset

    def remove(self, matches: Callable[[IotlbKey, IotlbEntry], bool]) -> int:
        """Invalidate the entries that match."""
        self.forget_pages()
        return self.cache.remove(matches)

    def clear(self) -> int:
        """Invalidate everything."""
        self.forget_pages()
        self._shifts = ()
        return self.cache.clear()

    def forget_pages(self) -> None:
        """Empty the index, so that the next access of each page goes through the cache."""
        for pages in self._pages.values():
            for page in pages:
                page.clear()


StructureKey = tuple[int, int | None, int, int]
"""Domain-id, PASID (None in the second stage), shift of the level, address bits above it."""


class StructureEntry(NamedTuple):
    """A table that a walk reached, so that the next one starts there (6.2.5)."""

    done: int
    """Levels that need no reading any more."""
    frame: int
    rights: int


class TranslationCaches:
    """The DMA-remapping caches of one unit, and what each invalidation removes from them."""

    def __init__(self, policy: CachePolicy) -> None:
        self.policy = policy
        self.context: Cache[int, ContextCacheEntry] = Cache(policy.context)
        self.pasid: Cache[tuple[int, int], PasidCacheEntry] = Cache(policy.pasid)
        self.iotlb = Iotlb(policy.iotlb)
        self.first_stage: Cache[StructureKey, StructureEntry] = Cache(policy.paging_structure)
        self.second_stage: Cache[StructureKey, StructureEntry] = Cache(policy.paging_structure)

    def clear(self) -> None:
        """Global invalidation of every cache (6.6)."""
        self.context.clear()
        self.pasid.clear()
        self.invalidate_iotlb_global()

    def invalidate_context_domain(self, domain_id: int) -> None:
        """Domain-selective; global where entries have no domain-id, in scalable mode (6.5.2.1)."""
        self.context.remove(lambda _, entry: entry.domain_id in (None, domain_id))

    def invalidate_context_device(self, source_id: int, function_mask: int, domain_id: int) -> None:
        """Device-selective, with ``function_mask`` low function bits left out (6.5.2.1)."""
        kept = 0xFFFF & ~FUNCTION_MASKS[function_mask]
        self.context.remove(
            lambda key, entry: (
                key & kept == source_id & kept and entry.domain_id in (None, domain_id)
            )
        )

    def invalidate_pasid_domain(self, domain_id: int) -> None:
        """Domain-selective (6.5.2.2)."""
        self.pasid.remove(lambda _, entry: entry.domain_id == domain_id)

    def invalidate_pasid(self, domain_id: int, pasid: int) -> None:
        """PASID-selective within a domain (6.5.2.2)."""
        self.pasid.remove(lambda key, entry: key[1] == pasid and entry.domain_id == domain_id)

    def invalidate_iotlb_global(self) -> None:
        """Table 23, G = 01b."""
        self.iotlb.clear()
        self.first_stage.clear()
        self.second_stage.clear()

    def invalidate_iotlb_domain(self, domain_id: int) -> None:
        """Table 23, G = 10b."""
        self.iotlb.remove(lambda _, entry: entry.domain_id == domain_id)
        self.first_stage.remove(lambda key, _: key[0] == domain_id)
        self.second_stage.remove(lambda key, _: key[0] == domain_id)

    def invalidate_iotlb_pages(self, domain_id: int, start: int, end: int, *, hint: bool) -> None:
        """Table 23, G = 11b: addresses from ``start`` up to ``end``; ``hint`` is IH."""
        self.iotlb.remove(
            lambda _, entry: (
                entry.domain_id == domain_id
                and (entry.kind in FIRST_STAGE_KINDS or entry.overlaps(start, end))
            )
        )
        self.first_stage.remove(lambda key, _: key[0] == domain_id)
        if not hint:
            self.second_stage.remove(
                lambda key, _: key[0] == domain_id and _covers(key, start, end)
            )

    def invalidate_pasid_iotlb(self, domain_id: int, pasid: int) -> None:
        """Table 24, G = 10b."""
        self.iotlb.remove(lambda _, entry: entry.domain_id == domain_id and entry.pasid == pasid)
        self.first_stage.remove(lambda key, _: key[0] == domain_id and key[1] == pasid)

    def invalidate_pasid_iotlb_pages(
        self, domain_id: int, pasid: int, start: int, end: int, *, hint: bool
    ) -> None:
        """Table 24, G = 11b: addresses from ``start`` up to ``end``; ``hint`` is IH."""
        self.iotlb.remove(
            lambda _, entry: (
                entry.domain_id == domain_id
                and entry.pasid == pasid
                and entry.kind in FIRST_STAGE_KINDS
                and entry.overlaps(start, end)
            )
        )
        if not hint:
            self.first_stage.remove(
                lambda key, _: key[0] == domain_id and key[1] == pasid and _covers(key, start, end)
            )


FUNCTION_MASKS = (0b000, 0b100, 0b110, 0b111)
"""Source-id bits that the FM field leaves out of the comparison (6.5.2.1)."""

FIRST_STAGE_KINDS = (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED)


def _covers(key: StructureKey, start: int, end: int) -> bool:
    """Whether the table of a paging-structure entry translates addresses in the range."""
    _, _, shift, prefix = key
    return prefix << shift < end and start < prefix + 1 << shift
