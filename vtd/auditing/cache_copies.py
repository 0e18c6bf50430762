"""What the caches of a unit may have: judged when they are asked, copied when they are filled.

Left out: device-TLBs (:mod:`vtd.auditing.device_tlb_copies`).
"""

from __future__ import annotations

from typing import Any

from devices.dma import AddressType, Request
from pagetables.observer import Structure
from vtd.auditing.copies import PERMISSION_SHIFTS, Copy
from vtd.auditing.debt import Pointer, Word
from vtd.auditing.domain_ids import DomainIds
from vtd.auditing.outdated import Outdated
from vtd.auditing.request_words import Words
from vtd.auditing.significance import ALL, PERMISSION_FIELDS, above_leaves
from vtd.auditing.stored_words import LOOKUP, PAGING
from vtd.auditing.uses import Uses
from vtd.layouts.entries import ContextEntry, PasidEntry, ScalableContextEntry
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.caches import (
    FIRST_STAGE_KINDS,
    HOST_TABLE_SHIFTS,
    ContextCacheEntry,
    HostTableKey,
    PasidCacheEntry,
    StructureKey,
)
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import CacheName
from vtd.unit.requests.request import RequestKind


class CacheCopies:
    """Makes a copy of each entry, of the words that were read for it."""

    def __init__(self, outdated: Outdated, uses: Uses, domain_ids: DomainIds) -> None:
        self._outdated = outdated
        self._unit = outdated.unit
        self._copies = outdated.copies
        self._stored = outdated.stored
        self._read = outdated.read
        self._uses = uses
        self._domain_ids = domain_ids

    def begin(self, request: Request) -> None:
        """What may be let through by permissions that are cached."""
        if request.address_type is AddressType.TRANSLATED:
            known = self._copies.permissions.get(_permission_key(request))
            if known is not None:
                self._uses.use(known)

    def asked(self, cache: CacheName, key: Any, entry: Any) -> None:
        """Judge what the cache may have, and know what it came from."""
        match cache:
            case CacheName.IOTLB:
                self._iotlb_asked(key[0], key[1], entry)
            case CacheName.CONTEXT:
                self._context_asked(key, entry)
            case CacheName.PASID:
                self._pasid_asked(key, entry)
            case CacheName.INTERRUPT:
                self._interrupt_asked(key, entry)
            case CacheName.FIRST_STAGE | CacheName.SECOND_STAGE:
                self._structure_asked(cache, key, entry)
            case CacheName.HOST_PERMISSION_TABLE:
                self._permission_table_asked(key, entry)
            case _:  # permissions are judged when the request begins
                pass

    def kept(self, cache: CacheName, key: Any, entry: Any) -> None:
        """A new entry comes from what has been read for it."""
        match cache:
            case CacheName.CONTEXT:
                self._context_kept(key, entry)
            case CacheName.PASID:
                self._pasid_kept(key, entry)
            case CacheName.IOTLB:
                self._iotlb_kept(key[0], entry)
            case CacheName.INTERRUPT:
                self.interrupt_kept(key, refused=isinstance(entry, Exception))
            case CacheName.FIRST_STAGE | CacheName.SECOND_STAGE:
                self._structure_kept(cache, key, refused=entry.refused is not None)
            case CacheName.HOST_PERMISSION_TABLE:
                self._permission_table_kept(key)
            case _:  # permissions are known when the request is settled
                pass

    def _iotlb_asked(self, kind: RequestKind, address: int, entry: IotlbEntry | None) -> None:
        space = self._copies.iotlb[kind]
        copy = space.get(address >> 12)
        if copy is None and entry is not None and entry.shift > 12:
            line = self._copies.large.get((kind, entry.shift, address >> entry.shift))
            if line is not None:
                copy = self._iotlb_copy(kind, address >> 12, entry, line.words)
        if copy is not None:
            self._uses.use(copy)

    def _iotlb_kept(self, kind: RequestKind, entry: IotlbEntry) -> None:
        number, request = entry.address >> 12, self._read.request
        if request is not None and request.address >> entry.shift == entry.address >> entry.shift:
            number = request.address >> 12
        copy = self._iotlb_copy(kind, number, entry, tuple(self._read.words.values()))
        if entry.shift > 12:
            self._copies.large[kind, entry.shift, entry.address >> entry.shift] = copy

    def _iotlb_copy(
        self, kind: RequestKind, number: int, entry: IotlbEntry, words: tuple[Word, ...]
    ) -> Copy:
        space, tags = self._copies.iotlb[kind], entry.tags
        space.domain_ids.add(tags.domain_id)
        space.has_first_stage |= tags.kind in FIRST_STAGE_KINDS
        legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
        return self._outdated.put(
            Copy(
                CacheName.IOTLB,
                space,
                number,
                words,
                source_id=kind[0],
                domain_id=tags.domain_id,
                pasid=None if legacy else tags.pasid,
                kind=tags.kind,
                start=number << 12,
                frame=(entry.physical - entry.address >> 12) + number,
                shift=max(entry.shift, self._page_shift(words)),
                refused=entry.fault is not None or not entry.rights,
                number=self._stored.now,
            )
        )

    def _page_shift(self, words: tuple[Word, ...]) -> int:
        """log2 of the page by the levels that were walked; the unit may keep pieces (6.5.3.2)."""
        entry = self._read.entry()
        stages = {word.structure for word in words if word.structure in PAGING}
        if entry is None or len(stages) != 1:
            return 12  # pass-through, or nested
        if entry.structure is Structure.CONTEXT:
            levels = ContextEntry(entry.value).aw + 2
        elif stages == {Structure.SECOND_STAGE}:
            levels = PasidEntry(entry.value).aw + 2
        else:
            levels = PasidEntry(entry.value).fspm + 4
        walked = sum(word.structure in PAGING for word in words)
        return 12 + 9 * max(levels - walked, 0)

    def _context_asked(self, source_id: int, entry: object) -> None:
        copy = self._copies.context.get(source_id)
        root = int(self._unit.remapping.root)
        pointer = self._stored.word(Pointer.ROOT, 0, 0, root, ALL)
        self._read.lookup = {(Pointer.ROOT, 0): pointer}
        if copy is not None:
            self._uses.use(copy)
            if entry is not None:
                self._read.lookup = _keyed(copy)
        self._read.words, self._read.second = dict(self._read.lookup), {}

    def _context_kept(self, source_id: int, entry: ContextCacheEntry) -> None:
        self._outdated.put(
            Copy(
                CacheName.CONTEXT,
                self._copies.context,
                source_id,
                tuple(self._read.lookup.values()),
                source_id=source_id,
                domain_id=entry.domain_id,
                refused=isinstance(entry.value, Exception),
                number=self._stored.now,
            )
        )
        if entry.domain_id is not None and not isinstance(entry.value, Exception):
            self._domain_ids.serves(entry.domain_id)

    def _pasid_asked(self, key: tuple[int, int], entry: object) -> None:
        copy = self._copies.pasid.get(key)
        if copy is None:
            return
        self._uses.use(copy)
        if entry is not None:
            known = _keyed(copy)
            self._read.lookup.update(known)
            self._read.words.update(known)

    def _pasid_kept(self, key: tuple[int, int], entry: PasidCacheEntry) -> None:
        source_id, pasid = key
        refused = isinstance(entry.value, Exception)
        self._outdated.put(
            Copy(
                CacheName.PASID,
                self._copies.pasid,
                key,
                tuple(self._read.lookup.values()),
                source_id=source_id,
                domain_id=entry.domain_id,
                pasid=pasid,
                refused=refused,
                number=self._stored.now,
            )
        )
        if not refused:
            self._domain_ids.serves(entry.domain_id, pasid)

    def _structure_asked(self, cache: CacheName, key: StructureKey, entry: object) -> None:
        if cache is CacheName.SECOND_STAGE:
            self._read.second = {}
        copy = self._copies.tables[cache].get(key)
        if copy is None:
            return
        if copy.via is not None:
            self._domain_ids.judge_table(copy)
        self._uses.use(copy)
        if entry is not None:
            known = _keyed(copy)
            self._read.words.update(known)
            if cache is CacheName.SECOND_STAGE:
                self._read.second = known

    def _structure_kept(self, cache: CacheName, key: StructureKey, *, refused: bool) -> None:
        domain_id, pasid, shift, prefix = key
        structure, words = Structure.FIRST_STAGE, self._read.words
        if cache is CacheName.SECOND_STAGE:
            structure, words = Structure.SECOND_STAGE, self._read.second
        last = next((known for known in reversed(words) if known[0] is structure), None)
        if last is None:
            return
        own = self._stored.word(*above_leaves(words[last]))
        for each in (self._read.words, self._read.second):
            if last in each:
                each[last] = own
        above = (
            word
            for known, word in words.items()
            if known != last and word.structure not in LOOKUP  # of a request, not of the domain
        )
        copy = Copy(
            cache,
            self._copies.tables[cache],
            key,
            (*above, own),
            domain_id=domain_id,
            pasid=pasid,
            start=prefix << shift,
            shift=shift,
            refused=refused,
            number=self._stored.now,
        )
        copy.via = self._read.entry()
        self._outdated.put(copy)

    def _interrupt_asked(self, index: int, entry: object) -> None:
        pointer = self._stored.word(Pointer.INTERRUPT, 0, 0, int(self._unit.interrupts.table), ALL)
        self._read.words = {(Pointer.INTERRUPT, 0): pointer}
        copy = self._copies.interrupts.get(index)
        if copy is not None:
            self._uses.use(copy)

    def interrupt_kept(self, index: int, *, refused: bool) -> None:
        self._outdated.put(
            Copy(
                CacheName.INTERRUPT,
                self._copies.interrupts,
                index,
                tuple(self._read.words.values()),
                start=index,
                refused=refused,
                number=self._stored.now,
            )
        )

    def _permission_table_asked(self, key: HostTableKey, entry: object) -> None:
        copy = self._copies.permission_tables.get(key)
        if copy is None:
            return
        self._uses.use(copy)
        if entry is not None:
            self._read.permissions.update(_keyed(copy))

    def _permission_table_kept(self, key: HostTableKey) -> None:
        domain_id, level, prefix = key
        shift = HOST_TABLE_SHIFTS[level]
        self._outdated.put(
            Copy(
                CacheName.HOST_PERMISSION_TABLE,
                self._copies.permission_tables,
                key,
                self._permission_words(),
                domain_id=domain_id,
                start=prefix << shift,
                shift=shift,
                number=self._stored.now,
            )
        )

    def permissions_kept(self, request: Request) -> None:
        """What was read of host permission tables may serve requests for the page (6.2.6)."""
        words = self._permission_words()
        above = [
            word._replace(mask=_PERMISSION_SWITCHES)
            if word.structure is Structure.CONTEXT
            else word
            for word in self._read.lookup.values()
            if word.structure is not Structure.PASID
        ]
        entry = self._read.entry()
        level = 5 - sum(word.structure is Structure.HOST_PERMISSION for word in words)
        self._outdated.put(
            Copy(
                CacheName.HOST_PERMISSION,
                self._copies.permissions,
                _permission_key(request),
                (*above, *words),
                source_id=request.source_id,
                domain_id=None if entry is None else PasidEntry(entry.value).hptdid,
                pasid=request.pasid,
                start=request.address >> 12 << 12,
                shift=PERMISSION_SHIFTS.get(level, 12),
                number=self._stored.now,
            )
        )
        self._read.permissions = {}

    def _permission_words(self) -> tuple[Word, ...]:
        """The entries of host permission tables, and the fields that lead to the first of them."""
        known = self._read.permissions
        if not any(structure is Structure.PASID for structure, _ in known):
            entry = self._read.entry()
            pointer = [] if entry is None else [entry._replace(mask=PERMISSION_FIELDS)]
            return *pointer, *known.values()
        return tuple(known.values())


_PERMISSION_SWITCHES = ScalableContextEntry.hpte.mask | ScalableContextEntry.eptr.mask


def _keyed(copy: Copy) -> Words:
    return {(word.structure, word.address): word for word in copy.words}


def _permission_key(request: Request) -> tuple[int, int | None, int]:
    return request.source_id, request.pasid, request.address >> 12
