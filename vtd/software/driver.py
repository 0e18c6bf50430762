"""A driver of one remapping unit, to be read beside the specification.

It reaches the unit through registers and memory alone (:class:`vtd.software.registers.Registers`).
Start and stop are here, and which requester uses which domain; page tables are in
:mod:`vtd.software.domain`, what has to be invalidated in :mod:`vtd.software.guidance`. Left out:
the fault event, host permission tables, and sharing of structures between units (6.10).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from pagetables.bits import BitRecord
from pagetables.build import FrameAllocator
from pagetables.geometry import first_stage_geometry, second_stage_geometry
from vtd.layouts.descriptors import DescriptorType
from vtd.layouts.entries import (
    AddressWidth,
    ContextEntry,
    FirstStagePagingMode,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    TranslationType,
)
from vtd.layouts.registers import (
    Capability,
    ExtendedCapability,
    FaultStatus,
    InterruptRemappingTableAddress,
    RootTableAddress,
    TranslationTableMode,
    Version,
)
from vtd.software.domain import (
    FIRST_STAGE,
    NESTED,
    PASS_THROUGH,
    SECOND_STAGE,
    Domain,
    DomainError,
)
from vtd.software.guidance import RID_PASID, Endpoint, Guidance, Owed, User
from vtd.software.interrupts import InterruptTable
from vtd.software.memory import Flush, FlushedMemory, Memory
from vtd.software.page_request_handler import PageRequestHandler, Resolve
from vtd.software.queue_driver import QueueDriver
from vtd.software.register_driver import RegisterDriver
from vtd.software.registers import PATIENCE, NoAnswerError, Registers, command, read, write
from vtd.software.structures import DIRECTORY_SIZE_CODE, PASIDS, Structures
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.event_interrupt import Message

PAGE_SIZE = 0x1000
INTERRUPTS = 256
"""Entries of the interrupt-remapping table: one page."""


class Invalidations(Protocol):
    """Either interface of 6.5, taken with descriptors."""

    def submit(self, *descriptors: BitRecord) -> None: ...

    def wait(self, *, drain_page_requests: bool = False, fence: bool = False) -> bool: ...

    @property
    def complete(self) -> bool: ...


class Driver:
    """Drives ``unit``; structures are made in ``memory`` of frames from ``frames``.

    ``scalable`` and ``queued`` choose the translation table mode and the invalidation interface, by
    default the most that the unit can do. ``host_address_width`` is what the DMAR table says.
    ``flush`` writes back cache lines; it is called where the unit does not snoop them.
    """

    def __init__(
        self,
        unit: Registers,
        memory: Memory,
        frames: FrameAllocator,
        *,
        scalable: bool | None = None,
        queued: bool | None = None,
        host_address_width: int = 52,
        flush: Flush | None = None,
    ) -> None:
        self._unit = unit
        self._frames = frames
        self.capabilities = Capabilities(
            read(unit, Version),
            read(unit, Capability),
            read(unit, ExtendedCapability),
            host_address_width,
        )
        features = self.capabilities.features
        self.scalable = "smts" in features if scalable is None else scalable
        self._queued = "qi" in features if queued is None else queued
        if self.scalable and not (self._queued and "smts" in features):
            raise DomainError("scalable mode: the unit has none, or it is to do without a queue")
        if self._queued and "qi" not in features:
            raise DomainError("queued invalidation: the unit has none")
        if not self._queued and self.capabilities.major_version >= 6:
            raise DomainError("register-based invalidation: not in major version 6 (6.5)")
        coherent = "c" in features and (not self.scalable or "smpwcs" in features)
        self._memory = memory if coherent or flush is None else FlushedMemory(memory, flush)
        self.guidance = Guidance(self.capabilities, scalable=self.scalable)
        self.structures = Structures(self._memory, frames, scalable=self.scalable)
        self.domains: dict[int, Domain] = {}
        self.endpoints: dict[int, Endpoint] = {}
        """The functions that have a context entry, by source-id."""
        self._users: dict[tuple[int, int | None], tuple[User, Domain]] = {}
        self._quarantine: list[tuple[FrameAllocator, int]] = []
        """Frames that nobody may have before the next completed wait."""
        self._page_requests: PageRequestHandler | None = None
        self._interrupts: InterruptTable | None = None
        self.queue: QueueDriver | None = None
        self._invalidations: Invalidations
        if self._queued:
            base, status = (frames.allocate() * PAGE_SIZE for _ in range(2))
            self.queue = QueueDriver(unit, memory, base, status, wide=self.scalable)
            self._invalidations = self.queue
        else:
            self._invalidations = RegisterDriver(unit, self.capabilities.iotlb_offset)

    # Start and stop

    def start(self, *, interrupts: bool = False, extended_interrupts: bool = False) -> None:
        """Queue on, root table set, translation on; with ``interrupts`` their remapping as well.

        The queue comes first, as scalable mode knows no other interface (6.5.2), and the pointers
        before the functions that use them (6.6, 6.7). ``extended_interrupts``: EIME (11.4.10).
        """
        if self.queue is not None:
            self.queue.enable()
        mode = TranslationTableMode.SCALABLE if self.scalable else TranslationTableMode.LEGACY
        self._commit()
        write(self._unit, RootTableAddress.of(rta=self.structures.root, ttm=mode))
        command(self._unit, srtp=True)
        self.invalidate(self.guidance.root_pointer())
        if interrupts:
            self._start_interrupts(extended_interrupts)
        command(self._unit, te=True)

    def _start_interrupts(self, extended: bool) -> None:
        if "ir" not in self.capabilities.features or self.queue is None:
            raise DomainError("interrupt remapping: the unit has none, or no queue is used for it")
        base = self.structures.new_table()
        self._interrupts = InterruptTable(
            self._memory, base, INTERRUPTS, self.guidance, self.invalidate
        )
        self._commit()
        size = INTERRUPTS.bit_length() - 2
        write(self._unit, InterruptRemappingTableAddress.of(irta=base, eime=extended, s=size))
        command(self._unit, sirtp=True)
        self.invalidate(self.guidance.interrupt_pointer())
        command(self._unit, ire=True)

    def stop(self) -> None:
        """Remapping off, then the queue once it is quiet (6.5.2); tables stay as they are."""
        command(self._unit, te=False)
        if self._interrupts is not None:
            command(self._unit, ire=False)
        if self.queue is not None:
            self.queue.disable()

    @property
    def interrupts(self) -> InterruptTable:
        """The interrupt-remapping table; DomainError unless started with interrupts."""
        if self._interrupts is None:
            raise DomainError("interrupt remapping is not in use")
        return self._interrupts

    # Domains

    def domain(
        self,
        kind: PasidTranslationType = SECOND_STAGE,
        *,
        domain_id: int | None = None,
        levels: int | None = None,
        largest: int = 30,
        second: Domain | None = None,
        guest_frames: FrameAllocator | None = None,
    ) -> Domain:
        """A new address space of a kind; legacy mode has second stage and pass-through.

        ``levels`` of its tables, by default 4 where the unit can do that. ``largest``: log2 of the
        largest page. A nested domain lies on the ``second`` stage of another one, and its tables
        are made of ``guest_frames``, numbers of guest physical frames that ``second`` maps.
        DomainError for what the unit can't do.
        """
        self._check_kind(kind, second, guest_frames)
        domain_id = self._free_domain_id() if domain_id is None else domain_id
        if domain_id in self.domains or not 0 < domain_id < 1 << self.capabilities.did_width:
            raise DomainError(f"domain-id {domain_id}: in use, or none of this unit")
        implementation = self.capabilities.implementation
        geometry = None
        preset = 0
        if kind in (FIRST_STAGE, NESTED):
            geometry = first_stage_geometry(levels or 4, implementation)
            if len(geometry.levels) == 5 and "fs5lp" not in self.capabilities.features:
                raise DomainError("levels: the unit has no 5-level paging")
            if "smpwcs" not in self.capabilities.features:  # 3.6.2: it can't set A and D
                preset = geometry.accessed | geometry.dirty
        elif kind is SECOND_STAGE:
            geometry = second_stage_geometry(levels or self._levels(), implementation)
            if len(geometry.levels) - 2 not in self.capabilities.address_widths:
                raise DomainError(f"levels: the unit has no second stage of {levels}")
        domain = self.domains[domain_id] = Domain(
            self,
            domain_id,
            kind,
            self._memory,
            self._frames if guest_frames is None else guest_frames,
            geometry,
            second=second,
            largest=largest,
            preset=preset,
        )
        return domain

    def _check_kind(
        self,
        kind: PasidTranslationType,
        second: Domain | None,
        guest_frames: FrameAllocator | None,
    ) -> None:
        needs = {FIRST_STAGE: "fsts", NESTED: "nest", SECOND_STAGE: "ssts", PASS_THROUGH: "pt"}
        if kind not in needs:
            raise DomainError(f"kind: {kind.name} is none of a domain")
        legacy = kind is SECOND_STAGE and not self.scalable
        if not legacy and needs[kind] not in self.capabilities.features:
            raise DomainError(f"kind: the unit has no {kind.name}")
        if not self.scalable and kind not in (SECOND_STAGE, PASS_THROUGH):
            raise DomainError(f"kind: {kind.name} is for scalable mode")
        nested = kind is NESTED
        if nested != (second is not None) or nested != (guest_frames is not None):
            raise DomainError("second, guest_frames: for nested domains, which need both")
        if second is not None and second.kind is not SECOND_STAGE:
            raise DomainError("second: not a second-stage domain")

    def _free_domain_id(self) -> int:
        # 0 tags what is absent under CM = 1 (6.2.2.1), so it is left alone everywhere
        for domain_id in range(1, 1 << self.capabilities.did_width):
            if domain_id not in self.domains:
                return domain_id
        raise DomainError("no domain-id is left")

    def _levels(self) -> int:
        widths = self.capabilities.address_widths
        if not widths:
            raise DomainError("the unit has no second-stage tables (CAP_REG.SAGAW)")
        return (AddressWidth.AGAW_48 if AddressWidth.AGAW_48 in widths else max(widths)) + 2

    def close(self, domain: Domain) -> None:
        """Give up a domain that nobody uses; its domain-id may be used again afterwards."""
        if domain.users or domain.nested:
            raise DomainError(f"domain {domain.domain_id} is in use")
        if domain.second is not None:
            domain.second.nested.remove(domain)
        domain.release_tables()
        self.invalidate(self.guidance.domain_id_given_up(domain.domain_id))
        del self.domains[domain.domain_id]

    # Who uses which domain

    def attach(
        self,
        source_id: int,
        domain: Domain,
        pasid: int | None = None,
        *,
        ats: bool = False,
        page_requests: bool = False,
        physical_function: int | None = None,
    ) -> None:
        """Have a function use a domain, for requests with ``pasid`` or for those without.

        ``ats``: it has a device-TLB, which the device is allowed to use from now on.
        ``page_requests``: it may ask for pages. ``physical_function``: source-id of a virtual
        function's physical one. DomainError if the place is taken.
        """
        endpoint = Endpoint(source_id, ats or page_requests, physical_function)
        self._check_attachment(endpoint, domain, pasid)
        if self.structures.add_context_table(source_id):
            self.invalidate(self.guidance.root_entry_added())
        user = User(endpoint, pasid, domain.domain_id, domain.kind)
        if not self.scalable:
            self.endpoints[source_id] = endpoint
            self._add_user(user, domain)
            entry = self._context_entry(user, domain)
            self.structures.store(self.structures.context_entry(source_id), entry)
            self.invalidate(self.guidance.context_entry_added(endpoint))
            return
        if source_id not in self.endpoints:
            self._add_endpoint(endpoint, page_requests)
        if self.structures.add_pasid_table(source_id, user.table_pasid):
            self.invalidate(self.guidance.pasid_directory_entry_added())
        self._add_user(user, domain)
        at = self.structures.pasid_entry(source_id, user.table_pasid)
        self.structures.store(at, self.pasid_entry(domain))
        self.invalidate(self.guidance.pasid_entry_added(user))

    def detach(self, source_id: int, pasid: int | None = None) -> None:
        """Take the domain away from a function, or from one PASID of it.

        When this returns nothing of it is cached, and no page request of it is waiting (7.10).
        """
        if (source_id, pasid) not in self._users:
            raise DomainError(f"source-id {source_id:#x}, PASID {pasid}: not attached")
        user, domain = self._users.pop((source_id, pasid))
        domain.users.remove(user)
        if not self.scalable:
            self.structures.withdraw(self.structures.context_entry(source_id))
            del self.endpoints[source_id]
            owed = self.guidance.context_entry_removed(user.endpoint, [user.domain_id])
        else:
            at = self.structures.pasid_entry(source_id, user.table_pasid)
            self.structures.withdraw(at)
            owed = self.guidance.pasid_entry_removed(user)
        if self._page_requests is None or not user.endpoint.ats:
            self.invalidate(owed)
        else:
            self._drain(self._page_requests, owed)

    def release(self, source_id: int) -> None:
        """Remove the context entry of a function all of whose PASIDs are detached."""
        if any(user.endpoint.source_id == source_id for user, _ in self._users.values()):
            raise DomainError(f"source-id {source_id:#x}: still attached")
        endpoint = self.endpoints.pop(source_id)
        self.quarantine(self._frames, self.structures.pasid_frames(source_id))
        self.structures.withdraw(self.structures.context_entry(source_id))
        self.invalidate(self.guidance.context_entry_removed(endpoint, []))

    def _check_attachment(self, endpoint: Endpoint, domain: Domain, pasid: int | None) -> None:
        source_id, features = endpoint.source_id, self.capabilities.features
        if self.domains.get(domain.domain_id) is not domain:
            raise DomainError(f"domain {domain.domain_id} is closed, or another driver's")
        if (source_id, pasid) in self._users:
            raise DomainError(f"source-id {source_id:#x}, PASID {pasid}: attached already")
        if endpoint.ats and ("dt" not in features or (not self.scalable and not domain.levels)):
            raise DomainError("ats: the unit has no device-TLBs, or none for pass-through (9.3)")
        if self.endpoints.get(source_id, endpoint) != endpoint:
            raise DomainError(f"source-id {source_id:#x}: release it before its ATS changes")
        if pasid is None:
            return
        if not self.scalable or "pasid" not in features:
            raise DomainError("pasid: the unit has none, or is in legacy mode")
        if not RID_PASID < pasid < min(PASIDS, 1 << self.capabilities.pasid_width):
            raise DomainError(f"pasid: {pasid} is not in reach, or that of requests without one")

    def _add_user(self, user: User, domain: Domain) -> None:
        self._users[user.endpoint.source_id, user.pasid] = user, domain
        domain.users.append(user)

    def _add_endpoint(self, endpoint: Endpoint, page_requests: bool) -> None:
        """A scalable-mode context entry, with an empty PASID directory."""
        entry = ScalableContextEntry.of(
            p=True,
            dte=endpoint.ats,
            pre=page_requests,
            paside="pasid" in self.capabilities.features,
            pdts=DIRECTORY_SIZE_CODE,
            pasiddirptr=self.structures.new_table(),
        )
        self.endpoints[endpoint.source_id] = endpoint
        self.structures.store(self.structures.context_entry(endpoint.source_id), entry)
        self.invalidate(self.guidance.context_entry_added(endpoint))

    def _context_entry(self, user: User, domain: Domain) -> ContextEntry:
        entry = ContextEntry.of(p=True, did=domain.domain_id)
        if not domain.levels:  # 9.3: AW as the unit's largest, though no table is walked
            width = max(self.capabilities.address_widths, default=AddressWidth.AGAW_48)
            return entry.replace(tt=TranslationType.PASS_THROUGH, aw=width)
        kind = TranslationType.DEVICE_TLB if user.endpoint.ats else TranslationType.SECOND_STAGE
        return entry.replace(tt=kind, aw=domain.address_width, ssptptr=domain.root)

    def pasid_entry(self, domain: Domain) -> PasidEntry:
        """The PASID table entry that leads to a domain (9.6)."""
        entry = PasidEntry.of(p=True, pgtt=domain.kind, did=domain.domain_id)
        if "smpwcs" in self.capabilities.features:
            entry = entry.replace(pwsnp=True)
        second = domain if domain.kind is SECOND_STAGE else domain.second
        if second is not None:
            entry = entry.replace(
                aw=second.address_width, ssptptr=second.root, ssade=second.second_stage_dirty
            )
        if domain.kind in (FIRST_STAGE, NESTED):
            mode = FirstStagePagingMode(domain.levels - 4)
            entry = entry.replace(fsptptr=domain.root, fspm=mode)
        return entry

    def set_second_stage_dirty(self, domain: Domain, *, enabled: bool) -> None:
        """SSADE of every entry that leads to a second stage, which have to agree (6.2.3.1)."""
        if domain.kind is not SECOND_STAGE or not self.scalable:
            raise DomainError("dirty tracking: for second stages in scalable mode")
        if "ssads" not in self.capabilities.features:
            raise DomainError("dirty tracking: the unit has none (ECAP_REG.SSADS)")
        if domain.second_stage_dirty == enabled:
            return
        domain.second_stage_dirty = enabled
        owed: list[Owed] = []
        for using in (domain, *domain.nested):
            for user in using.users:
                at = self.structures.pasid_entry(user.endpoint.source_id, user.table_pasid)
                self.structures.replace(at, self.pasid_entry(using))
                change = (
                    self.guidance.pasid_entry_removed
                    if enabled
                    else (self.guidance.pasid_entry_changed)
                )
                owed += change(user)
        self.invalidate(in_order(owed))

    # Page requests

    def serve_page_requests(self, resolve: Resolve, message: Message) -> PageRequestHandler:
        """A page request queue, and the event that the unit is to send for it; see the handler."""
        if "prs" not in self.capabilities.features or self.queue is None:
            raise DomainError("page requests: the unit has none (ECAP_REG.PRS)")
        base = self._frames.allocate() * PAGE_SIZE
        self._page_requests = PageRequestHandler(
            self._unit, self._memory, base, self.queue, resolve, message
        )
        self._page_requests.enable()
        return self._page_requests

    def _drain(self, handler: PageRequestHandler, owed: Iterable[Owed]) -> None:
        """7.10: responses out, invalidations, requests in; what came in is answered."""
        self._invalidations.wait(fence=True)
        self.invalidate(owed, drain_page_requests=True)
        handler.service()

    # Invalidation

    @property
    def caching_mode(self) -> bool:
        """CM: what is absent may be cached as well (6.1)."""
        return self.capabilities.cap.cm

    def invalidate(self, owed: Iterable[Owed], *, drain_page_requests: bool = False) -> None:
        """Have descriptors carried out and wait for them; without any, have stores seen (6.8).

        NoAnswerError if the unit does not complete them: frames that were taken out of tables
        stay out of use until a later invalidation is complete.
        """
        descriptors = iter([each.descriptor for each in owed])
        batch = list(islice(descriptors, self._batch))
        if not batch and not drain_page_requests:
            self._commit()
        while batch or drain_page_requests:
            self._invalidations.submit(*batch)
            batch = list(islice(descriptors, self._batch))
            if not self._invalidations.wait(drain_page_requests=drain_page_requests and not batch):
                self._await()
            drain_page_requests = drain_page_requests and bool(batch)
        self._leave_quarantine()

    @property
    def _batch(self) -> int:
        return 64 if self.queue is None else min(64, self.queue.capacity - 1)

    def _await(self) -> None:
        for _ in range(PATIENCE):
            if self._invalidations.complete:
                return
        status = read(self._unit, FaultStatus)
        raise NoAnswerError(f"invalidations are not complete; FSTS_REG is {status}")

    def _commit(self) -> None:
        """Make stores visible that no invalidation follows (6.8)."""
        if self.capabilities.cap.rwbf:
            command(self._unit, wbf=True)

    def quarantine(self, allocator: FrameAllocator, frames: Sequence[int]) -> None:
        """Give frames back once the next invalidation is complete."""
        self._quarantine += [(allocator, frame) for frame in frames]

    def _leave_quarantine(self) -> None:
        for allocator, frame in self._quarantine:
            allocator.free(frame)
        self._quarantine.clear()


_ORDER = {
    each: place
    for place, types in enumerate(
        (
            (DescriptorType.CC_INV,),
            (DescriptorType.PC_INV,),
            (DescriptorType.IOTLB_INV, DescriptorType.P_IOTLB_INV),
            (DescriptorType.DEV_TLB_INV, DescriptorType.P_DEV_TLB_INV),
        )
    )
    for each in types
}
"""Context-cache, PASID-cache, IOTLB, device-TLB."""


def in_order(owed: Iterable[Owed]) -> Iterator[Owed]:
    """Several changes invalidated together, without repetition: caches in the order of 6.5.2.12."""
    unique = dict.fromkeys(owed)
    return iter(sorted(unique, key=lambda each: _ORDER[each.descriptor.TYPE]))
