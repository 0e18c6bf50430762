"""Audit of invalidations: uses of cached entries whose memory words have changed since.

VT-d 6.5.3. Every entry remembers the words that it came from. A unit that still finds an entry
after software changed one of them was not given the invalidation that software owed;
:class:`Audit` tells which word changed, which entry was used, and which invalidation was missing.
The caches are as the unit's policy makes them: ``AGGRESSIVE`` keeps most and so finds most. Left
out: device-TLBs, whose entries are not the unit's, and attributes that no access depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from devices.dma import READ, WRITE
from pagetables import first_stage, second_stage
from pagetables.memory import BusError
from pagetables.observed import AccessKind, Hook
from vtd.auditing.stale_use import (
    CacheName,
    Owner,
    StaleUse,
    Structure,
    Word,
    Words,
    missing_invalidation,
)
from vtd.auditing.watched import WatchedCache, WatchedIotlb, WatchedMemory
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.caches import ContextCacheEntry, PasidCacheEntry, StructureKey
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.reporting.events import Event, RequestBlocked
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import Request, RequestKind
from vtd.unit.translation.remapping import onlooker
from vtd.unit.translation.translate import translate
from vtd.unit.unit import RemappingUnit

HALF = (1 << 64) - 1


class Audit:
    """Watches ``unit`` from now on; entries that it holds already are not judged.

    ``on_stale`` is told of each stale use when it happens; ``findings`` keeps the first of each
    entry and word. ``uses`` counts the entries that were checked.
    """

    def __init__(
        self, unit: RemappingUnit, on_stale: Callable[[StaleUse], None] | None = None
    ) -> None:
        self.findings: list[StaleUse] = []
        self.uses = 0
        self._unit = unit
        self._on_stale = on_stale
        self._memory = unit.remapping.memory
        self._writers: dict[int, str] = {}
        self._reported: set[tuple[CacheName, Owner, Word]] = set()
        self._request: Words = {}
        self._second: Words = {}
        self._lookup: Words = {}
        self._denying: StaleUse | None = None
        self._stage = Structure.FIRST_STAGE
        self._source_id = 0
        self._watch()

    def wrote(self, address: int, length: int, writer: str) -> None:
        """Software stored ``length`` bytes; ``writer`` is how findings name the place."""
        for number in range(address >> 3, (address + length - 1 >> 3) + 1):
            self._writers[number] = writer

    def _watch(self) -> None:
        unit, caches = self._unit, self._unit.caches
        policy = unit.options.caches
        unit.remapping.memory = WatchedMemory(
            self._memory, self._read_record, self._updated, self._begin_walk
        )
        unit.interrupts.memory = WatchedMemory(
            unit.interrupts.memory, self._read_interrupt_entry, self._updated, self._begin_walk
        )
        caches.iotlb.direct = False
        caches.iotlb = WatchedIotlb(
            caches.iotlb, policy.iotlb, self._iotlb_found, lambda: self._request
        )
        caches.context = WatchedCache(caches.context, self._context_found, lambda: self._lookup)
        caches.pasid = WatchedCache(caches.pasid, self._pasid_found, lambda: self._lookup)
        caches.first_stage = WatchedCache(
            caches.first_stage, self._first_stage_found, lambda: self._request
        )
        caches.second_stage = WatchedCache(
            caches.second_stage,
            self._second_stage_found,
            lambda: {**self._table_pointer(), **self._second},
        )
        unit.interrupts.cache = WatchedCache(
            unit.interrupts.cache, self._interrupt_found, lambda: self._request
        )
        unit.subscribe(self._event)

    def _iotlb_found(
        self, kind: RequestKind, entry: IotlbEntry | None, words: Words | None
    ) -> None:
        """A translation starts; ``entry`` is what the IOTLB has for it."""
        self._denying = None
        self._request = {}
        self._second = {}
        if entry is not None and words is not None:
            source_id, _, _ = kind
            tags = entry.tags
            legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
            pasid = None if legacy else tags.pasid
            owner = Owner(source_id, tags.domain_id, pasid, entry.address, tags.kind)
            refused = entry.fault is not None or not entry.rights
            if not (refused and self._still_refused(kind, entry.address)):
                self._judge(CacheName.IOTLB, owner, words, denies=refused)

    def _still_refused(self, kind: RequestKind, address: int) -> bool:
        """Whether no access to a page is let through, as the structures are now.

        A fault that is cached under CM = 1 is stale only if mapping the page made it so; tables
        that appeared on the way to it are no change of the page (6.5.3.3).
        """
        tables = onlooker(self._unit.remapping, self._memory)
        source_id, pasid, privileged = kind
        for access in (READ, WRITE):
            with suppress(TranslationFault):
                translate(tables, Request(source_id, address, access, 1, pasid, privileged))
                return False
        return True

    def _context_found(
        self, keys: tuple[int, ...], entry: ContextCacheEntry | None, words: Words | None
    ) -> None:
        self._source_id = keys[0]
        root = self._unit.remapping.root
        pointer = Word(Structure.ROOT_POINTER, 0, 0, root, -1)
        self._lookup = {(pointer.structure, 0): pointer} if words is None else dict(words)
        self._request.update(self._lookup)
        if entry is not None and words is not None:
            owner = Owner(keys[0], entry.domain_id)
            self._judge(CacheName.CONTEXT, owner, words, denies=isinstance(entry.value, Exception))

    def _pasid_found(
        self,
        keys: tuple[tuple[int, int], ...],
        entry: PasidCacheEntry | None,
        words: Words | None,
    ) -> None:
        if entry is None or words is None:
            return
        self._lookup.update(words)
        self._request.update(words)
        source_id, pasid = keys[0]
        owner = Owner(source_id, entry.domain_id, pasid)
        self._judge(CacheName.PASID, owner, words, denies=isinstance(entry.value, Exception))

    def _first_stage_found(
        self, keys: tuple[StructureKey, ...], entry: object, words: Words | None
    ) -> None:
        self._stage = Structure.FIRST_STAGE
        self._structure_found(CacheName.FIRST_STAGE, keys, words)

    def _second_stage_found(
        self, keys: tuple[StructureKey, ...], entry: object, words: Words | None
    ) -> None:
        self._stage = Structure.SECOND_STAGE
        words = None if words is None else dict(words)
        self._structure_found(CacheName.SECOND_STAGE, keys, words)
        self._second = {} if words is None else words

    def _structure_found(
        self,
        cache: CacheName,
        keys: tuple[StructureKey, ...],
        words: Words | None,
    ) -> None:
        if words is None:
            return
        domain_id, pasid, shift, prefix = keys[0]
        owner = Owner(None, domain_id, pasid, prefix << shift)
        self._judge(cache, owner, words, denies=False)
        words.pop((Structure.TABLE_POINTER, 0), None)  # for entries of the domain, not of a request
        self._request.update(words)

    def _interrupt_found(self, keys: tuple[int, ...], entry: object, words: Words | None) -> None:
        pointer = Word(Structure.INTERRUPT_POINTER, 0, 0, self._unit.interrupts.table, -1)
        self._request = {(pointer.structure, 0): pointer}
        if words is not None:
            self._judge(CacheName.INTERRUPT, Owner(address=keys[0]), words, denies=False)

    def _table_pointer(self) -> Words:
        """Where the second stage of the current request begins, by its context or PASID entry."""
        entries = {word.structure: word for word in self._lookup.values()}
        entry = entries.get(Structure.PASID) or entries[Structure.CONTEXT]
        table = entry.value & HALF & ~0xFFF
        return {(Structure.TABLE_POINTER, 0): Word(Structure.TABLE_POINTER, 0, 0, table, -1)}

    def _read_record(self, address: int, size: int, value: int) -> None:
        """A root, context or PASID structure that the unit read for the current request."""
        structure, mask = _RECORDS[size], -1
        scalable = self._unit.remapping.mode is not TranslationTableMode.LEGACY
        if size == 16 and not any(key[0] is Structure.ROOT for key in self._lookup):
            structure = Structure.ROOT
            if scalable:  # 9.2: the halves are independent
                mask = HALF << 64 if self._source_id & 0x80 else HALF
        word = Word(structure, address, size, value, mask)
        self._lookup.setdefault((structure, address), word)
        self._request.setdefault((structure, address), word)

    def _begin_walk(self) -> Hook:
        """A walk, or the read of one first-stage entry of a guest, begins; who notes its words."""
        structure, self._stage = self._stage, Structure.FIRST_STAGE
        mask = HALF & ~_IGNORED[structure]

        def read(_: AccessKind, address: int, size: int, value: int) -> None:
            word = Word(structure, address, size, value, mask)
            self._request.setdefault((structure, address), word)
            if structure is Structure.SECOND_STAGE:
                self._second.setdefault((structure, address), word)

        return read

    def _read_interrupt_entry(self, address: int, size: int, value: int) -> None:
        if size == 16:
            word = Word(Structure.INTERRUPT_ENTRY, address, size, value, -1)
            self._request[word.structure, address] = word

    def _updated(self, address: int, value: int) -> None:
        """The unit set a flag in an entry itself."""
        for words in (self._request, self._second):
            for structure in (Structure.FIRST_STAGE, Structure.SECOND_STAGE):
                word = words.get((structure, address))
                if word is not None:
                    words[structure, address] = word._replace(value=value)

    def _judge(self, cache: CacheName, owner: Owner, words: Words, *, denies: bool) -> None:
        self.uses += 1
        for word in words.values():
            now = self._current(word)
            change = word.mask if now is None else (now ^ word.value) & word.mask
            change &= ~(_DIRTY.get(word.structure, 0) & (now or 0))  # set, perhaps by the unit
            if not change:
                continue
            use = self._describe(cache, owner, word, now)
            if denies or now is None or not _only_more_rights(word.structure, change, now):
                self._report(use)
            elif self._unit.options.caches.trust_cached_rights:
                self._denying = use

    def _current(self, word: Word) -> int | None:
        if word.structure is Structure.ROOT_POINTER:
            return self._unit.remapping.root
        if word.structure is Structure.INTERRUPT_POINTER:
            return self._unit.interrupts.table
        if word.structure is Structure.TABLE_POINTER:
            (pointer,) = self._table_pointer().values()
            return pointer.value
        try:
            return self._memory.read_record(word.address, word.size)
        except BusError:
            return None

    def _describe(self, cache: CacheName, owner: Owner, word: Word, now: int | None) -> StaleUse:
        missing, section = missing_invalidation(cache, owner, word, now)
        numbers = range(word.address >> 3, (word.address + max(word.size, 1) - 1 >> 3) + 1)
        writers = [self._writers[number] for number in numbers if number in self._writers]
        writer = writers[-1] if writers and word.size else None
        return StaleUse(cache, owner, word, now, writer, missing, section)

    def _report(self, use: StaleUse) -> None:
        if self._on_stale is not None:
            self._on_stale(use)
        seen = use.cache, use.owner, use.changed
        if seen not in self._reported:
            self._reported.add(seen)
            self.findings.append(use)

    def _event(self, event: Event) -> None:
        """A right that software has granted since is denied from the cache: that counts too."""
        denied = isinstance(event, RequestBlocked) and event.reason in _DENIALS
        if denied and self._denying is not None:
            self._report(self._denying)
            self._denying = None


_RECORDS = {
    8: Structure.PASID_DIRECTORY,
    16: Structure.CONTEXT,
    32: Structure.CONTEXT,
    64: Structure.PASID,
}
_DENIALS = (
    FaultReason.READ_DENIED,
    FaultReason.WRITE_DENIED,
    FaultReason.SM_READ_DENIED,
    FaultReason.SM_WRITE_DENIED,
    FaultReason.USER_DENIED,
)
_IGNORED = {
    # Accessed flags are the unit's to set and do no harm when stale; G is treated as 0 (9.7).
    Structure.FIRST_STAGE: first_stage.FirstStagePage4K.ign_63_52.mask
    | first_stage.FirstStagePage4K.ign_9.mask
    | first_stage.FirstStagePage4K.ign_11.mask
    | first_stage.FirstStagePage4K.g.mask
    | first_stage.ACCESSED
    | first_stage.EXTENDED_ACCESSED,
    Structure.SECOND_STAGE: second_stage.SecondStagePage4K.ign_60_52.mask
    | second_stage.SecondStagePage4K.ign_63.mask
    | second_stage.SecondStagePage4K.ign_10.mask
    | second_stage.SecondStagePage4K.ign_2.mask
    | second_stage.ACCESSED,
}
_GRANTS = {
    # 6.5.3.5: setting these without an invalidation costs at most a fault.
    Structure.FIRST_STAGE: first_stage.WRITE | first_stage.USER,
    Structure.SECOND_STAGE: second_stage.READ
    | second_stage.WRITE
    | second_stage.IO_READ
    | second_stage.IO_WRITE,
}
_DIRTY = {
    Structure.FIRST_STAGE: first_stage.DIRTY,
    Structure.SECOND_STAGE: second_stage.DIRTY,
}


def _only_more_rights(structure: Structure, change: int, now: int) -> bool:
    """Whether the change only set rights and flags that were clear."""
    grants = _GRANTS.get(structure, 0)
    return not change & ~grants and now & change == change
