"""A requester's way to memory through a remapping unit (implements ``devices.dma.AtsPort``).

VT-d 3.13: transfers are cut at 4 KiB boundaries of the input address, and each part is translated,
carried out or refused for itself.
"""

from __future__ import annotations

from devices.dma import (
    READ,
    WRITE,
    AddressType,
    AtomicOp,
    Completion,
    CompletionStatus,
    PageRequest,
    TranslationCompletion,
    split_pages,
)
from pagetables.memory import BusError, PhysicalMemory
from vtd.unit.caching.iotlb import FRAME
from vtd.unit.interrupts.interrupt_remapping import InterruptFault
from vtd.unit.requests.faults import FaultReason
from vtd.unit.requests.request import ATOMIC, INTERRUPT_RANGE, Request
from vtd.unit.translation.refill import refill
from vtd.unit.unit import RemappingUnit

UNSUPPORTED = Completion(CompletionStatus.UNSUPPORTED_REQUEST)
SUCCESS = Completion(CompletionStatus.SUCCESS)


class UnitPort:
    """The port of one source-id behind ``unit``."""

    def __init__(self, unit: RemappingUnit, memory: PhysicalMemory, source_id: int) -> None:
        self._unit = unit
        self._memory = memory
        self.source_id = source_id
        self._remapping = unit.remapping
        self._counters = unit.caches.iotlb.counters
        self._space = unit.caches.iotlb.space((source_id, None, False))

    def __reduce__(self) -> tuple[type[UnitPort], tuple[RemappingUnit, PhysicalMemory, int]]:
        return UnitPort, (self._unit, self._memory, self.source_id)

    def resolve(self, address: int, access: int) -> int | CompletionStatus:
        """The physical address for READ, WRITE or both, without PASID, or how it is refused."""
        entry = self._space.pages.get(address >> 12)
        if entry is not None and entry & access == access:
            self._counters.hits += 1
            return entry & FRAME | address & 0xFFF
        if entry is None:
            physical = refill(self._remapping, self._space, address, access)
            if physical is not None:
                return physical
        return self._admit(Request(self.source_id, address, access))

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read ``length`` bytes; the first part that is refused decides the status."""
        if (address & 0xFFF) + length <= 0x1000:
            return self.read_part(address, length, pasid, privileged)
        parts = []
        for start, size in split_pages(address, length):
            part = self.read_part(start, size, pasid, privileged)
            if not part.ok:
                return part
            parts.append(part.data)
        return Completion(CompletionStatus.SUCCESS, b"".join(parts))

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write all of ``data``; parts after a refused one are still tried."""
        outcome = SUCCESS
        for start, size in split_pages(address, len(data)):
            offset = start - address
            part = self.write_part(start, data[offset : offset + size], pasid, privileged)
            if not part.ok and outcome.ok:
                outcome = part
        return outcome

    def atomic(
        self,
        op: AtomicOp,
        address: int,
        operands: bytes,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> Completion:
        """Change memory as ``op`` says; the completion's data is the old value.

        An address that is not a multiple of the operand's size makes a malformed request.
        """
        size = op.size(operands)
        if address % size:
            return UNSUPPORTED
        request = Request(self.source_id, address, ATOMIC, size, pasid, privileged)
        physical = self._admit(request)
        if isinstance(physical, CompletionStatus):
            return Completion(physical)
        try:
            before = self._memory.read(physical, size)
            self._memory.write(physical, op.apply(before, operands))
        except BusError:
            return UNSUPPORTED
        return Completion(CompletionStatus.SUCCESS, before)

    def translate(
        self,
        address: int,
        count: int = 1,
        *,
        no_write: bool = False,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> TranslationCompletion:
        """Ask for up to ``count`` translations from ``address`` on; ``no_write`` is the NW bit."""
        kind = AddressType.TRANSLATION_REQUEST
        request = Request(self.source_id, address, READ, 8 * count, pasid, privileged, kind)
        return self._unit.translate_for_device(request, count, no_write=no_write)

    def read_translated(self, address: int, length: int, *, pasid: int | None = None) -> Completion:
        """Read at translated addresses; the first part that is refused decides the status."""
        parts = []
        for start, size in split_pages(address, length):
            part = self.read_translated_part(start, size, pasid)
            if not part.ok:
                return part
            parts.append(part.data)
        return Completion(CompletionStatus.SUCCESS, b"".join(parts))

    def write_translated(
        self, address: int, data: bytes, *, pasid: int | None = None
    ) -> Completion:
        """Write at translated addresses; parts after a refused one are still tried."""
        outcome = SUCCESS
        for start, size in split_pages(address, len(data)):
            offset = start - address
            part = self.write_translated_part(start, data[offset : offset + size], pasid)
            if not part.ok and outcome.ok:
                outcome = part
        return outcome

    def read_translated_part(
        self, address: int, length: int, pasid: int | None = None
    ) -> Completion:
        """Read bytes of one page at a translated address."""
        request = self._translated_request(address, READ, length, pasid)
        status = self._unit.admit_translated(request)
        if status is not CompletionStatus.SUCCESS:
            return Completion(status)
        try:
            return Completion(status, self._memory.read(address, length))
        except BusError:
            return UNSUPPORTED

    def write_translated_part(
        self, address: int, data: bytes, pasid: int | None = None
    ) -> Completion:
        """Write bytes of one page at a translated address."""
        request = self._translated_request(address, WRITE, len(data), pasid)
        status = self._unit.admit_translated(request)
        if status is not CompletionStatus.SUCCESS:
            return Completion(status)
        try:
            self._memory.write(address, data)
        except BusError:
            return UNSUPPORTED
        return SUCCESS

    def _translated_request(
        self, address: int, access: int, length: int, pasid: int | None
    ) -> Request:
        return Request(
            self.source_id,
            address,
            access,
            length,
            pasid,
            address_type=AddressType.TRANSLATED,
        )

    def page_request(self, request: PageRequest) -> None:
        """Ask software to make a page usable."""
        self._unit.request_page(self.source_id, request)

    def complete_invalidation(self, itag_vector: int, count: int) -> None:
        """Answer invalidations: bit n of the 32-bit vector is ITag n."""
        self._unit.complete_invalidation(self.source_id, itag_vector, count)

    def read_part(
        self, address: int, length: int, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read bytes of one page."""
        request = Request(self.source_id, address, READ, length, pasid, privileged)
        if length == 0 and pasid is None and address in INTERRUPT_RANGE:
            return SUCCESS  # 3.15: what it returns has no meaning
        physical = self._admit(request)
        if isinstance(physical, CompletionStatus):
            return Completion(physical)
        try:
            return Completion(CompletionStatus.SUCCESS, self._memory.read(physical, length))
        except BusError:
            return UNSUPPORTED

    def write_part(
        self, address: int, data: bytes, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write bytes of one page; 4 bytes to FEEx_xxxxh without PASID are an interrupt."""
        if pasid is None and address in INTERRUPT_RANGE and len(data) == 4:
            value = int.from_bytes(data, "little")
            sent = self._unit.request_interrupt(self.source_id, address, value)
            return UNSUPPORTED if sent is None else SUCCESS
        request = Request(self.source_id, address, WRITE, len(data), pasid, privileged)
        physical = self._admit(request)
        if isinstance(physical, CompletionStatus):
            return Completion(physical)
        try:
            self._memory.write(physical, data)
        except BusError:
            return UNSUPPORTED
        return SUCCESS

    def _admit(self, request: Request) -> int | CompletionStatus:
        if request.pasid is None:
            entry = self._space.pages.get(request.address >> 12)
            if entry is not None and entry & request.access == request.access:
                self._counters.hits += 1
                return entry & FRAME | request.address & 0xFFF
        if request.pasid is None and request.address in INTERRUPT_RANGE:
            fault = InterruptFault(FaultReason.IR_NOT_AN_INTERRUPT)
            self._unit.block_interrupt(self.source_id, request.address, fault)
            return CompletionStatus.UNSUPPORTED_REQUEST
        return self._unit.admit(request)
