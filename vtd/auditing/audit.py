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
from typing import Any

from devices.dma import READ, WRITE, Request
from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord
from pagetables.memory import BusError
from pagetables.observer import Structure
from vtd.auditing.stale_use import (
    Origin,
    Owner,
    Pointer,
    StaleUse,
    Word,
    Words,
    missing_invalidation,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.caches import ContextCacheEntry, PasidCacheEntry, StructureKey
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import CacheName, Observer
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.translation.remapping import onlooker
from vtd.unit.translation.translate import translate
from vtd.unit.unit import RemappingUnit

HALF = (1 << 64) - 1
PRUNED_ABOVE = 65536
"""How many entries may be remembered before those that are in no cache any more are forgotten."""


class Audit(Observer):
    """Watches ``unit`` from now on, until :meth:`detach`; what it holds already is not judged.

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
        self._words: dict[tuple[CacheName, Any], Words] = {}
        """What the cached entries came from."""
        self._request: Words = {}
        self._second: Words = {}
        self._lookup: Words = {}
        self._denying: StaleUse | None = None
        self._source_id = 0
        unit.observe(self)

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._unit.ignore(self)

    def wrote(self, address: int, length: int, writer: str) -> None:
        """Software stored ``length`` bytes; ``writer`` is how findings name the place."""
        for number in range(address >> 3, (address + length - 1 >> 3) + 1):
            self._writers[number] = writer

    def begin(self, request: Request) -> None:
        """A new request: nothing is known of where it goes."""
        self._source_id = request.source_id
        self._request, self._second, self._lookup = {}, {}, {}
        self._denying = None

    def asked(self, cache: CacheName, key: Any, entry: Any) -> None:
        """Judge an entry that is used, and know what it came from."""
        match cache:
            case CacheName.IOTLB:
                self._iotlb_used(key[0], entry)
            case CacheName.CONTEXT:
                self._context_used(key, entry)
            case CacheName.PASID:
                self._pasid_used(key, entry)
            case CacheName.INTERRUPT:
                self._interrupt_used(key)
            case _:
                self._structure_used(cache, key)

    def kept(self, cache: CacheName, key: Any, entry: Any) -> None:
        """A new entry comes from what has been read for it."""
        match cache:
            case CacheName.CONTEXT | CacheName.PASID:
                words = self._lookup
            case CacheName.SECOND_STAGE:
                words = {**self._table_pointer(), **self._second}
            case _:
                words = self._request
        if cache is CacheName.IOTLB:
            key = key[0], entry.shift, entry.address
        self._words[cache, key] = dict(words)

    def invalidated(self, command: BitRecord) -> None:
        """Entries have gone; now and then what they came from is forgotten too."""
        if len(self._words) <= PRUNED_ABOVE:
            return
        caches = self._unit.caches
        present = {
            *((CacheName.IOTLB, (kind, each.shift, each.address)) for kind, each in caches.iotlb),
            *((CacheName.CONTEXT, key) for key, _ in caches.context),
            *((CacheName.PASID, key) for key, _ in caches.pasid),
            *((CacheName.FIRST_STAGE, key) for key, _ in caches.first_stage),
            *((CacheName.SECOND_STAGE, key) for key, _ in caches.second_stage),
            *((CacheName.INTERRUPT, key) for key, _ in self._unit.interrupts.cache),
        }
        self._words = {key: words for key, words in self._words.items() if key in present}

    def fault(self, request: Request, reason: FaultReason) -> None:
        """A right that software has granted since is denied from the cache: that counts too."""
        if reason in _DENIALS and self._denying is not None:
            self._report(self._denying)
            self._denying = None

    def _iotlb_used(self, kind: RequestKind, entry: IotlbEntry | None) -> None:
        if entry is None:
            return
        words = self._words.get((CacheName.IOTLB, (kind, entry.shift, entry.address)))
        if words is not None:
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

    def _context_used(self, source_id: int, entry: ContextCacheEntry | None) -> None:
        words = self._words.get((CacheName.CONTEXT, source_id)) if entry else None
        pointer = Word(Pointer.ROOT, 0, 0, self._unit.remapping.root, -1)
        self._lookup = {(pointer.structure, 0): pointer} if words is None else dict(words)
        self._request, self._second = dict(self._lookup), {}
        if entry is not None and words is not None:
            owner = Owner(source_id, entry.domain_id)
            self._judge(CacheName.CONTEXT, owner, words, denies=isinstance(entry.value, Exception))

    def _pasid_used(self, key: tuple[int, int], entry: PasidCacheEntry | None) -> None:
        words = self._words.get((CacheName.PASID, key)) if entry else None
        if entry is None or words is None:
            return
        self._lookup.update(words)
        self._request.update(words)
        source_id, pasid = key
        owner = Owner(source_id, entry.domain_id, pasid)
        self._judge(CacheName.PASID, owner, words, denies=isinstance(entry.value, Exception))

    def _structure_used(self, cache: CacheName, key: StructureKey) -> None:
        present = self._unit.caches.first_stage
        if cache is CacheName.SECOND_STAGE:
            present, self._second = self._unit.caches.second_stage, {}
        words = self._words.get((cache, key)) if present.peek(key) is not None else None
        if words is None:
            return
        domain_id, pasid, shift, prefix = key
        owner = Owner(None, domain_id, pasid, prefix << shift)
        self._judge(cache, owner, words, denies=False)
        words = dict(words)
        words.pop((Pointer.TABLE, 0), None)  # for entries of the domain, not of a request
        self._request.update(words)
        if cache is CacheName.SECOND_STAGE:
            self._second = words

    def _interrupt_used(self, index: int) -> None:
        words = None
        if self._unit.interrupts.cache.peek(index) is not None:
            words = self._words.get((CacheName.INTERRUPT, index))
        pointer = Word(Pointer.INTERRUPT, 0, 0, self._unit.interrupts.table, -1)
        self._request = {(pointer.structure, 0): pointer}
        if words is not None:
            self._judge(CacheName.INTERRUPT, Owner(address=index), words, denies=False)

    def _table_pointer(self) -> Words:
        """Where the second stage of the current request begins, by its context or PASID entry.

        Nothing, if that entry has been in its cache since before the audit began.
        """
        entries = {word.structure: word for word in self._lookup.values()}
        legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
        entry = entries.get(Structure.CONTEXT if legacy else Structure.PASID)
        if entry is None:
            return {}
        table = entry.value & HALF & ~0xFFF
        return {(Pointer.TABLE, 0): Word(Pointer.TABLE, 0, 0, table, -1)}

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """What an entry that is cached next will have come from."""
        key = structure, address
        match structure:
            case Structure.FIRST_STAGE | Structure.SECOND_STAGE:
                word = Word(structure, address, size, value, HALF & ~_IGNORED[structure])
                self._request.setdefault(key, word)
                if structure is Structure.SECOND_STAGE:
                    self._second.setdefault(key, word)
            case Structure.INTERRUPT_ENTRY:
                self._request[key] = Word(structure, address, size, value, -1)
            case Structure.ROOT | Structure.CONTEXT | Structure.PASID_DIRECTORY | Structure.PASID:
                mask = -1
                scalable = self._unit.remapping.mode is not TranslationTableMode.LEGACY
                if structure is Structure.ROOT and scalable:  # 9.2: the halves are independent
                    mask = HALF << 64 if self._source_id & 0x80 else HALF
                word = Word(structure, address, size, value, mask)
                self._lookup.setdefault(key, word)
                self._request.setdefault(key, word)

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """The unit set a flag in an entry itself."""
        for words in (self._request, self._second):
            word = words.get((structure, address))
            if done and word is not None:
                words[structure, address] = word._replace(value=new)

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
        if word.structure is Pointer.ROOT:
            return self._unit.remapping.root
        if word.structure is Pointer.INTERRUPT:
            return self._unit.interrupts.table
        if word.structure is Pointer.TABLE:
            return self._table_pointer().get((Pointer.TABLE, 0), word).value
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


_DENIALS = (
    FaultReason.READ_DENIED,
    FaultReason.WRITE_DENIED,
    FaultReason.SM_READ_DENIED,
    FaultReason.SM_WRITE_DENIED,
    FaultReason.USER_DENIED,
)
_IGNORED: dict[Structure, int] = {
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
_GRANTS: dict[Origin, int] = {
    # 6.5.3.5: setting these without an invalidation costs at most a fault.
    Structure.FIRST_STAGE: first_stage.WRITE | first_stage.USER,
    Structure.SECOND_STAGE: second_stage.READ
    | second_stage.WRITE
    | second_stage.IO_READ
    | second_stage.IO_WRITE,
}
_DIRTY: dict[Origin, int] = {
    Structure.FIRST_STAGE: first_stage.DIRTY,
    Structure.SECOND_STAGE: second_stage.DIRTY,
}


def _only_more_rights(structure: Origin, change: int, now: int) -> bool:
    """Whether the change only set rights and flags that were clear."""
    grants = _GRANTS.get(structure, 0)
    return not change & ~grants and now & change == change
