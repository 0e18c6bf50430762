"""Audit of invalidations: a ledger of what software owes for changes of what caches may hold.

VT-d 6.5.3. Whatever was read for a cache may stay in it until an invalidation covers it
(:mod:`vtd.auditing.copies`), with the words that it came from. A word that software changed is a
debt: invalidations pay it, and wait descriptors close it. Judged are uses of what is outdated, the
order of invalidations, pages and tables that are used again too early, and what is never paid.
The unit's policy decides what is read for caches: ``AGGRESSIVE`` keeps most and so finds most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from devices.dma import READ, WRITE, AddressType, Atomic, InvalidationRequest, Request
from devices.source_id import SourceId
from pagetables import second_stage
from pagetables.bits import BitRecord
from pagetables.first_stage import PRESENT
from pagetables.memory import BusError
from pagetables.observer import Structure
from pagetables.walk import ADDRESS
from vtd.auditing.copies import Copies, Copy
from vtd.auditing.debt import Debt, Kind, Owner, Pointer, Word, owed_for
from vtd.auditing.page_request_audit import PageRequestAudit, PageRequestFinding
from vtd.auditing.significance import (
    ALL,
    PERMISSION_FIELDS,
    above_leaves,
    change,
    entry_mask,
    only_dirty,
    only_more_rights,
    paging_mask,
)
from vtd.auditing.torn_writes import Torn, TornWrites
from vtd.auditing.writers import calls
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import (
    ContextEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    TranslationType,
)
from vtd.layouts.registers import (
    ContextCommand,
    GlobalCommand,
    InvalidateAddress,
    IotlbInvalidate,
    TranslationTableMode,
)
from vtd.severity import WARNING
from vtd.unit.caching.caches import ContextCacheEntry, PasidCacheEntry, StructureKey
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import CacheName, Observer
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationCompleted,
    DeviceTlbInvalidationSent,
    Event,
    TranslatedRequestPassed,
    TranslationGiven,
)
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import RequestKind, kind_of
from vtd.unit.translation.remapping import onlooker
from vtd.unit.translation.translate import translate
from vtd.unit.unit import RemappingUnit

PAGING = (Structure.FIRST_STAGE, Structure.SECOND_STAGE)
LOOKUP = (
    Pointer.ROOT,
    Structure.ROOT,
    Structure.CONTEXT,
    Structure.PASID_DIRECTORY,
    Structure.PASID,
)
EVERYTHING = "*"
STAGES = {
    CacheName.CONTEXT: 0,
    CacheName.PASID: 1,
    CacheName.IOTLB: 2,
    CacheName.FIRST_STAGE: 2,
    CacheName.SECOND_STAGE: 2,
    CacheName.DEVICE_TLB: 3,
    CacheName.HOST_PERMISSION: 4,
    CacheName.INTERRUPT: 0,
}
"""In which order the caches are invalidated (6.5.2.12)."""

Words = dict[tuple[Any, int], Word]
Tag = tuple[str, int] | str
"""What waiting is for: a domain, a source-id, interrupts, or everything."""


class Change(NamedTuple):
    """A word of a copy that software changed."""

    word: Word
    now: int | None
    bits: int


@dataclass
class _Use:
    """A use of an outdated copy, whose verdict may be open."""

    copy: Copy
    changed: Change
    writer: str | None
    line: int
    reuse: bool
    late: bool
    """Whether software had waited for invalidations that should have paid."""


_OF_PAGES = (CacheName.IOTLB, CacheName.SECOND_STAGE)
"""Caches whose entries may be kept for having faulted although tables changed since."""


class Audit(Observer):
    """Watches ``unit`` from now on, until :meth:`detach`; what it holds already is not judged.

    ``writer`` names who stores a word when it is stored: by default by its calls. ``uses`` counts
    the cached entries that were checked, ``descriptors`` the invalidations, ``wasteful`` those of
    them that met nothing outdated. ``line`` is where the reader of a log is.
    """

    def __init__(self, unit: RemappingUnit, writer: Callable[[], object] = calls) -> None:
        self.uses = self.descriptors = self.wasteful = 0
        self._line = 0
        self.copies = Copies(unit.capabilities.did_width, unit.capabilities.max_guest_address_width)
        self._unit = unit
        self._memory = unit.remapping.memory
        self._writer = writer
        self._now = 0
        """Counts stores and completed waits."""
        self._stores: dict[int, tuple[int, object]] = {}
        """Of quadwords in frames that have structures: when and by whom they were last stored."""
        self._pointers: dict[Pointer, int] = {}
        """When they were last set."""
        self._filled: dict[int, tuple[int, int]] = {}
        """When software last stored something in a frame, and how many bytes."""
        self._frames: set[int] = set()
        self._read: dict[int, Word] = {}
        """Records as they were last read."""
        self._uses: dict[tuple[CacheName, Owner, Word], _Use] = {}
        self._open: list[_Use] = []
        self._judged: list[tuple[int, Debt]] = []
        self._recent: dict[Tag, int] = {}
        """The latest stage of the invalidations since the last wait, by what they concern."""
        self._closed: dict[tuple[Tag, int], int] = {}
        """When software last waited for invalidations, by what they concern and stage."""
        self._limbo: dict[int, tuple[Copy, Change]] = {}
        """Frames that nothing leads to any more, but nobody has waited for that."""
        self._outputs: dict[tuple[int, int, int], list[Copy]] = {}
        """What device-TLBs hold, by source-id, log2 of the size and output page."""
        self._clients: dict[int, object] = {}
        """Whose device-TLB it was when it was last given something."""
        self._sent: dict[tuple[int, InvalidationRequest], int] = {}
        self._roots: dict[int, dict[int, tuple[Word, int]]] = {}
        """Second-stage tables of each domain-id, by the entry that leads there."""
        self._shared: set[tuple[int, int, int]] = set()
        self._domains_left: dict[int, tuple[Copy, Change]] = {}
        """Domain-ids that entries have given up, but nobody has waited for that."""
        self._torn = TornWrites(self._memory)
        self._page_requests = PageRequestAudit(unit)
        self._translating = False
        self._own_store: int | None = None
        self._payload: object = None
        self._request: Request | None = None
        self._forget_request()
        unit.observe(self)
        unit.subscribe(self._event)
        self._watched = hasattr(self._memory, "watch")
        if self._watched:
            self._memory.watch(self._stored)  # type: ignore[attr-defined]

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._page_requests.detach()
        self._unit.ignore(self)
        self._unit.unsubscribe(self._event)
        if self._watched:
            self._memory.ignore(self._stored)  # type: ignore[attr-defined]

    @property
    def line(self) -> int:
        """Where the reader of a log is."""
        return self._line

    @line.setter
    def line(self, line: int) -> None:
        self._line = self._page_requests.line = line

    @property
    def findings(self) -> list[Debt]:
        """What is to be held against software if all ended now."""
        return [debt for _, debt in self.judged() if debt.kind.severity >= WARNING]

    def judged(self) -> list[tuple[int, Debt]]:
        """Every debt that was met, those in the window too, with the line of the log."""
        self._forget_replaced_devices()
        verdicts = list(self._judged)
        verdicts += [verdict for use in self._uses.values() for verdict in self._verdict(use)]
        verdicts += [(line, _of_page_request(each)) for line, each in self._page_requests.judged]
        known = {(debt.cache, debt.changed.address) for _, debt in verdicts}
        for copy in self.copies.all():
            changed = self._harmful(copy)
            if changed is None or (copy.cache, changed.word.address) in known:
                continue
            if changed.word.structure in LOOKUP and self._remaker(copy) is not None:
                continue  # that one is the debt
            known.add((copy.cache, changed.word.address))
            kind = Kind.WRONG_ORDER if copy.early else Kind.UNPAID
            verdicts.append((self.line, self._debt(kind, copy, changed)))
        return sorted(verdicts, key=lambda verdict: verdict[0])

    # What happens, from the unit and from memory

    def begin(self, request: Request) -> None:
        """A new request: nothing is known of where it goes."""
        self._forget_request()
        self._request = request
        if request.access & WRITE:
            self._payload = request.payload
        if request.address_type is AddressType.TRANSLATED:
            known = self.copies.permissions.get(_permission_key(request))
            if known is not None:
                self._use(known)

    def _forget_request(self) -> None:
        self._request = None
        self._words: Words = {}
        self._second: Words = {}
        self._lookup: Words = {}
        self._permissions: Words = {}
        self._denying: tuple[Copy, Change] | None = None

    def looks_ahead(self, request: Request) -> None:
        """As for a request, while another one may still store its data."""
        payload = self._payload
        self.begin(request)
        self._payload = payload

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
                self._interrupt_kept(key, refused=isinstance(entry, Exception))
            case CacheName.FIRST_STAGE | CacheName.SECOND_STAGE:
                self._structure_kept(cache, key, refused=entry.refused is not None)
            case _:  # permissions are known when the request is settled
                pass

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """What an entry that is cached next will have come from."""
        match structure:
            case Structure.FIRST_STAGE | Structure.SECOND_STAGE:
                word = self._word(structure, address, size, value, self._paging_masks[structure])
                self._words.setdefault((structure, address), word)
                if structure is Structure.SECOND_STAGE:
                    self._second.setdefault((structure, address), word)
            case Structure.HOST_PERMISSION:
                word = self._word(structure, address, size, value, ALL)
                self._permissions[structure, address] = word
            case Structure.INTERRUPT_ENTRY:
                self._torn.seen(structure, address, size)
                mask = entry_mask(structure, value, scalable=False, upper_half=False)
                word = self._word(structure, address, size, value, mask)
                self._words[structure, address] = word
            case Structure.ROOT | Structure.CONTEXT | Structure.PASID_DIRECTORY | Structure.PASID:
                scalable = self._unit.remapping.mode is not TranslationTableMode.LEGACY
                self._torn.seen(structure, address, size)
                upper = bool(self._request and self._request.source_id & 0x80)
                mask = entry_mask(structure, value, scalable=scalable, upper_half=upper)
                word = self._word(structure, address, size, value, mask)
                self._lookup.setdefault((structure, address), word)
                self._words.setdefault((structure, address), word)

    @property
    def _paging_masks(self) -> dict[Structure, int]:
        return _PAGING_MASKS[self._unit.remapping.root.ssirwe]

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """The next store there is the unit's."""
        self._own_store = address

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """The unit set a flag in an entry itself."""
        self._own_store = None
        for words in (self._words, self._second):
            word = words.get((structure, address))
            if done and word is not None:
                words[structure, address] = self._word(
                    structure, address, word.size, new, word.mask
                )

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """The next store there is the unit's."""
        self._own_store = address

    def fault(self, request: Request, reason: FaultReason) -> None:
        """A right that software has granted since may be denied; a fault may be kept (6.1, 6.4)."""
        if reason in _DENIALS and self._denying is not None:
            self._note_use(*self._denying)
            self._denying = None
        entries = [key for key in self._words if key[0] is Structure.INTERRUPT_ENTRY]
        if entries and self._unit.capabilities.cap.cm:
            base = self._unit.interrupts.table.irta
            self._interrupt_kept(entries[0][1] - base >> 4, refused=True)

    def settled(self) -> None:
        """A translated request has been let through or not: its permissions may be cached."""
        if self._request is not None and self._permissions:
            self._permissions_kept(self._request)

    def register_written(self, offset: int, size: int, value: int) -> None:
        """Commands by which hardware empties caches itself, and new table pointers (6.6, 6.7)."""
        if offset != GlobalCommand.OFFSET:
            return
        self._now += 1
        command, features = GlobalCommand(value & 0xFFFF_FFFF), self._unit.capabilities.features
        if command.srtp:
            self._pointers[Pointer.ROOT] = self._now
            self._roots.clear()
        if command.sirtp:
            self._pointers[Pointer.INTERRUPT] = self._now
        stopped = self._translating and not command.te and "smts" in features
        self._translating = command.te
        if stopped or (command.srtp and "esrtps" in features):
            self.copies.clear_remapping()
        if command.sirtp and "esirtps" in features:
            self.copies.clear_interrupts()

    def reset(self) -> None:
        """The unit forgot everything (11.3)."""
        self.copies.clear_remapping()
        self.copies.clear_interrupts()
        self._limbo.clear()
        self._translating = False

    def invalidated(self, command: BitRecord) -> None:
        """An invalidation pays; a wait descriptor closes what was paid."""
        match command:
            case InvalidationWaitDescriptor():
                self._waited()
            case ContextCommand():
                if self._unit.registers[ContextCommand].caig:
                    self._pay(
                        ContextCacheInvalidateDescriptor.of(
                            g=command.cirg, did=command.did, sid=command.sid, fm=command.fm
                        )
                    )
                self._waited()  # 6.5.1: synchronous
            case IotlbInvalidate():
                where = self._unit.registers[InvalidateAddress]
                done = self._unit.registers[IotlbInvalidate].iaig
                if done:
                    self._pay(
                        IotlbInvalidateDescriptor.of(
                            g=done, did=command.did, addr=where.addr, am=where.am, ih=where.ih
                        )
                    )
                self._waited()
            case PageGroupResponseDescriptor():
                pass
            case _:
                self._pay(command)

    def _event(self, event: Event) -> None:
        match event:
            case TranslationGiven():
                self._given(event)
            case TranslatedRequestPassed(request=request):
                self._translated(request)
            case DeviceTlbInvalidationSent(source_id=source_id, request=request):
                self._sent[source_id, request] = self._now
                for copy in self.copies.given(source_id, request):
                    remaker = self._remaker(copy) if self._harmful(copy) else None
                    copy.early = "" if remaker is None else _device_descriptor(copy)
            case DeviceTlbInvalidationCompleted(source_id=source_id, request=request):
                sent = self._sent.pop((source_id, request), self._now)
                for copy in self.copies.given(source_id, request):
                    if copy.number <= sent and not copy.early:
                        self._leave(copy, self._harmful(copy))
            case _:
                pass

    def _stored(self, address: int, data: bytes) -> None:
        """Something is about to be stored: by software, unless the unit or a device said so."""
        if address == self._own_store:
            self._own_store = None
            return
        if self._payload is not None and (
            data is self._payload or isinstance(self._payload, Atomic)
        ):
            self._payload = None
            return
        self._now += 1
        torn = self._torn.stored(address, data, self.line)
        if torn is not None:
            self._judged.append((self.line, _of_torn(torn, str(self._writer()))))
        for frame in range(address >> 12, (address + max(len(data), 1) - 1 >> 12) + 1):
            if frame in self._frames:
                stamp = self._now, self._writer()
                for number in range(address >> 3, (address + len(data) - 1 >> 3) + 1):
                    self._stores[number] = stamp
            self._filled[frame] = self._now, len(data)
            waiting = self._limbo.get(frame)
            if waiting is not None and _is_reuse(waiting[0], len(data)):
                del self._limbo[frame]
                self._used_again(frame, *waiting)

    # Caches, one after the other

    def _iotlb_asked(self, kind: RequestKind, address: int, entry: IotlbEntry | None) -> None:
        space = self.copies.iotlb.get(kind, {})
        copy = space.get(address >> 12)
        if copy is None and entry is not None and entry.shift > 12:
            line = self.copies.large.get((kind, entry.shift, address >> entry.shift))
            if line is not None:
                copy = self._iotlb_copy(kind, address >> 12, entry, line.words)
        if copy is not None:
            self._use(copy)

    def _iotlb_kept(self, kind: RequestKind, entry: IotlbEntry) -> None:
        number, request = entry.address >> 12, self._request
        if request is not None and request.address >> entry.shift == entry.address >> entry.shift:
            number = request.address >> 12
        copy = self._iotlb_copy(kind, number, entry, tuple(self._words.values()))
        if entry.shift > 12:
            self.copies.large[kind, entry.shift, entry.address >> entry.shift] = copy

    def _iotlb_copy(
        self, kind: RequestKind, number: int, entry: IotlbEntry, words: tuple[Word, ...]
    ) -> Copy:
        space = self.copies.iotlb.setdefault(kind, {})
        tags = entry.tags
        legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
        return self._put(
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
                shift=max(entry.shift, self._page_shift(words)),
                refused=entry.fault is not None or not entry.rights,
                number=self._now,
            )
        )

    def _page_shift(self, words: tuple[Word, ...]) -> int:
        """log2 of the page by the levels that were walked; the unit may keep pieces (6.5.3.2)."""
        entry = self._entry()
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
        copy = self.copies.context.get(source_id)
        root = int(self._unit.remapping.root)
        pointer = self._word(Pointer.ROOT, 0, 0, root, ALL)
        self._lookup = {(Pointer.ROOT, 0): pointer}
        if copy is not None:
            self._use(copy)
            if entry is not None:
                self._lookup = _keyed(copy)
        self._words, self._second = dict(self._lookup), {}

    def _context_kept(self, source_id: int, entry: ContextCacheEntry) -> None:
        self._put(
            Copy(
                CacheName.CONTEXT,
                self.copies.context,
                source_id,
                tuple(self._lookup.values()),
                source_id=source_id,
                domain_id=entry.domain_id,
                refused=isinstance(entry.value, Exception),
                number=self._now,
            )
        )
        if entry.domain_id is not None and not isinstance(entry.value, Exception):
            self._serves(entry.domain_id)

    def _pasid_asked(self, key: tuple[int, int], entry: object) -> None:
        copy = self.copies.pasid.get(key)
        if copy is None:
            return
        self._use(copy)
        if entry is not None:
            known = _keyed(copy)
            self._lookup.update(known)
            self._words.update(known)

    def _pasid_kept(self, key: tuple[int, int], entry: PasidCacheEntry) -> None:
        source_id, pasid = key
        refused = isinstance(entry.value, Exception)
        self._put(
            Copy(
                CacheName.PASID,
                self.copies.pasid,
                key,
                tuple(self._lookup.values()),
                source_id=source_id,
                domain_id=entry.domain_id,
                pasid=pasid,
                refused=refused,
                number=self._now,
            )
        )
        if not refused:
            self._serves(entry.domain_id)

    def _structure_asked(self, cache: CacheName, key: StructureKey, entry: object) -> None:
        if cache is CacheName.SECOND_STAGE:
            self._second = {}
        copy = self.copies.tables[cache].get(key)
        if copy is None:
            return
        if copy.via is not None:
            self._judge_domain(copy)
        self._use(copy)
        if entry is not None:
            known = _keyed(copy)
            self._words.update(known)
            if cache is CacheName.SECOND_STAGE:
                self._second = known

    def _structure_kept(self, cache: CacheName, key: StructureKey, *, refused: bool) -> None:
        domain_id, pasid, shift, prefix = key
        structure, words = Structure.FIRST_STAGE, self._words
        if cache is CacheName.SECOND_STAGE:
            structure, words = Structure.SECOND_STAGE, self._second
        last = next((known for known in reversed(words) if known[0] is structure), None)
        if last is None:
            return
        own = self._word(*above_leaves(words[last]))
        for each in (self._words, self._second):
            if last in each:
                each[last] = own
        above = (
            word
            for known, word in words.items()
            if known != last and word.structure not in LOOKUP  # of a request, not of the domain
        )
        copy = Copy(
            cache,
            self.copies.tables[cache],
            key,
            (*above, own),
            domain_id=domain_id,
            pasid=pasid,
            start=prefix << shift,
            shift=shift,
            refused=refused,
            number=self._now,
        )
        copy.via = self._entry()
        self._put(copy)

    def _interrupt_asked(self, index: int, entry: object) -> None:
        pointer = self._word(Pointer.INTERRUPT, 0, 0, int(self._unit.interrupts.table), ALL)
        self._words = {(Pointer.INTERRUPT, 0): pointer}
        copy = self.copies.interrupts.get(index)
        if copy is not None:
            self._use(copy)

    def _interrupt_kept(self, index: int, *, refused: bool) -> None:
        self._put(
            Copy(
                CacheName.INTERRUPT,
                self.copies.interrupts,
                index,
                tuple(self._words.values()),
                start=index,
                refused=refused,
                number=self._now,
            )
        )

    def _permissions_kept(self, request: Request) -> None:
        """What was read of host permission tables, with the fields that lead there (6.2.6)."""
        words: list[Word] = []
        domain_id = None
        for word in self._lookup.values():
            match word.structure:
                case Structure.CONTEXT:
                    words.append(word._replace(mask=_PERMISSION_SWITCHES))
                case Structure.PASID:
                    words.append(word._replace(mask=PERMISSION_FIELDS))
                    domain_id = PasidEntry(word.value).hptdid
                case _:
                    words.append(word)
        self._put(
            Copy(
                CacheName.HOST_PERMISSION,
                self.copies.permissions,
                _permission_key(request),
                (*words, *self._permissions.values()),
                source_id=request.source_id,
                domain_id=domain_id,
                pasid=request.pasid,
                start=request.address >> 12 << 12,
                number=self._now,
            )
        )
        self._permissions = {}

    def _given(self, given: TranslationGiven) -> None:
        """A device-TLB may have what the IOTLB has."""
        entry = given.entry
        if entry.u or not (entry.r or entry.w):
            return
        self._clients.setdefault(given.source_id, self._unit.devices.clients.get(given.source_id))
        self._forget_replaced_devices()
        kind = given.source_id, given.pasid, given.privileged
        known = self.copies.iotlb.get(kind, {}).get(given.address >> 12)
        words = tuple(self._lookup.values()) if known is None else known.words
        words = tuple(word for word in words if word.structure is not Pointer.ROOT)  # 6.6: not owed
        shift, start = entry.size.bit_length() - 1, given.address & -entry.size
        place = self.copies.devices.setdefault(given.source_id, {})
        copy = self._put(
            Copy(
                CacheName.DEVICE_TLB,
                place,
                (given.pasid, start),
                words,
                source_id=given.source_id,
                domain_id=None if known is None else known.domain_id,
                pasid=given.pasid,
                kind=None if known is None else known.kind,
                start=start,
                shift=shift,
                number=self._now,
            )
        )
        outputs = self._outputs.setdefault((given.source_id, shift, entry.address >> shift), [])
        outputs[:] = [other for other in outputs if not other.gone]
        outputs.append(copy)

    def _forget_replaced_devices(self) -> None:
        """A device-TLB is gone with its device, or when it was attached anew."""
        for source_id, client in self._clients.items():
            now = self._unit.devices.clients.get(source_id)
            if now is not client:
                self._clients[source_id] = now
                for copy in list(self.copies.devices.get(source_id, {}).values()):
                    copy.drop()

    def _translated(self, request: Request) -> None:
        """A device used a translation: one that still holds, or it is late."""
        self._forget_replaced_devices()
        held = [
            copy
            for shift in (12, 21, 30)
            for copy in self._outputs.get((request.source_id, shift, request.address >> shift), ())
            if not copy.gone
        ]
        if held and all(self._harmful(copy) is not None for copy in held):
            self._use(held[-1])

    # Domains

    def _entry(self) -> Word | None:
        """The context or PASID entry of the current request, which says where tables are."""
        legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
        wanted = Structure.CONTEXT if legacy else Structure.PASID
        words = [word for word in self._lookup.values() if word.structure is wanted]
        return words[-1] if words else None

    def _serves(self, domain_id: int) -> None:
        """The entry of the current request leads to tables under this domain-id (6.2.2.1)."""
        entry = self._entry()
        root = None if entry is None else _second_stage_root(entry)
        left = self._domains_left.get(domain_id)
        if left is not None and entry is not None:
            copy, changed = left
            if _second_stage_root(changed.word) != root:
                del self._domains_left[domain_id]
                debt = self._debt(Kind.NOT_WAITED_FOR, copy, changed)
                debt = debt._replace(missing=f"domain-id {domain_id}", section="6.5.2.9, 6.5.3.3")
                self._judged.append((self.line, debt))
        if entry is None or root is None:
            return
        roots = self._roots.setdefault(domain_id, {})
        for address, (other, other_root) in list(roots.items()):
            if address == entry.address:
                continue
            if change(other, self._current(other)):
                del roots[address]
            elif (
                other_root != root and (domain_id, *sorted((root, other_root))) not in self._shared
            ):
                self._shared.add((domain_id, min(root, other_root), max(root, other_root)))
                tables = f"two tables, at {other_root:#x} and {root:#x}, by the entries at "
                tables += f"{address:#x} and {entry.address:#x}"
                section = "6.2.2.1" if entry.structure is Structure.CONTEXT else "6.2.3.1"
                owner = Owner(domain_id=domain_id)
                debt = Debt(
                    Kind.SHARED_DOMAIN,
                    CacheName.CONTEXT if entry.structure is Structure.CONTEXT else CacheName.PASID,
                    owner,
                    entry,
                    entry.value,
                    None,
                    tables,
                    section,
                )
                self._judged.append((self.line, debt))
        roots[entry.address] = entry, root

    def _judge_domain(self, copy: Copy) -> None:
        """Whether a table is kept for the tags of the request, but came from another root.

        The entry that led there has changed, or its domain-id is another's now (6.5.3.3).
        """
        entry, via = self._entry(), copy.via
        if entry is None or via is None:
            return
        now = self._current(via)
        roots = (_root(copy.cache, each) for each in (via, entry))
        bits = change(via, now)
        if next(roots) != next(roots) and bits:
            self._note_use(copy, Change(via, now, bits), reuse=via.address != entry.address)

    # Debts

    def _put(self, copy: Copy) -> Copy:
        """A copy takes the place of one with its key, or stands before it if that is outdated."""
        known = copy.place.get(copy.key)
        if known is not None and known.words != copy.words and self._harmful(known) is not None:
            copy.older = known
        copy.put()
        return copy

    def _use(self, copy: Copy) -> None:
        self.uses += 1
        for each in copy.chain():
            self._judge(each)

    def _judge(self, copy: Copy) -> None:
        request = self._request
        for changed in self._changes(copy):
            word, now, bits = changed
            if not copy.refused and now is not None and only_more_rights(word, bits, now):
                if self._unit.options.caches.trust_cached_rights:
                    self._denying = copy, changed
                continue
            reads = request is not None and not request.access & WRITE
            if reads and only_dirty(word, bits):
                continue
            if copy.refused and copy.cache in _OF_PAGES and self._still_refused(copy):
                return
            self._note_use(copy, changed)
            return

    def _changes(self, copy: Copy) -> Iterator[Change]:
        """The words that software changed, from the root on."""
        for word in copy.words:
            now = self._current(word)
            if now != word.value:
                bits = change(word, now)
                if bits:
                    yield Change(word, now, bits)

    def _harmful(self, copy: Copy) -> Change | None:
        """The first change for which an invalidation is owed, of the copy or an older one."""
        for each in copy.chain():
            for changed in self._changes(each):
                word, now, bits = changed
                skippable = now is not None and only_more_rights(word, bits, now)
                if skippable and not each.refused and not self._counts_grants(word):
                    continue
                absent_table = each.refused and each.cache is CacheName.SECOND_STAGE
                if absent_table:  # judged by the requests that it blocks
                    continue
                if each.refused and each.cache is CacheName.IOTLB and self._still_refused(each):
                    continue
                return changed
        return None

    def _counts_grants(self, word: Word) -> bool:
        """6.5.3.5: under CM = 1 no invalidation of second-stage entries can be skipped."""
        return word.structure is Structure.SECOND_STAGE and self._unit.capabilities.cap.cm

    def _still_refused(self, copy: Copy) -> bool:
        """Whether no access to a page is let through, as the structures are now.

        A fault that is cached under CM = 1 is stale only if mapping the page made it so; tables
        that appeared on the way to it are no change of the page (6.5.3.3).
        """
        tables = onlooker(self._unit.remapping, self._memory)
        if copy.cache is CacheName.IOTLB:
            kind = next(kind for kind, space in self.copies.iotlb.items() if space is copy.place)
            address = copy.start or 0
        elif self._request is None:
            return True
        else:
            kind, address = kind_of(self._request), self._request.address
        source_id, pasid, privileged = kind
        for access in (READ, WRITE):
            request = Request(source_id, address, access, 1, pasid, privileged)
            with suppress(TranslationFault):
                translate(tables, request)
                return False
        return True

    def _note_use(self, copy: Copy, changed: Change, *, reuse: bool = False) -> None:
        key = copy.cache, copy.owner, changed.word
        known = self._uses.get(key)
        if known is not None and (known.late or known.copy is copy):
            return
        writer = self._writer_of(changed.word)
        late = self._has_waited(copy, changed.word)
        use = self._uses[key] = _Use(copy, changed, writer, self.line, reuse, late)
        if not late:
            self._open.append(use)

    def _has_waited(self, copy: Copy, word: Word) -> bool:
        """Whether software waited, after the change, for invalidations that should have paid."""
        changed = self._changed_at(word)
        if changed is None:
            return False
        stage = STAGES[copy.cache]
        return any(self._closed.get((tag, stage), -1) > changed for tag in _tags(copy))

    def _changed_at(self, word: Word) -> int | None:
        if isinstance(word.structure, Pointer):
            return self._pointers.get(word.structure)
        stamps = [self._stores[number][0] for number in _numbers(word) if number in self._stores]
        return max(stamps, default=None)

    def _writer_of(self, word: Word) -> str | None:
        if not word.size:
            return None
        stamps = [self._stores[number] for number in _numbers(word) if number in self._stores]
        return str(max(stamps, key=lambda stamp: stamp[0])[1]) if stamps else None

    def _pay(self, descriptor: BitRecord) -> None:
        self.descriptors += 1
        for tag, stage in _concerns(descriptor):
            self._recent[tag] = max(stage, self._recent.get(tag, 0))
        departures = self._unit.options.departures
        context = isinstance(descriptor, ContextCacheInvalidateDescriptor)
        if context and departures.drop_pasid_entries_with_context:
            for copy in list(self.copies.pasid.values()):
                copy.drop()
        needed = isinstance(
            descriptor, DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor
        )
        for copy in self.copies.covered(descriptor):
            changed = self._harmful(copy)
            if changed is not None:
                needed = True
                if changed.word.structure in LOOKUP and self._remaker(copy) is not None:
                    copy.early = _describe(descriptor)
                    continue
            self._leave(copy, changed)
        self.wasteful += not needed

    def _remaker(self, copy: Copy) -> Copy | None:
        """An outdated copy in a cache that is to be invalidated first, of which this is made."""
        source_id = copy.source_id
        if source_id is None or copy.cache is CacheName.HOST_PERMISSION:
            return None
        above: list[Copy | None] = []
        if copy.cache is not CacheName.CONTEXT:
            above.append(self.copies.context.get(source_id))
        if copy.cache in (CacheName.IOTLB, CacheName.DEVICE_TLB) and copy.pasid is not None:
            above.append(self.copies.pasid.get((source_id, copy.pasid)))
        if copy.cache is CacheName.DEVICE_TLB:
            start, end = copy.start or 0, (copy.start or 0) + (1 << copy.shift)
            for privileged in (False, True):
                space = self.copies.iotlb.get((source_id, copy.pasid, privileged), {})
                if end - start >> 12 < len(space):
                    above += (space.get(number) for number in range(start >> 12, end >> 12))
                else:
                    above += (each for each in space.values() if each.meets(start, end))
        outdated = (each for each in above if each is not None and self._harmful(each))
        return next(outdated, None)

    def _leave(self, copy: Copy, changed: Change | None) -> None:
        """An invalidation removes a copy; what it led to is in limbo until software has waited."""
        copy.drop()
        if changed is None:
            return
        if copy.cache in (CacheName.CONTEXT, CacheName.PASID) and copy.domain_id is not None:
            own = next((each for each in self._changes(copy) if each.word is copy.words[-1]), None)
            if own is not None and not copy.refused:
                self._domains_left[copy.domain_id] = copy, own
        moved = next((each for each in self._changes(copy) if _leads_elsewhere(each)), None)
        if moved is None:
            return
        changed, frame = moved, _frame_of(copy)
        changed_at = self._changed_at(changed.word)
        filled_at, length = self._filled.get(frame, (-1, 0))
        if changed_at is not None and filled_at > changed_at and _is_reuse(copy, length):
            self._used_again(frame, copy, changed)
        else:
            self._limbo[frame] = copy, changed

    def _used_again(self, frame: int, copy: Copy, changed: Change) -> None:
        what = "page" if copy.cache in PAGES else "table"
        debt = self._debt(Kind.NOT_WAITED_FOR, copy, changed)
        debt = debt._replace(missing=f"the {what} at {frame << 12:#x}", section="6.5.2.9, 6.5.3.6")
        self._judged.append((self.line, debt))

    def _waited(self) -> None:
        """A wait descriptor is complete: what was paid before is closed."""
        self._now += 1
        self._limbo.clear()
        self._domains_left.clear()
        self._torn.waited()
        for tag, latest in self._recent.items():
            for stage in range(latest + 1):
                self._closed[tag, stage] = self._now
        still_open: list[_Use] = []
        for use in self._open:
            if use.copy.gone:
                continue
            stage = STAGES[use.copy.cache]
            if any(self._recent.get(tag, -1) >= stage for tag in _tags(use.copy)):
                use.late = True
            else:
                still_open.append(use)
        self._open = still_open
        self._recent.clear()

    def _verdict(self, use: _Use) -> Iterator[tuple[int, Debt]]:
        kind = Kind.MISSING
        if use.copy.early:
            if not use.copy.gone and self._remaker(use.copy) is not None:
                return  # that one is the debt
            kind = Kind.WRONG_ORDER
        if use.copy.gone and not use.late:
            kind = Kind.WINDOW
        debt = self._debt(kind, use.copy, use.changed, reuse=use.reuse)
        yield use.line, debt._replace(writer=use.writer)

    def _debt(self, kind: Kind, copy: Copy, changed: Change, *, reuse: bool = False) -> Debt:
        word, now, _ = changed
        owner = copy.owner
        rule, missing = owed_for(copy.cache, owner, word, now, reuse=reuse)
        section = "6.5.3.6" if kind is Kind.WINDOW else rule.section
        if kind is Kind.WRONG_ORDER:
            section = "6.5.2.6" if copy.cache is CacheName.DEVICE_TLB else "6.5.2.1"
        writer = self._writer_of(word)
        return Debt(kind, copy.cache, owner, word, now, writer, missing, section, rule, copy.early)

    def _word(self, structure: Any, address: int, size: int, value: int, mask: int) -> Word:
        """A word, the same object as long as it stays the same."""
        if not size:
            return Word(structure, address, size, value, mask)
        known = self._read.get(address)
        if (
            known is not None
            and known.value == value
            and known.mask == mask
            and known.structure is structure
        ):
            return known
        self._frames.add(address >> 12)
        word = self._read[address] = Word(structure, address, size, value, mask)
        return word

    def _current(self, word: Word) -> int | None:
        if word.structure is Pointer.ROOT:
            remapping = self._unit.remapping
            return int(remapping.root if remapping.new_root is None else remapping.new_root)
        if word.structure is Pointer.INTERRUPT:
            interrupts = self._unit.interrupts
            return int(interrupts.table if interrupts.new_table is None else interrupts.new_table)
        try:
            return self._memory.read_record(word.address, word.size)
        except BusError:
            return None


