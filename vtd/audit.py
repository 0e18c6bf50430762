"""Audit of invalidations: every cached entry remembers the memory words it came from.

VT-d 6.5.3. Software that changes a structure owes the invalidations of 6.5.3.3 (Tables 28 and 29),
6.6 and 6.7. A unit that still finds an entry whose words have changed was not given one of them;
:class:`Audit` tells which word changed, which entry was used, and which invalidation was missing.
The caches are as the unit's policy makes them: ``AGGRESSIVE`` keeps most and so finds most. Left
out: device-TLBs, whose entries are not the unit's, and attributes that no access depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import NamedTuple, TypeVar

from devices.dma import READ, WRITE
from devices.source_id import SourceId
from pagetables import first_stage, second_stage
from pagetables.memory import FRAME_SHIFT, BusError, FrameReader, TableMemory
from vtd.cache import OFF, Cache, Shape
from vtd.caches import ContextCacheEntry, PasidCacheEntry
from vtd.entries import PasidEntry, PasidTranslationType
from vtd.events import Event, RequestBlocked
from vtd.faults import FaultReason, TranslationFault
from vtd.iotlb import Iotlb, IotlbEntry, RequestKind
from vtd.registers import TranslationTableMode
from vtd.remapping import onlooker
from vtd.request import Request
from vtd.translate import translate
from vtd.unit import RemappingUnit

HALF = (1 << 64) - 1

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Structure(Enum):
    """What software changed."""

    ROOT_POINTER = "RTADDR_REG"
    ROOT = "root entry"
    CONTEXT = "context entry"
    PASID_DIRECTORY = "PASID directory entry"
    PASID = "PASID table entry"
    FIRST_STAGE = "first-stage entry"
    SECOND_STAGE = "second-stage entry"
    TABLE_POINTER = "second-stage table of the domain"
    INTERRUPT_POINTER = "IRTA_REG"
    INTERRUPT_ENTRY = "interrupt-remapping entry"


class CacheName(Enum):
    """The caches of 6.2 and 6.3."""

    CONTEXT = "context cache"
    PASID = "PASID cache"
    IOTLB = "IOTLB"
    FIRST_STAGE = "first-stage paging-structure cache"
    SECOND_STAGE = "second-stage paging-structure cache"
    INTERRUPT = "interrupt entry cache"


class Word(NamedTuple):
    """What an entry came from: a record in memory, or a pointer register."""

    structure: Structure
    address: int
    """Of the record; 0 for a register."""
    size: int
    """Bytes."""
    value: int
    mask: int
    """The bits that count."""


Words = dict[tuple[Structure, int], Word]


class Owner(NamedTuple):
    """The tags of a cache entry, as far as it has them."""

    source_id: int | None = None
    domain_id: int | None = None
    pasid: int | None = None
    address: int | None = None
    """Input address; the index in the interrupt entry cache."""
    kind: PasidTranslationType | None = None

    def __str__(self) -> str:
        known = (
            ("source", None if self.source_id is None else str(SourceId(self.source_id))),
            ("domain", self.domain_id),
            ("PASID", None if self.pasid is None else hex(self.pasid)),
            ("address", None if self.address is None else hex(self.address)),
        )
        return ", ".join(f"{name} {value}" for name, value in known if value is not None)


class StaleUse(NamedTuple):
    """A cached entry was used although software had changed what it came from."""

    cache: CacheName
    owner: Owner
    changed: Word
    """The word as the entry knows it."""
    now: int | None
    """What it holds now; None where there is no memory any more."""
    writer: str | None
    """Where the log has the write."""
    missing: str
    """The invalidation that would have removed the entry."""
    section: str

    def __str__(self) -> str:
        word, now = self.changed, "gone" if self.now is None else f"{self.now:#x}"
        where = f" at {word.address:#x}" if word.size else ""
        by = f" by {self.writer}" if self.writer else ""
        return (
            f"{self.cache.value} entry ({self.owner}) used after the {word.structure.value}{where} "
            f"changed from {word.value:#x} to {now}{by}: missing {self.missing} (VT-d "
            f"{self.section})"
        )


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
        unit.remapping.memory = _WatchedMemory(
            self._memory, self._read_record, self._updated, self._begin_walk
        )
        unit.interrupts.memory = _WatchedMemory(
            unit.interrupts.memory, self._read_interrupt_entry, self._updated, self._begin_walk
        )
        caches.iotlb.direct = False
        caches.iotlb = _WatchedIotlb(caches.iotlb, policy.iotlb, self)
        caches.context = _WatchedCache(caches.context, self._context_found, lambda: self._lookup)
        caches.pasid = _WatchedCache(caches.pasid, self._pasid_found, lambda: self._lookup)
        caches.first_stage = _WatchedCache(
            caches.first_stage, self._first_stage_found, lambda: self._request
        )
        caches.second_stage = _WatchedCache(
            caches.second_stage,
            self._second_stage_found,
            lambda: {**self._table_pointer(), **self._second},
        )
        unit.interrupts.cache = _WatchedCache(
            unit.interrupts.cache, self._interrupt_found, lambda: self._request
        )
        unit.subscribe(self._event)

    def iotlb_found(self, kind: RequestKind, entry: IotlbEntry | None, words: Words | None) -> None:
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

    def request_words(self) -> Words:
        """The words that the current request came to."""
        return self._request

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
        self, keys: tuple[tuple[int, int | None, int, int], ...], entry: object, words: Words | None
    ) -> None:
        self._stage = Structure.FIRST_STAGE
        self._structure_found(CacheName.FIRST_STAGE, keys, words)

    def _second_stage_found(
        self, keys: tuple[tuple[int, int | None, int, int], ...], entry: object, words: Words | None
    ) -> None:
        self._stage = Structure.SECOND_STAGE
        words = None if words is None else dict(words)
        self._structure_found(CacheName.SECOND_STAGE, keys, words)
        self._second = {} if words is None else words

    def _structure_found(
        self,
        cache: CacheName,
        keys: tuple[tuple[int, int | None, int, int], ...],
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

    def _begin_walk(self) -> Callable[[int, int], None]:
        """A walk, or the read of one first-stage entry of a guest, begins; who notes its words."""
        structure, self._stage = self._stage, Structure.FIRST_STAGE
        mask = HALF & ~_IGNORED[structure]

        def read(address: int, value: int) -> None:
            word = Word(structure, address, 8, value, mask)
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


def missing_invalidation(
    cache: CacheName, owner: Owner, word: Word, now: int | None
) -> tuple[str, str]:
    """The invalidation that the change of ``word`` calls for and that removes the entry.

    With the section that asks for it: 6.5.3.3 (Tables 28 and 29), 6.6 and 6.7 for the pointers.
    """
    return _missing(cache, owner, word, now), _SECTIONS.get(word.structure, "6.5.3.3")


def _missing(cache: CacheName, owner: Owner, word: Word, now: int | None) -> str:
    if word.structure in _ROOTS:
        return f"global {_COMMANDS.get(cache, 'iotlb_inv')}"
    match cache:
        case CacheName.INTERRUPT:
            return f"iec_inv of index {owner.address}"
        case CacheName.CONTEXT:
            return f"device-selective cc_inv of {SourceId(owner.source_id or 0)}"
        case CacheName.PASID if word.structure is Structure.CONTEXT:
            return f"domain-selective pc_inv of domain {owner.domain_id}"
        case CacheName.PASID:
            return f"PASID-selective pc_inv of {_pasid(owner)}"
    return _missing_iotlb_invalidation(cache, owner, word, now)


def _missing_iotlb_invalidation(cache: CacheName, owner: Owner, word: Word, now: int | None) -> str:
    domain, address = f"domain {owner.domain_id}", f"address {owner.address or 0:#x}"
    paging = cache in (CacheName.FIRST_STAGE, CacheName.SECOND_STAGE)
    hint = ", IH = 0" if paging else ""
    match word.structure:
        case Structure.FIRST_STAGE:
            return f"page-selective p_iotlb_inv of {_pasid(owner)}, {address}{hint}"
        case Structure.SECOND_STAGE:
            nested = owner.kind is PasidTranslationType.NESTED or cache is CacheName.FIRST_STAGE
            return f"page-selective iotlb_inv of {domain}" + (
                "" if nested else f", {address}{hint}"
            )
        case Structure.PASID if not _translation_left_domain(word, now):
            return f"PASID-selective p_iotlb_inv of {_pasid(owner)}"
    return f"domain-selective iotlb_inv of {domain}"


def _pasid(owner: Owner) -> str:
    return f"domain {owner.domain_id}, PASID {owner.pasid or 0:#x}"


def _translation_left_domain(word: Word, now: int | None) -> bool:
    """Whether a PASID entry with a second stage is no longer present (Table 29)."""
    before = PasidEntry(word.value)
    second = (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)
    return before.pgtt in second and not PasidEntry(now or 0).p


_ROOTS = (Structure.ROOT_POINTER, Structure.ROOT, Structure.INTERRUPT_POINTER)
_COMMANDS = {
    CacheName.CONTEXT: "cc_inv",
    CacheName.PASID: "pc_inv",
    CacheName.INTERRUPT: "iec_inv",
}
_SECTIONS = {
    Structure.ROOT_POINTER: "6.6",
    Structure.INTERRUPT_POINTER: "6.7",
    Structure.INTERRUPT_ENTRY: "6.5.2.8",
}
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


class _WatchedMemory:
    """Table memory that tells what was read, and of flags that were set."""

    def __init__(
        self,
        memory: TableMemory,
        read: Callable[[int, int, int], None],
        updated: Callable[[int, int], None],
        begin: Callable[[], Callable[[int, int], None]],
    ) -> None:
        self._memory = memory
        self._read = read
        self._updated = updated
        self._begin = begin

    @property
    def frames(self) -> _WatchedFrames:
        """Asked for once by a walk of its own memory, and once for each frame of guest memory."""
        return _WatchedFrames(self._memory, self._begin())

    def read_record(self, address: int, size: int) -> int:
        value = self._memory.read_record(address, size)
        self._read(address, size, value)
        return value

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        done = self._memory.compare_exchange(address, size, expected, new)
        if done:
            self._updated(address, new)
        return done

    def write(self, address: int, data: bytes) -> None:
        self._memory.write(address, data)


class _WatchedFrames:
    def __init__(self, memory: TableMemory, read: Callable[[int, int], None]) -> None:
        self._memory = memory
        self._read = read

    def __getitem__(self, number: int) -> FrameReader:
        return _WatchedFrame(self._memory.frames[number], number << FRAME_SHIFT, self._read)


class _WatchedFrame:
    def __init__(self, frame: FrameReader, address: int, read: Callable[[int, int], None]) -> None:
        self._frame = frame
        self._address = address
        self._read = read

    def __getitem__(self, index: int) -> int:
        value = self._frame[index]
        self._read(self._address | index << 3, value)
        return value


class _WatchedCache(Cache[K, V]):
    """A cache in place of ``cache`` that knows the words of its entries."""

    def __init__(
        self,
        cache: Cache[K, V],
        found: Callable[[tuple[K, ...], V | None, Words | None], None],
        words: Callable[[], Words],
    ) -> None:
        super().__init__(cache.shape)
        for key, entry in cache:
            super().put(key, entry)
        self.counters = cache.counters
        if self.shape == OFF:
            self.shape = _OFF_BUT_ASKED
        self._found = found
        self._words_now = words
        self._words: dict[K, Words] = {}

    def find(self, *keys: K) -> V | None:
        hit = next((key for key in keys if self.peek(key) is not None), None)
        entry = super().find(*keys)
        if hit is None:
            self._found(keys, None, None)
        else:
            self._found((hit,), entry, self._words.get(hit))
        return entry

    def put(self, key: K, entry: V) -> None:
        super().put(key, entry)
        self._words[key] = dict(self._words_now())


_OFF_BUT_ASKED = replace(OFF, seed=1)
"""No room either, but walks do not pass the cache by, so that the audit sees where they begin."""


class _WatchedIotlb(Iotlb):
    """An IOTLB in place of ``iotlb`` that knows the words of its entries."""

    def __init__(self, iotlb: Iotlb, shape: Shape, audit: Audit) -> None:
        super().__init__(shape)
        self._direct = False
        for kind, entry in iotlb:
            super().insert(kind, entry)
        self.counters = iotlb.counters
        self._audit = audit
        self._words: dict[tuple[RequestKind, int, int], Words] = {}

    @property
    def direct(self) -> bool:
        """Never: every use is to be seen."""
        return False

    @direct.setter
    def direct(self, wanted: bool) -> None:
        """Ports stay indirect while a unit is watched, whatever its registers say."""

    def find(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        entry = super().find(kind, address)
        words = None if entry is None else self._words.get((kind, entry.shift, entry.address))
        self._audit.iotlb_found(kind, entry, words)
        return entry

    def insert(self, kind: RequestKind, entry: IotlbEntry) -> None:
        super().insert(kind, entry)
        self._words[kind, entry.shift, entry.address] = dict(self._audit.request_words())
