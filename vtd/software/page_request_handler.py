"""A small page request handler: services the queue as a driver does when the event arrives.

VT-d 7.4.1, 7.5, 7.6. What makes a page usable is the caller's business. Requests of a group are
answered together, after the last one; a group of which any page was refused is an invalid request.
"""

from __future__ import annotations

from collections.abc import Callable

from devices.dma import ResponseCode
from vtd.layouts.descriptors import PageGroupResponseDescriptor, PageRequestDescriptor
from vtd.layouts.registers import (
    PageRequestEventAddress,
    PageRequestEventControl,
    PageRequestEventData,
    PageRequestEventUpperAddress,
    PageRequestQueueAddress,
    PageRequestQueueHead,
    PageRequestQueueTail,
    PageRequestStatus,
)
from vtd.software.memory import Memory
from vtd.software.queue_driver import PAGE_SIZE, QueueDriver
from vtd.software.registers import Registers, read, write
from vtd.unit.interrupts.outcome import Message

DESCRIPTOR_SIZE = PageRequestDescriptor.WIDTH // 8

Resolve = Callable[[PageRequestDescriptor], bool]
"""Makes the page of a request usable; False if the requester may not have it."""

Group = tuple[int, bool, int, int]
"""Requester, whether there is a PASID, the PASID, group index."""


class PageRequestHandler:
    """A page request queue of ``pages`` (1, 2, 4 ... 128) 4 KiB pages at ``base``.

    Responses go through ``responses``. ``message`` is the interrupt that the unit is to send for
    page requests; whoever receives it calls :meth:`interrupt`.
    """

    def __init__(
        self,
        unit: Registers,
        memory: Memory,
        base: int,
        responses: QueueDriver,
        resolve: Resolve,
        message: Message,
        *,
        pages: int = 1,
    ) -> None:
        if pages not in {1 << order for order in range(8)} or base % PAGE_SIZE:
            raise ValueError(f"page request queue: {pages} pages at {base:#x}")
        self._unit = unit
        self._memory = memory
        self._base = base
        self._responses = responses
        self._resolve = resolve
        self._message = message
        self._pages = pages
        self._refused: set[Group] = set()
        self._servicing = False
        self.serviced = 0
        """Page requests dealt with."""
        self.overflows = 0
        """Times the queue had been full."""

    def enable(self) -> None:
        """Give the queue to the unit and ask for its event."""
        address = PageRequestQueueAddress.of(pqa=self._base, pqs=self._pages.bit_length() - 1)
        write(self._unit, PageRequestQueueHead(0))
        write(self._unit, PageRequestQueueTail(0))
        write(self._unit, address)
        write(self._unit, PageRequestEventData(self._message.data))
        write(self._unit, PageRequestEventAddress(self._message.address & 0xFFFF_FFFF))
        write(self._unit, PageRequestEventUpperAddress(self._message.address >> 32))
        write(self._unit, PageRequestEventControl(0))

    def service(self) -> None:
        """Deal with everything in the queue, and with what arrives meanwhile."""
        if self._servicing:
            return
        self._servicing = True
        try:
            while self._pending():
                self._service_pending()
        finally:
            self._servicing = False

    def interrupt(self, message: Message) -> None:
        """An interrupt of the unit arrived: service the queue if that is what it is about."""
        if message == self._message:
            self.service()

    def _pending(self) -> bool:
        """Whether there is anything to do; what comes later sends another event."""
        status = read(self._unit, PageRequestStatus)
        write(self._unit, PageRequestStatus.of(ppr=True))
        head, tail = read(self._unit, PageRequestQueueHead), read(self._unit, PageRequestQueueTail)
        empty = head.pqh == tail.pqt
        if empty and status.pro:
            self.overflows += 1
            write(self._unit, PageRequestStatus.of(pro=True))
        return not empty

    def _service_pending(self) -> None:
        head = read(self._unit, PageRequestQueueHead).pqh
        tail = read(self._unit, PageRequestQueueTail).pqt
        while head != tail:
            data = self._memory.read(self._base + head, DESCRIPTOR_SIZE)
            head = (head + DESCRIPTOR_SIZE) % (PAGE_SIZE * self._pages)
            write(self._unit, PageRequestQueueHead(head))
            self._handle(PageRequestDescriptor.unpack(data))

    def _handle(self, request: PageRequestDescriptor) -> None:
        group = request.rid, request.pp, request.pasid, request.prgi
        self.serviced += 1
        if request.lpig and not (request.rdr or request.wrr):
            return  # a stop marker, which nobody waits for
        if not self._resolve(request):
            self._refused.add(group)
        if not request.lpig:
            return
        refused = group in self._refused
        self._refused.discard(group)
        self._responses.submit(
            PageGroupResponseDescriptor.of(
                pp=request.pp,
                rc=ResponseCode.INVALID_REQUEST if refused else ResponseCode.SUCCESS,
                rid=request.rid,
                pasid=request.pasid,
                prgi=request.prgi,
            )
        )