_PAGING_MASKS = {
    rights: {each: paging_mask(each, input_output_rights=rights) for each in PAGING}
    for rights in (False, True)
}
_PERMISSION_SWITCHES = ScalableContextEntry.hpte.mask | ScalableContextEntry.eptr.mask
_DENIALS = (
    FaultReason.READ_DENIED,
    FaultReason.WRITE_DENIED,
    FaultReason.SM_READ_DENIED,
    FaultReason.SM_WRITE_DENIED,
    FaultReason.USER_DENIED,
)


def _of_page_request(found: PageRequestFinding) -> Debt:
    owner = Owner(found.source_id, None, found.pasid)
    word = Word(Structure.PAGE_REQUEST, 0, 0, found.group, ALL)
    text, section = found.text, found.wrong.section
    return Debt(Kind.PAGE_REQUEST, CacheName.DEVICE_TLB, owner, word, None, None, text, section)


def _of_torn(torn: Torn, writer: str) -> Debt:
    word = Word(torn.structure, torn.address, torn.size, torn.before, ALL)
    what = f"the {torn.structure.value} at {torn.address:#x}"
    text = f"{what} was changed by several stores while it was present, the last by {writer}"
    cache, section = _TORN[torn.structure]
    return Debt(Kind.TORN, cache, Owner(), word, torn.after, writer, text, section)


