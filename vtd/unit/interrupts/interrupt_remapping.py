"""Interrupt remapping and posting: from an interrupt request to the interrupt (VT-d 5.1, 5.2).

Conditions in the order of 5.1.4.
"""

from __future__ import annotations

from devices.interrupt_messages import RemappableAddress
from pagetables.bits import BitRecord
from pagetables.memory import BusError, TableMemory
from pagetables.observer import Structure
from pagetables.stores import UnsnoopedMemory
from vtd.layouts.interrupt_entries import (
    XAPIC_DESTINATION,
    DeliveryMode,
    DestinationMode,
    PostedInterruptDescriptor,
    PostedIrte,
    RemappableData,
    RemappedIrte,
    SourceIdQualifier,
    SourceValidationType,
    TriggerMode,
)
from vtd.layouts.registers import GlobalStatus, InterruptRemappingTableAddress
from vtd.unit.caching.cache import Cache
from vtd.unit.interrupts import rules
from vtd.unit.interrupts.outcome import Interrupt, Posted, compatibility_interrupt
from vtd.unit.observer import CacheName, Observer
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.requests.faults import FaultReason
from vtd.unit.state import Stateful

IRTE_SIZE = 16
DESCRIPTOR_SIZE = 64

IGNORED_FUNCTION_BITS = {
    SourceIdQualifier.ALL_BITS: 0b000,
    SourceIdQualifier.IGNORE_BIT_2: 0b100,
    SourceIdQualifier.IGNORE_BITS_2_1: 0b110,
    SourceIdQualifier.IGNORE_BITS_2_0: 0b111,
}


class InterruptFault(Exception):  # noqa: N818 - the specification's word
    """An interrupt request that is blocked; ``index`` is 0 where the reason has none."""

    def __init__(self, reason: FaultReason, index: int = 0, *, fpd: bool = False) -> None:
        super().__init__(f"fault {reason:#04x}: {reason.text}")
        self.reason = reason
        self.index = index
        self.fpd = fpd

    @property
    def recorded(self) -> bool:
        """Whether fault processing is not disabled for this fault."""
        return not (self.fpd and self.reason.qualified)


