"""The page request queue: messages of devices in, descriptors for software out.

VT-d 7.4, 7.5, the page request columns of Table 30 and the implicit invalidation of 6.5.3.1.
Conditions of the tables are looked at before the state of the queue. Stop markers that can't be
queued are dropped without any trace, whether or not the unit reports SMS. While remapping is off a
unit drops every page request, which the specification leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from devices.dma import MESSAGE, PageGroupResponse, PageRequest, Request, ResponseCode
from pagetables.memory import BusError
from pagetables.observer import Structure
from vtd.layouts.descriptors import PageRequestDescriptor, PageRequestType
from vtd.layouts.entries import PasidTranslationType, ScalableContextEntry
from vtd.layouts.registers import (
    PageRequestQueueAddress,
    PageRequestQueueHead,
    PageRequestQueueTail,
    PageRequestStatus,
    TranslationTableMode,
)
from vtd.unit.queues.device_messages import DeviceMessages
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting.event_interrupt import EventInterrupt
from vtd.unit.reporting.events import Event, PageRequestReceived
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.target import Target
from vtd.unit.state import Stateful
from vtd.unit.translation.lookup import (
    check_mode,
    check_pasid_in_context,
    pasid_target,
    scalable_context,
    write_structure,
)
from vtd.unit.translation.remapping import Remapping

DESCRIPTOR_SIZE = 32


class PageRequests(Stateful):
    """The page request queue of one unit.

    ``block`` deals with a message that met a fault condition.
    """

    STATE = "posted", "overflow_responses"

    def __init__(
        self,
        registers: RegisterFile,
        remapping: Remapping,
        devices: DeviceMessages,
        event: EventInterrupt,
        publish: Callable[[Event], None],
        block: Callable[[Request, TranslationFault], None],
    ) -> None:
        self._registers = registers
        self._remapping = remapping
        self._devices = devices
        self._event = event
        self._publish = publish
        self._block = block
        self.posted = 0
        """Descriptors written to the queue."""
        self.overflow_responses = 0
        """Responses that the unit gave itself because of an overflow."""
        registers.on_write(PageRequestStatus, self._status_written)

    def receive(self, source_id: int, message: PageRequest) -> bool:
        """A page request message; whether it was written to the queue."""
        refusal = self._accept(source_id, message)
        self._publish(PageRequestReceived(source_id, message, queued=refusal is None))
        if refusal is None:
            self._raise_status(ppr=True)
        elif message.last and not is_stop_marker(message):
            response = PageGroupResponse(refusal, message.group_index, message.pasid)
            self._devices.send_response(source_id, response, automatic=True)
        return refusal is None

    def _accept(self, source_id: int, message: PageRequest) -> ResponseCode | None:
        """Put a message into the queue; the code to answer with where that fails (Table 31)."""
        silent = is_stop_marker(message)
        request = Request(source_id, message.address, MESSAGE, 1, message.pasid, message.privileged)
        try:
            target = page_request_target(self._remapping, request)
        except TranslationFault as fault:
            if not silent:
                self._block(request, fault)
            return ResponseCode.INVALID_REQUEST
        status = self._registers[PageRequestStatus]
        if status.pro or self._full:
            if not silent:
                self.overflow_responses += message.last
                if not status.pro:
                    self._raise_status(pro=True)
            return ResponseCode.SUCCESS
        invalidate_implicitly(self._remapping, target, message.address)
        self._write(page_request_descriptor(source_id, message))
        return None

    @property
    def _size(self) -> int:
        """Bytes of the queue."""
        return 0x1000 << self._registers[PageRequestQueueAddress].pqs

    @property
    def _full(self) -> bool:
        tail = self._registers[PageRequestQueueTail].pqt
        return self._next(tail) == self._registers[PageRequestQueueHead].pqh

    def _next(self, tail: int) -> int:
        return (tail + DESCRIPTOR_SIZE) % self._size

    def _write(self, descriptor: PageRequestDescriptor) -> None:
        tail = self._registers[PageRequestQueueTail].pqt
        where = self._registers[PageRequestQueueAddress].pqa + tail
        with suppress(BusError):  # a queue that is not in memory takes nothing, and nobody is told
            write_structure(self._remapping, Structure.PAGE_REQUEST, where, descriptor.pack())
        self._registers[PageRequestQueueTail] = PageRequestQueueTail.of(pqt=self._next(tail))
        self.posted += 1

    def _raise_status(self, **fields: int) -> None:
        """Set PPR or PRO; an event unless one of them was set already (7.5)."""
        status = self._registers[PageRequestStatus]
        self._registers[PageRequestStatus] = status.replace(**fields)
        if not status:
            self._event.trigger()

    def _status_written(self, _: RegisterWrite[Any]) -> None:
        if not self._registers[PageRequestStatus]:
            self._event.withdraw()


def is_stop_marker(message: PageRequest) -> bool:
    """Whether a message says that no more page requests of its PASID follow (11.4.3, SMS)."""
    return message.pasid is not None and message.last and not message.read and not message.write


def page_request_target(remapping: Remapping, request: Request) -> Target:
    """What the page of a page request is translated with; TranslationFault if that is not known."""
    if remapping.mode is TranslationTableMode.LEGACY:
        raise TranslationFault(FaultReason.PAGE_REQUEST_IN_LEGACY_MODE)
    check_mode(remapping, has_pasid=False)

    def check(context: ScalableContextEntry) -> None:
        if not context.pre:
            raise TranslationFault(FaultReason.PAGE_REQUEST_DISABLED, context.fpd)
        if request.pasid is not None:
            if not context.paside:
                raise TranslationFault(FaultReason.PASID_DISABLED, context.fpd)
            check_pasid_in_context(context, request.pasid)

    context = scalable_context(remapping, request.source_id, check)
    pasid = context.rid_pasid if request.pasid is None else request.pasid
    return pasid_target(remapping, request.source_id, context, pasid)


def invalidate_implicitly(remapping: Remapping, target: Target, address: int) -> None:
    """Drop what the caches know of the page that is asked for (Table 27)."""
    caches = remapping.caches
    start = address & -0x1000
    end = start + 0x1000
    match target.kind:
        case PasidTranslationType.FIRST_STAGE:
            caches.invalidate_pasid_iotlb_pages(
                target.domain_id, target.pasid, start, end, hint=False
            )
        case PasidTranslationType.NESTED:
            caches.invalidate_iotlb_domain(target.domain_id)
        case _:
            caches.invalidate_iotlb_pages(target.domain_id, start, end, hint=False)


def page_request_descriptor(source_id: int, message: PageRequest) -> PageRequestDescriptor:
    """page_req_dsc for a message (7.4.1.1)."""
    return PageRequestDescriptor.of(
        type=PageRequestType.PAGE_REQUEST,
        pp=message.pasid is not None,
        rid=source_id,
        pasid=message.pasid or 0,
        exr=message.execute and message.read and message.pasid is not None,
        pmr=message.privileged and message.pasid is not None,
        rdr=message.read,
        wrr=message.write,
        lpig=message.last,
        prgi=message.group_index,
        addr=message.address & -0x1000,
    )