_TORN = {
    Structure.CONTEXT: (CacheName.CONTEXT, "6.2.2.1"),
    Structure.PASID: (CacheName.PASID, "6.2.3.1"),
    Structure.INTERRUPT_ENTRY: (CacheName.INTERRUPT, "9.9"),
}


def _keyed(copy: Copy) -> Words:
    return {(word.structure, word.address): word for word in copy.words}


def _permission_key(request: Request) -> tuple[int, int | None, int]:
    return request.source_id, request.pasid, request.address >> 12


def _numbers(word: Word) -> range:
    return range(word.address >> 3, (word.address + word.size - 1 >> 3) + 1)


def _tags(copy: Copy) -> Iterator[Tag]:
    """What invalidations of a copy concern."""
    if copy.cache is CacheName.INTERRUPT:
        yield "interrupts"
        return
    yield EVERYTHING
    if copy.source_id is not None:
        yield "source", copy.source_id
    if copy.domain_id is not None and copy.cache is not CacheName.DEVICE_TLB:
        yield "domain", copy.domain_id


def _concerns(descriptor: BitRecord) -> Iterator[tuple[Tag, int]]:
    """What an invalidation concerns, and the stage of its cache."""
    match descriptor:
        case ContextCacheInvalidateDescriptor():
            if descriptor.g == 1:
                yield EVERYTHING, 0
            elif descriptor.g == 3:
                yield ("source", descriptor.sid), 0
            yield ("domain", descriptor.did), 0
        case PasidCacheInvalidateDescriptor():
            yield (EVERYTHING if descriptor.g == 3 else ("domain", descriptor.did)), 1
        case IotlbInvalidateDescriptor():
            yield (EVERYTHING if descriptor.g == 1 else ("domain", descriptor.did)), 2
        case PasidIotlbInvalidateDescriptor():
            yield ("domain", descriptor.did), 2
        case DeviceTlbInvalidateDescriptor() | PasidDeviceTlbInvalidateDescriptor():
            yield ("source", descriptor.sid), 3
        case InterruptEntryCacheInvalidateDescriptor():
            yield "interrupts", 0


