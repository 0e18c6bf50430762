"""The DMA-remapping caches of a unit, and what each invalidation removes from them.

VT-d 6.2 and 6.5.2: context and PASID cache, IOTLB, paging-structure caches, with the tags of
Table 17. What may be kept is the policy's choice within 6.1 and 6.2.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pagetables.geometry import PAGE_SHIFT
from pagetables.walk import WalkRule
from vtd.layouts.entries import PasidTranslationType, ScalableContextEntry
from vtd.unit.caching.cache import Cache
from vtd.unit.caching.iotlb import END, Iotlb, canonical_range
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.requests.target import IotlbTags, Target
from vtd.unit.state import Stateful


class ContextCacheEntry(NamedTuple):
    """What the context cache holds for a source-id (Table 17)."""

    domain_id: int | None
    """Legacy mode only; 0 for what faulted."""
    value: Target | ScalableContextEntry | TranslationFault


class PasidCacheEntry(NamedTuple):
    """What the PASID cache holds for a source-id and PASID."""

    domain_id: int
    value: Target | TranslationFault


StructureKey = tuple[int, int | None, int, int]
"""Domain-id, PASID (None in the second stage), shift of the level, address bits above it."""


@dataclass(frozen=True, slots=True)
class StructureEntry:
    """A table that a walk reached, so that the next one starts there (6.2.5)."""

    shift: int
    """Level of the entry that points to it."""
    frame: int
    """Where the table is; under nested translation, where the guest has it."""
    rights: int
    width: int
    """As for :class:`IotlbTags` (Table 19, 6.2.5.2)."""
    host: int | None = None
    """Nested: the frame that the second stage made of ``frame``."""
    refused: WalkRule | None = None
    """Why there is no table, for an entry cached under CM = 1 that faulted (6.2.5.5)."""


class HostPermission(NamedTuple):
    """What a translated request may do in a page, by a host permission table (6.2.6)."""

    domain_id: int
    """HPTDID."""
    level: int
    """Of the entry that says so: 1 to 3."""
    permissions: int
    """READ and WRITE."""
    fpd: bool
    """Whether faults are not to be recorded, by FPD of an entry that led here (7.1.1)."""


HostPermissionKey = tuple[int, int | None, int]
"""Source-id, PASID of the request, page number."""
HostTableKey = tuple[int, int, int]
"""HPT domain-id, level of the entry, address bits that select it."""
HOST_TABLE_SHIFTS = {4: 41, 3: 33, 2: 25}
"""log2 of what a host permission entry covers, by level, of those that lead to a table."""


class Lookups(dict[RequestKind, tuple[Target, bool]]):
    """What context and PASID cache amount to for a kind of request: tables and privilege."""

    epoch = 0
    """How often that was forgotten."""

    def clear(self) -> None:
        """Forget it: an entry that something may depend on has gone."""
        super().clear()
        self.epoch += 1


class TranslationCaches(Stateful):
    """The DMA-remapping caches of one unit, and what each invalidation removes from them."""

    STATE = (
        "context",
        "pasid",
        "iotlb",
        "first_stage",
        "second_stage",
        "host_permissions",
        "host_tables",
    )

    def __init__(self, policy: CachePolicy) -> None:
        self.policy = policy
        self.lookups = Lookups()
        self.context: Cache[int, ContextCacheEntry] = Cache(policy.context, int, self.lookups)
        self.pasid: Cache[tuple[int, int], PasidCacheEntry] = Cache(policy.pasid, sum, self.lookups)
        self.iotlb = Iotlb(policy.iotlb)
        self.first_stage: Cache[StructureKey, StructureEntry] = Cache(
            policy.paging_structure, prefix_of
        )
        self.second_stage: Cache[StructureKey, StructureEntry] = Cache(
            policy.paging_structure, prefix_of
        )

        self.host_permissions: Cache[HostPermissionKey, HostPermission] = Cache(
            policy.host_permission, _page
        )
        self.host_tables: Cache[HostTableKey, int] = Cache(policy.host_permission, _page)

    def clear(self) -> None:
        """Global invalidation of every cache (6.6)."""
        self.invalidate_host_permissions_global()
        self.invalidate_context_global()
        self.invalidate_pasid_global()
        self.invalidate_iotlb_global()

    def forget_context(self, source_id: int) -> None:
        """Drop the context entry of a source-id, which turned out to be invalid (6.2.2)."""
        self.context.drop(source_id)

    def invalidate_context_global(self) -> None:
        """6.5.2.1, G = 01b."""
        self.context.clear()

    def invalidate_context_domain(self, domain_id: int) -> None:
        """6.5.2.1, G = 10b; global where entries have no domain-id, in scalable mode."""
        self.context.remove(lambda _, entry: entry.domain_id in (None, domain_id))

    def invalidate_context_device(self, source_id: int, function_mask: int, domain_id: int) -> None:
        """6.5.2.1, G = 11b, with ``function_mask`` low function bits left out."""
        kept = 0xFFFF & ~FUNCTION_MASKS[function_mask]
        self.context.remove(
            lambda key, entry: (
                key & kept == source_id & kept and entry.domain_id in (None, domain_id)
            )
        )

    def invalidate_pasid_global(self) -> None:
        """6.5.2.2, G = 11b."""
        self.pasid.clear()

    def invalidate_pasid_domain(self, domain_id: int) -> None:
        """6.5.2.2, G = 00b."""
        self.pasid.remove(lambda _, entry: entry.domain_id == domain_id)

    def invalidate_pasid(self, domain_id: int, pasid: int) -> None:
        """6.5.2.2, G = 01b."""
        self.pasid.remove(lambda key, entry: key[1] == pasid and entry.domain_id == domain_id)

    def invalidate_iotlb_global(self) -> None:
        """Table 23, G = 01b."""
        self.iotlb.clear()
        self.first_stage.clear()
        self.second_stage.clear()

    def invalidate_iotlb_domain(self, domain_id: int) -> None:
        """Table 23, G = 10b."""
        self.iotlb.remove(domain_id)
        self.first_stage.remove(lambda key, _: key[0] == domain_id)
        self.second_stage.remove(lambda key, _: key[0] == domain_id)

    def invalidate_iotlb_pages(self, domain_id: int, start: int, end: int, *, hint: bool) -> None:
        """Table 23, G = 11b: addresses from ``start`` up to ``end``; ``hint`` is IH."""

        self.iotlb.remove(domain_id, _uses_first_stage)
        self.iotlb.remove(domain_id, _uses_no_first_stage, start, end)
        if len(self.first_stage):
            self.first_stage.remove(lambda key, _: key[0] == domain_id)
        if not hint:
            _remove_tables(self.second_stage, (domain_id, None), start, end)

    def invalidate_pasid_iotlb(self, domain_id: int, pasid: int) -> None:
        """Table 24, G = 10b."""
        self.iotlb.remove(domain_id, lambda tags: tags.pasid == pasid)
        self.first_stage.remove(lambda key, _: key[:2] == (domain_id, pasid))

    def invalidate_pasid_iotlb_pages(
        self, domain_id: int, pasid: int, start: int, end: int, *, hint: bool
    ) -> None:
        """Table 24, G = 11b: addresses from ``start`` up to ``end``; ``hint`` is IH."""

        def matches(tags: IotlbTags) -> bool:
            return tags.pasid == pasid and _uses_first_stage(tags)

        self.iotlb.remove(domain_id, matches, start, end)
        if not hint:
            _remove_tables(self.first_stage, (domain_id, pasid), start, end)

    def invalidate_host_permissions_global(self) -> None:
        """6.5.2.7, G = 01b."""
        self.host_permissions.clear()
        self.host_tables.clear()

    def invalidate_host_permissions(
        self, domain_id: int, highest: int, start: int = 0, end: int = END
    ) -> None:
        """6.5.2.7, G = 10b and 11b: what came from entries up to level ``highest``, in a range."""
        self.host_permissions.remove(
            lambda key, entry: (
                entry.domain_id == domain_id
                and entry.level <= highest
                and start <= key[2] << PAGE_SHIFT < end
            )
        )

        def covers(key: HostTableKey, _: int) -> bool:
            owner, level, prefix = key
            shift = HOST_TABLE_SHIFTS[level]
            inside = prefix << shift < end and start < prefix + 1 << shift
            return owner == domain_id and level <= highest and inside

        self.host_tables.remove(covers)


FUNCTION_MASKS = (0b000, 0b100, 0b110, 0b111)
"""Source-id bits that the FM field leaves out of the comparison (6.5.2.1)."""

FIRST_STAGE_KINDS = (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED)


LOWEST_TABLE_SHIFT = 21
"""log2 of what the smallest table translates, and so of the reach of the lowest level's entry."""