class InterruptRemapping(Stateful):
    """The interrupt-remapping table of a unit and its interrupt entry cache."""

    STATE = "table", "new_table", "cache", "posted_hits"

    def __init__(self, capabilities: Capabilities, memory: TableMemory, options: Options) -> None:
        self._capabilities = capabilities
        self.memory = memory
        self._snooped = memory.snooped if isinstance(memory, UnsnoopedMemory) else memory
        self._departures = options.departures
        self.table = InterruptRemappingTableAddress()
        """As latched by GCMD.SIRTP."""
        self.new_table: InterruptRemappingTableAddress | None = None
        """What SIRTP has set, while the old one is still in use (6.7)."""
        self._delays_table = options.caches.old_pointers and "esirtps" not in capabilities.features
        self.cache: Cache[int, RemappedIrte | PostedIrte] = Cache(options.caches.interrupt, int)
        self._keeps_faults = options.caches.cache_faults and "cm" in capabilities.features
        self.observer: Observer | None = None
        self.posted_hits = 0
        """Hits of the cache on entries for posted interrupts."""

    def set_table(self, latched: InterruptRemappingTableAddress, status: GlobalStatus) -> None:
        """SIRTP: from now on, or by policy in a running unit from the global invalidation on."""
        only_moved = not (latched ^ self.table) & ~InterruptRemappingTableAddress.irta.mask
        self.new_table = latched
        if not (self._delays_table and status.ires and status.irtps and only_moved):
            self._use_new_table()

    def _use_new_table(self) -> None:
        if self.new_table is not None:
            self.table, self.new_table = self.new_table, None

    def clear(self) -> None:
        """Global invalidation of the interrupt entry cache."""
        self._use_new_table()
        self.cache.clear()

    def invalidate(self, index: int, count: int) -> None:
        """Index-selective invalidation of ``count`` entries (6.5.2.8)."""
        self.cache.remove(lambda key, _: index <= key < index + count)

    def remap(
        self, status: GlobalStatus, source_id: int, address: int, data: int
    ) -> Interrupt | Posted:
        """What becomes of a 4-byte write to FEEx_xxxxh; raises InterruptFault if it is blocked."""
        ecap = self._capabilities.ecap
        if not status.ires:
            if ecap.irreq:
                raise InterruptFault(FaultReason.IR_REMAPPING_REQUIRED)
            return compatibility_interrupt(address, data)
        if ecap.eimer and not self.table.eime:
            raise InterruptFault(FaultReason.IR_EXTENDED_MODE_REQUIRED)
        request = RemappableAddress(address & 0xFFFF_FFFF)
        if not request.format:
            if rules.is_compatibility_format_blocked(self._departures, status, self.table):
                raise InterruptFault(FaultReason.IR_COMPATIBILITY_BLOCKED)
            return compatibility_interrupt(address, data)
        index = request.handle
        if request.shv:
            if data & RemappableData.RESERVED:
                raise InterruptFault(FaultReason.IR_RESERVED_REQUEST)
            subhandle = RemappableData(data).subhandle
            index = rules.interrupt_index(self._departures, index, subhandle)
        entry = self.entry(index, source_id)
        outcome: Interrupt | Posted
        if isinstance(entry, PostedIrte):
            outcome = self._post(entry, index)
        else:
            destination = self._destination(entry.dst)
            trigger = rules.trigger_mode(self._departures, entry)
            outcome = Interrupt(entry.v, entry.dlm, trigger, entry.dm, entry.rh, destination)
        if self.cache.peek(index) is None:  # 6.4: not where any fault condition was met
            self._keep(index, entry)
        return outcome

    def _keep(self, index: int, entry: RemappedIrte | PostedIrte) -> None:
        self.cache.put(index, entry)
        if self.observer is not None:
            self.observer.kept(CacheName.INTERRUPT, index, entry)

    def entry(self, index: int, source_id: int | None = None) -> RemappedIrte | PostedIrte:
        """The entry of an index that is present and free of reserved bits, from cache or memory.

        ``source_id`` is a requester that it has to accept.
        """
        address = self.table.irta + index * IRTE_SIZE
        beyond_width = address >> self._capabilities.host_address_width
        if index >= 2 << self.table.s or beyond_width:
            raise InterruptFault(FaultReason.IR_INDEX_BEYOND_TABLE, index)
        cached, observer = self.cache.find(index), self.observer
        if observer is not None:
            observer.asked(CacheName.INTERRUPT, index, cached)
        if cached is not None:
            self.posted_hits += isinstance(cached, PostedIrte)
            if self._keeps_faults:
                self._check(cached, source_id, index)
            else:
                self._verify_source(cached, source_id, index)
            return cached
        try:
            entry = RemappedIrte(self.memory.read_record(address, IRTE_SIZE))
            if observer is not None:
                observer.read(Structure.INTERRUPT_ENTRY, address, IRTE_SIZE, entry)
        except BusError as error:
            raise InterruptFault(FaultReason.IR_READ_ERROR, index) from error
        looked_at = rules.as_looked_at(self._departures, entry, self._capabilities.features)
        found = PostedIrte(looked_at) if looked_at.im else looked_at
        if self._keeps_faults:  # 6.4: as it is, and judged at each use
            self._keep(index, found)
        self._check(found, source_id, index)
        return found

    def _check(self, entry: RemappedIrte | PostedIrte, source_id: int | None, index: int) -> None:
        if not entry.p:
            raise InterruptFault(FaultReason.IR_NOT_PRESENT, index, fpd=entry.fpd)
        for check in rules.in_order(self._departures, (self._verify_source, self._check_reserved)):
            check(entry, source_id, index)

    def _check_reserved(self, entry: RemappedIrte | PostedIrte, _: int | None, index: int) -> None:
        """Reserved bits and values (9.9, 9.10)."""
        if (
            self._has_reserved_bits(entry)
            or (
                isinstance(entry, RemappedIrte)
                and rules.has_reserved_value(self._departures, entry, self.table)
            )
            or rules.has_reserved_validation(self._departures, entry)
        ):
            raise InterruptFault(FaultReason.IR_RESERVED_ENTRY, index, fpd=entry.fpd)

    def _has_reserved_bits(self, entry: BitRecord) -> int:
        return entry & entry.reserved_mask(self._capabilities.implementation)

    def _verify_source(
        self, entry: RemappedIrte | PostedIrte, source_id: int | None, index: int
    ) -> None:
        """SVT, SQ and SID (9.9)."""
        accepted = True
        if source_id is None:
            return
        if entry.svt is SourceValidationType.SOURCE_ID:
            accepted = not (source_id ^ entry.sid) & ~IGNORED_FUNCTION_BITS[entry.sq]
        elif entry.svt is SourceValidationType.BUS_RANGE:
            buses = rules.bus_range(self._departures, entry)
            accepted = buses.first <= source_id >> 8 <= buses.last
        elif entry.svt is SourceValidationType.RESERVED_3:
            accepted = rules.has_reserved_validation(self._departures, entry)
        if not accepted:
            raise InterruptFault(FaultReason.IR_SOURCE_REJECTED, index, fpd=entry.fpd)

    def _destination(self, field: int) -> int:
        """APIC id of a 32-bit destination field: bits 15:8 in xAPIC mode."""
        return field if self.table.eime else field >> 8 & 0xFF

    def _post(self, entry: PostedIrte, index: int) -> Posted:
        """Record the interrupt in its descriptor in one atomic update (5.2.3)."""
        address = entry.descriptor_address
        while True:
            try:
                before = PostedInterruptDescriptor(
                    self._snooped.read_record(address, DESCRIPTOR_SIZE)
                )
                if self.observer is not None:
                    self.observer.read(
                        Structure.POSTED_DESCRIPTOR, address, DESCRIPTOR_SIZE, before
                    )
                reserved = self._has_reserved_bits(before) or (
                    not self.table.eime and before.ndst & ~XAPIC_DESTINATION
                )
                if reserved:
                    raise InterruptFault(FaultReason.IR_DESCRIPTOR_RESERVED, index, fpd=entry.fpd)
                notify = not before.on and (entry.urg or not before.sn)
                after = before.replace(pir=before.pir | 1 << entry.vv, on=before.on or notify)
                done = self._exchange(address, before, after)
            except BusError as error:
                raise InterruptFault(
                    FaultReason.IR_DESCRIPTOR_ERROR, index, fpd=entry.fpd
                ) from error
            if done:
                break
        notification = Interrupt(
            before.nv,
            DeliveryMode.FIXED,
            TriggerMode.EDGE,
            DestinationMode.PHYSICAL,
            redirection_hint=False,
            destination=self._destination(before.ndst),
        )
        return Posted(address, entry.vv, notification if notify else None)

    def _exchange(
        self, address: int, before: PostedInterruptDescriptor, after: PostedInterruptDescriptor
    ) -> bool:
        observer = self.observer
        if observer is not None:
            structure = Structure.POSTED_DESCRIPTOR
            observer.update(structure, address, DESCRIPTOR_SIZE, before, after)
        done = self._snooped.compare_exchange(address, DESCRIPTOR_SIZE, before, after)
        if observer is not None:
            observer.updated(Structure.POSTED_DESCRIPTOR, address, after, done=done)
        return done
