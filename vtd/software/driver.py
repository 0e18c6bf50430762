"""A driver of one remapping unit, to be read beside the specification.

It reaches the unit through registers and memory alone (:class:`vtd.software.registers.Registers`).
Start, stop and the making of domains are here; page tables are in :mod:`vtd.software.domain`, who
uses them in :mod:`vtd.software.attachments`, what has to be invalidated after which change in
:mod:`vtd.software.guidance`. Left out: the fault event, host permission tables, and sharing of
structures between units (6.10).
"""

from __future__ import annotations

from collections.abc import Iterable

from pagetables.build import FrameAllocator
from pagetables.geometry import first_stage_geometry, second_stage_geometry
from vtd.layouts.entries import AddressWidth, PasidTranslationType
from vtd.layouts.registers import (
    Capability,
    ExtendedCapability,
    InterruptRemappingTableAddress,
    RootTableAddress,
    TranslationTableMode,
    Version,
)
from vtd.software.attachments import Attachments
from vtd.software.domain import (
    FIRST_STAGE,
    NESTED,
    PASS_THROUGH,
    SECOND_STAGE,
    Domain,
    DomainError,
)
from vtd.software.guidance import Endpoint, Guidance, Owed
from vtd.software.interrupts import InterruptTable
from vtd.software.invalidation import Interface, Invalidator
from vtd.software.memory import Flush, FlushedMemory, Memory
from vtd.software.page_request_handler import PageRequestHandler, Resolve
from vtd.software.queue_driver import QueueDriver
from vtd.software.register_driver import RegisterDriver
from vtd.software.registers import Registers, command, read, write
from vtd.software.structures import Structures
from vtd.unit.interrupts.outcome import Message
from vtd.unit.registers.capabilities import Capabilities

PAGE_SIZE = 0x1000
INTERRUPTS = 256
"""Entries of an interrupt-remapping table of one page."""


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
        self._interrupts: InterruptTable | None = None
        self._interrupt_pointer = InterruptRemappingTableAddress(0)
        self.queue: QueueDriver | None = None
        interface: Interface
        if self._queued:
            base, status = (self.structures.new_table() for _ in range(2))
            self.queue = QueueDriver(unit, memory, base, status, wide=self.scalable)
            interface = self.queue
        else:
            interface = RegisterDriver(unit, self.capabilities.iotlb_offset)
        self.invalidator = Invalidator(unit, interface, flushes_writes=self.capabilities.cap.rwbf)
        self.attachments = Attachments(
            self.capabilities, self.structures, self.guidance, self.invalidator, self.invalidate
        )

    def start(
        self,
        *,
        interrupts: bool = False,
        interrupt_entries: int = INTERRUPTS,
        extended_interrupts: bool = False,
    ) -> None:
        """Queue on, root table set, translation on; with ``interrupts`` their remapping as well.

        The queue comes first, as scalable mode knows no other interface (6.5.2), and the pointers
        before the functions that use them (6.6, 6.7). ``interrupt_entries``: a power of two from 2
        to 65536. ``extended_interrupts``: EIME (11.4.10).
        """
        if interrupt_entries not in {1 << bits for bits in range(1, 17)}:
            raise DomainError(f"interrupt_entries: {interrupt_entries}, not 2, 4 ... 65536")
        if interrupts and ("ir" not in self.capabilities.features or self.queue is None):
            raise DomainError("interrupt remapping: the unit has none, or no queue is used for it")
        if interrupts:
            base = self.structures.new_table(max(1, interrupt_entries // INTERRUPTS))
            size = interrupt_entries.bit_length() - 2
            self._interrupts = InterruptTable(
                self._memory, base, interrupt_entries, self.guidance, self.invalidate
            )
            self._interrupt_pointer = InterruptRemappingTableAddress.of(
                irta=base, eime=extended_interrupts, s=size
            )
        self.resume()

    def resume(self) -> None:
        """Program the unit as :meth:`start` did, after a reset, a sleep or :meth:`stop`."""
        if self.queue is not None:
            self.queue.enable()
        mode = TranslationTableMode.SCALABLE if self.scalable else TranslationTableMode.LEGACY
        self.invalidator.flush_writes()
        write(self._unit, RootTableAddress.of(rta=self.structures.root, ttm=mode))
        command(self._unit, srtp=True)
        self.invalidate(self.guidance.root_pointer())
        if self._interrupts is not None:
            write(self._unit, self._interrupt_pointer)
            command(self._unit, sirtp=True)
            self.invalidate(self.guidance.interrupt_pointer())
            command(self._unit, ire=True)
        if self.attachments.page_requests is not None:
            self.attachments.page_requests.enable()
        command(self._unit, te=True)

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

    def domain(
        self,
        kind: PasidTranslationType = SECOND_STAGE,
        *,
        domain_id: int | None = None,
        levels: int | None = None,
        largest: int = 30,
        second: Domain | None = None,
        guest_frames: FrameAllocator | None = None,
        memory: Memory | None = None,
    ) -> Domain:
        """A new address space of a kind; legacy mode has second stage and pass-through.

        ``levels`` of its tables, by default 4 where the unit can do that. ``largest``: log2 of the
        largest page. A nested domain lies on the ``second`` stage of another one, and its tables
        are made of ``guest_frames``, numbers of guest physical frames that ``second`` maps.
        ``memory``: where its tables are stored, if not as all structures are. DomainError for what
        the unit can't do.
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
            self._memory if memory is None else memory,
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
        if not self.scalable:
            self._levels()  # a context entry names one of these widths in any case (9.3)
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
        domain.close()
        self.invalidate(self.guidance.domain_id_given_up(domain.domain_id))
        del self.domains[domain.domain_id]

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
        """Have a function use a domain; see :meth:`Attachments.attach`."""
        endpoint = Endpoint(source_id, ats or page_requests, page_requests, physical_function)
        self.attachments.attach(endpoint, domain, pasid)

    def detach(self, source_id: int, pasid: int | None = None) -> None:
        """Take the domain away from a function; see :meth:`Attachments.detach`."""
        self.attachments.detach(source_id, pasid)

    def release(self, source_id: int) -> None:
        """Remove a function that has no domain; see :meth:`Attachments.release`."""
        self.attachments.release(source_id)

    def set_second_stage_dirty(self, domain: Domain, *, enabled: bool) -> None:
        """SSADE of a second stage; see :meth:`Attachments.set_second_stage_dirty`."""
        self.attachments.set_second_stage_dirty(domain, enabled=enabled)

    @property
    def caching_mode(self) -> bool:
        """CM: what is absent may be cached as well (6.1)."""
        return self.capabilities.cap.cm

    def serve_page_requests(self, resolve: Resolve, message: Message) -> PageRequestHandler:
        """A page request queue, and the event that the unit is to send for it; see the handler."""
        if "prs" not in self.capabilities.features or self.queue is None:
            raise DomainError("page requests: the unit has none (ECAP_REG.PRS)")
        base = self._frames.allocate() * PAGE_SIZE
        handler = PageRequestHandler(self._unit, self._memory, base, self.queue, resolve, message)
        handler.enable()
        self.attachments.page_requests = handler
        return handler

    def invalidate(self, owed: Iterable[Owed]) -> None:
        """Carry out what is owed and wait for it; see :meth:`Invalidator.carry_out`."""
        self.invalidator.carry_out(owed)