def _uses_first_stage(tags: IotlbTags) -> bool:
    return tags.kind in FIRST_STAGE_KINDS


def _uses_no_first_stage(tags: IotlbTags) -> bool:
    return tags.kind not in FIRST_STAGE_KINDS


def _page(key: HostPermissionKey | HostTableKey) -> int:
    return key[2]


def prefix_of(key: StructureKey) -> int:
    return key[3]


def _remove_tables(
    cache: Cache[StructureKey, StructureEntry], tags: tuple[int, int | None], start: int, end: int
) -> None:
    """Drop the entries whose tables translate addresses in the range, by key where that is less."""
    if not len(cache):
        return
    tables = (end - start >> LOWEST_TABLE_SHIFT) + 1
    if tables * len(TABLE_SHIFTS) < len(cache):
        for width in ADDRESS_WIDTHS:
            first, last = canonical_range(start, end, width)
            for shift in TABLE_SHIFTS:
                for prefix in range(first >> shift, (last - 1 >> shift) + 1):
                    key = (*tags, shift, prefix)
                    entry = cache.peek(key)
                    if entry is not None and entry.width == width:
                        cache.drop(key)
        return
    cache.remove(lambda key, entry: key[:2] == tags and _covers(key, entry, start, end))


TABLE_SHIFTS = (21, 30, 39, 48)
ADDRESS_WIDTHS = (48, 57, 64)
"""Widths of first-stage addresses, and 64 for the second stage (:attr:`StructureEntry.width`)."""


def _covers(key: StructureKey, entry: StructureEntry, start: int, end: int) -> bool:
    """Whether the table of a paging-structure entry translates addresses in the range."""
    _, _, shift, prefix = key
    start, end = canonical_range(start, end, entry.width)
    return prefix << shift < end and start < prefix + 1 << shift
