"""Audit of invalidations: a ledger of what software owes for changes of what caches may hold.

VT-d 6.5.3. Whatever was read for a cache may stay in it until an invalidation covers it
(:mod:`vtd.auditing.copies`), with the words that it came from. A word that software changed is a
debt: invalidations pay it, and wait descriptors close it. Judged are uses of what is outdated, the
order of invalidations, pages and tables that are used again too early, and what is never paid.
The unit's policy decides what is read for caches: ``AGGRESSIVE`` keeps most and so finds most.

Here is what is told to whom. Copies are made in :mod:`vtd.auditing.cache_copies` and
``device_tlb_copies`` of what ``request_words`` and ``stored_words`` know; ``outdated`` says what is
owed, and ``uses``, ``payments``, ``waits``, ``frames_left`` and ``domain_ids`` judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devices.dma import WRITE, Request
from pagetables.bits import BitRecord
from pagetables.observer import Structure
from vtd.auditing.cache_copies import CacheCopies
from vtd.auditing.copies import Copies, Copy
from vtd.auditing.debt import Debt, Kind, Pointer, Word
from vtd.auditing.device_tlb_copies import DeviceTlbCopies
from vtd.auditing.domain_ids import DomainIds
from vtd.auditing.frames_left import FramesLeft
from vtd.auditing.outdated import Outdated
from vtd.auditing.own_stores import OwnStores
from vtd.auditing.page_request_audit import PageRequestAudit
from vtd.auditing.payments import Payments
from vtd.auditing.request_words import RequestWords
from vtd.auditing.significance import ALL
from vtd.auditing.stored_words import LOOKUP, PAGING, Change, StoredWords
from vtd.auditing.throttling import names_no_function
from vtd.auditing.torn_writes import TornWrites
from vtd.auditing.unflushed_audit import UnflushedAudit
from vtd.auditing.uses import Uses
from vtd.auditing.verdicts import Verdicts, of_no_function, of_page_request, of_torn
from vtd.auditing.waits import Waits, tells
from vtd.auditing.writers import calls
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    HostPermissionInvalidateDescriptor,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
)
from vtd.layouts.registers import ContextCommand, GlobalCommand, InvalidateAddress, IotlbInvalidate
from vtd.severity import WARNING
from vtd.unit.observer import CacheName, Observer
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit


class Audit(Observer):
    """Watches ``unit`` from now on, until :meth:`detach`; what it holds already is not judged.

    ``writer`` names who stores a word when it is stored: by default by its calls. Audits of units
    that share their memory share ``own_stores``.
    """

    def __init__(
        self,
        unit: RemappingUnit,
        writer: Callable[[], object] = calls,
        own_stores: OwnStores | None = None,
    ) -> None:
        self.copies = Copies(unit.capabilities.did_width, unit.capabilities.max_guest_address_width)
        self._unit = unit
        self._memory = unit.remapping.memory
        self._writer = writer
        self._stored = StoredWords(unit, writer)
        self._read = RequestWords(unit, self._stored)
        self._outdated = Outdated(unit, self.copies, self._stored, self._read)
        self._waits = Waits()
        self._verdicts = Verdicts(self._stored)
        self._uses = Uses(self._outdated, self._waits, self._verdicts)
        self._domain_ids = DomainIds(self._outdated, self._uses, self._verdicts)
        self._frames = FramesLeft(self._outdated, self._verdicts)
        self._payments = Payments(self._outdated, self._waits, self._domain_ids, self._frames)
        self._caches = CacheCopies(self._outdated, self._uses, self._domain_ids)
        self._device_tlbs = DeviceTlbCopies(
            self._outdated, self._uses, self._payments, self._verdicts
        )
        self._torn = TornWrites(self._memory)
        self._page_requests = PageRequestAudit(unit)
        self._unflushed = UnflushedAudit(unit)
        self._translating = False
        self._own_stores = OwnStores() if own_stores is None else own_stores
        self._own_stores.watchers += 1
        self._unnamed: set[str] = set()
        unit.observe(self)
        unit.subscribe(self._device_tlbs.event)
        self._watched = hasattr(self._memory, "watch")
        if self._watched:
            self._memory.watch(self._store)  # type: ignore[attr-defined]

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._page_requests.detach()
        self._unflushed.detach()
        self._unit.ignore(self)
        self._unit.unsubscribe(self._device_tlbs.event)
        self._own_stores.watchers -= 1
        if self._watched:
            self._memory.ignore(self._store)  # type: ignore[attr-defined]

    @property
    def uses(self) -> int:
        """How many cached entries were checked."""
        return self._uses.count

    @property
    def descriptors(self) -> int:
        """How many invalidations were carried out."""
        return self._payments.descriptors

    @property
    def wasteful(self) -> int:
        """How many of them met nothing outdated."""
        return self._payments.wasteful

    @property
    def line(self) -> int:
        """Where the reader of a log is."""
        return self._verdicts.line

    @line.setter
    def line(self, line: int) -> None:
        self._verdicts.line = self._page_requests.line = self._unflushed.line = line

    @property
    def findings(self) -> list[Debt]:
        """What is to be held against software if all ended now."""
        return [debt for _, debt in self.judged() if debt.kind.severity >= WARNING]

    def judged(self) -> list[tuple[int, Debt]]:
        """Every debt that was met, those in the window too, with the line of the log."""
        self._device_tlbs.forget_replaced()
        verdicts = list(self._verdicts.judged)
        verdicts += self._uses.judged()
        verdicts += self._domain_ids.judged()
        verdicts += [(line, of_page_request(each)) for line, each in self._page_requests.judged]
        verdicts += [
            (line, self._verdicts.of_unflushed(each)) for line, each in self._unflushed.judged
        ]
        known = {(debt.cache, debt.changed.address) for _, debt in verdicts}
        for copy in self.copies.all():
            changed = self._outdated.harmful(copy)
            if changed is None or (copy.cache, changed.word.address) in known:
                continue
            if copy.cache is not CacheName.DEVICE_TLB and not self._frames.is_on(copy):
                continue  # owed before it is on again (6.6, 6.7)
            if self._is_of_another(copy, changed, known):
                continue
            known.add((copy.cache, changed.word.address))
            kind = Kind.UNPAID
            if copy.early:
                kind = Kind.WRONG_ORDER
            elif copy.doubtful:
                kind = Kind.TIMED_OUT
            verdicts.append((self._verdicts.line, self._verdicts.debt(kind, copy, changed)))
        return sorted(verdicts, key=lambda verdict: verdict[0])

    def _is_of_another(
        self, copy: Copy, changed: Change, known: set[tuple[CacheName, int]]
    ) -> bool:
        """Whether the debt is that of an entry of which this one is made, or made beside it."""
        if changed.word.structure not in LOOKUP:
            return self._outdated.stale_table(copy, changed) is not None
        if copy.cache is CacheName.SECOND_STAGE:
            return any(changed.word.address == address for _, address in known)
        return self._outdated.remaker(copy) is not None

    def begin(self, request: Request) -> None:
        """A new request: nothing is known of where it goes."""
        if request.access & WRITE:
            self._own_stores.device_sends(request.payload)
        self.looks_ahead(request)

    def looks_ahead(self, request: Request) -> None:
        """As for a request, while another one may still store its data."""
        self._read.forget(request)
        self._uses.denying = None
        self._caches.begin(request)

    def asked(self, cache: CacheName, key: Any, entry: Any) -> None:
        """Judge what the cache may have, and know what it came from."""
        self._caches.asked(cache, key, entry)

    def kept(self, cache: CacheName, key: Any, entry: Any) -> None:
        """A new entry comes from what has been read for it."""
        self._caches.kept(cache, key, entry)

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """What an entry that is cached next will have come from."""
        if structure not in PAGING:
            self._torn.seen(structure, address, size)
        if structure is Structure.INTERRUPT_ENTRY:
            self._frames.posted(Word(structure, address, size, value, ALL))
        self._read.read(structure, address, size, value)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """The next store there is the unit's."""
        self._own_stores.unit_stores(address)

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """The unit set a flag in an entry itself."""
        self._own_stores.unit_stores(None)
        if done:
            self._read.updated(structure, address, new)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """The next store there is the unit's."""
        self._own_stores.unit_stores(address)

    def fault(self, request: Request, reason: FaultReason) -> None:
        """A right that software has granted since may be denied; a fault may be kept (6.1, 6.4)."""
        if reason in _DENIALS:
            self._uses.denied()
        entries = [key for key in self._read.words if key[0] is Structure.INTERRUPT_ENTRY]
        if entries and self._unit.capabilities.cap.cm:
            base = self._unit.interrupts.table.irta
            self._caches.interrupt_kept(entries[0][1] - base >> 4, refused=True)

    def settled(self) -> None:
        """A translated request has been let through or not: its permissions may be cached."""
        if self._read.request is not None and self._read.permissions:
            self._caches.permissions_kept(self._read.request)

    def register_written(self, offset: int, size: int, value: int) -> None:
        """Commands by which hardware empties caches itself, and new table pointers (6.6, 6.7)."""
        if offset != GlobalCommand.OFFSET:
            return
        self._stored.now += 1
        command, features = GlobalCommand(value & 0xFFFF_FFFF), self._unit.capabilities.features
        if command.srtp:
            self._stored.set_pointer(Pointer.ROOT)
            self._domain_ids.set_root()
        if command.sirtp:
            self._stored.set_pointer(Pointer.INTERRUPT)
        stopped = self._translating and not command.te and "smts" in features
        self._frames.switched(translation=command.te, interrupts=command.ire)
        self._translating = command.te
        if stopped or (command.srtp and "esrtps" in features):
            self.copies.clear_remapping()
        if command.sirtp and "esirtps" in features:
            self.copies.clear_interrupts()

    def reset(self) -> None:
        """The unit forgot everything (11.3)."""
        self.copies.clear_remapping()
        self.copies.clear_interrupts()
        self._frames.switched(translation=False, interrupts=False)
        self._translating = False

    def invalidated(self, command: BitRecord) -> None:
        """An invalidation pays; a wait descriptor closes what was paid."""
        match command:
            case InvalidationWaitDescriptor():
                if tells(command):
                    self._waited()
            case ContextCommand():
                if self._unit.registers[ContextCommand].caig:
                    self._payments.pay(
                        ContextCacheInvalidateDescriptor.of(
                            g=command.cirg, did=command.did, sid=command.sid, fm=command.fm
                        )
                    )
                self._waited()  # 6.5.1: synchronous
            case IotlbInvalidate():
                where = self._unit.registers[InvalidateAddress]
                done = self._unit.registers[IotlbInvalidate].iaig
                if done:
                    self._payments.pay(
                        IotlbInvalidateDescriptor.of(
                            g=done,
                            did=command.did,
                            addr=where.addr,
                            am=where.am,
                            ih=where.ih,
                            dr=command.dr,
                            dw=command.dw,
                        )
                    )
                self._waited()
            case PageGroupResponseDescriptor():
                pass
            case _:
                if isinstance(command, HostPermissionInvalidateDescriptor):
                    self._device_tlbs.permissions_invalidated(command)
                self._payments.pay(command)
                self._check_function(command)

    def _check_function(self, command: BitRecord) -> None:
        """PFSID of device-TLB invalidations; each function is named once."""
        text = names_no_function(self._unit, command)
        if text is not None and text not in self._unnamed:
            self._unnamed.add(text)
            self._verdicts.add(of_no_function(command.fields()["sid"], text))

    def _waited(self) -> None:
        """A wait descriptor is complete: what was paid before is closed."""
        self._stored.now += 1
        self._frames.waited()
        self._domain_ids.waited()
        self._torn.waited()
        self._uses.waited()
        self._waits.waited(self._stored.now)

    def _store(self, address: int, data: bytes) -> None:
        """Something is about to be stored: by software, unless the unit or a device said so."""
        frames = range(address >> 12, (address + max(len(data), 1) - 1 >> 12) + 1)
        self._stored.touched(frames)
        if self._own_stores.make(address, data):
            return
        self._stored.now += 1
        torn = self._torn.stored(address, data, self._verdicts.line)
        if torn is not None:
            self._verdicts.add(of_torn(torn, str(self._writer())))
        for frame in frames:
            self._stored.store(frame, address, data)
        self._frames.store(address, len(data))


_DENIALS = (
    FaultReason.READ_DENIED,
    FaultReason.WRITE_DENIED,
    FaultReason.SM_READ_DENIED,
    FaultReason.SM_WRITE_DENIED,
    FaultReason.USER_DENIED,
)