def _describe(descriptor: BitRecord) -> str:
    return _NAMES[type(descriptor)]


_NAMES: dict[type[BitRecord], str] = {
    ContextCacheInvalidateDescriptor: "cc_inv",
    PasidCacheInvalidateDescriptor: "pc_inv",
    IotlbInvalidateDescriptor: "iotlb_inv",
    PasidIotlbInvalidateDescriptor: "p_iotlb_inv",
}


def _device_descriptor(copy: Copy) -> str:
    name = "dev_tlb_inv" if copy.pasid is None else "p_dev_tlb_inv"
    return f"{name} of {SourceId(copy.source_id or 0)}"


def _root(cache: CacheName, entry: Word) -> int | None:
    """Where the tables of a paging-structure cache begin, by a context or PASID entry."""
    if cache is CacheName.SECOND_STAGE:
        return _second_stage_root(entry)
    return PasidEntry(entry.value).fsptptr


def _second_stage_root(entry: Word) -> int | None:
    """Where the second stage of a context or PASID entry begins; None if it has none."""
    if entry.structure is Structure.CONTEXT:
        context = ContextEntry(entry.value)
        if not context.p or context.tt is TranslationType.PASS_THROUGH:
            return None
        return context.ssptptr
    pasid = PasidEntry(entry.value)
    second = pasid.pgtt in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)
    return pasid.ssptptr if pasid.p and second else None


def _is_reuse(copy: Copy, length: int) -> bool:
    """Whether a store is by another user: not of one entry, where tables were."""
    return copy.cache in PAGES or length >= LONG_STORE


LONG_STORE = 64
PAGES = (CacheName.IOTLB, CacheName.DEVICE_TLB)


def _leads_elsewhere(changed: Change) -> bool:
    """Whether a paging entry does not lead any more to where it did."""
    word, now, _ = changed
    if word.structure not in PAGING:
        return False
    present = _SECOND_STAGE_RIGHTS if word.structure is Structure.SECOND_STAGE else PRESENT
    return now is None or not now & present or (now ^ word.value) & ADDRESS != 0


_SECOND_STAGE_RIGHTS = second_stage.READ | second_stage.WRITE


def _frame_of(copy: Copy) -> int:
    """The frame of the table, or of the piece of a page, that a copy leads to."""
    physical = copy.words[-1].value & ADDRESS
    if copy.cache is CacheName.IOTLB:
        inside = (1 << copy.shift) - 1
        physical = physical & ~inside | (copy.start or 0) & inside
    return physical >> 12
