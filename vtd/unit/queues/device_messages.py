"""Messages between the unit and device-TLBs: invalidation requests and page group responses.

VT-d 4.3, 6.5.2.5, 6.5.2.6, 7.6.1 and the device-TLB errors of 6.5.2.11. Each request on its way has
an ITag of its own; time passes only when :meth:`DeviceMessages.time_out` says so. A requester that
nobody attached a client for answers every request at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devices.dma import AtsClient, InvalidationRequest, PageGroupResponse
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.registers import FaultStatus, InvalidationQueueErrorRecord
from vtd.unit.registers.register_file import RegisterFile
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationCompleted,
    DeviceTlbInvalidationSent,
    DeviceTlbInvalidationTimedOut,
    Event,
    PageGroupResponseSent,
)
from vtd.unit.reporting.fault_recording import FaultRecorder
from vtd.unit.state import Stateful

ITAGS = 32
EVERYTHING = 1 << 64


@dataclass
class PendingInvalidation:
    """A request that its device has not completed."""

    source_id: int
    request: InvalidationRequest
    throttled_by: int
    """The physical function whose limit of pending requests it counts for."""
    answers: int = 0
    """Completions that came for it (InvCmpCnt)."""


class DeviceMessages(Stateful):
    """Sends devices what descriptors ask of them, and takes their answers.

    ``resume`` is called when an answer may let the invalidation queue go on. ``throttles`` is
    ECAP.DIT: MIP limits the pending requests of a physical function. ``itags`` is at most 32.
    """

    STATE = ("outstanding",)

    def __init__(
        self,
        registers: RegisterFile,
        faults: FaultRecorder,
        publish: Callable[[Event], None],
        *,
        throttles: bool,
        itags: int = ITAGS,
    ) -> None:
        if not 1 <= itags <= ITAGS:
            raise ValueError(f"itags: {itags} is not in 1..{ITAGS}")
        self._registers = registers
        self._faults = faults
        self._publish = publish
        self._throttles = throttles
        self._itags = itags
        self.clients: dict[int, AtsClient] = {}
        """Who gets the messages for a source-id."""
        self.outstanding: dict[int, PendingInvalidation] = {}
        """Requests without a completion yet, by ITag, the oldest first."""
        self.resume: Callable[[], None] = _nobody_waits

    def attach(self, source_id: int, client: AtsClient) -> None:
        """Send the messages for ``source_id`` to ``client`` from now on."""
        self.clients[source_id] = client

    def detach(self, source_id: int) -> None:
        """Send the messages for ``source_id`` nowhere."""
        self.clients.pop(source_id, None)

    @property
    def pending(self) -> bool:
        """Whether invalidations are out that devices have not answered."""
        return bool(self.outstanding)

    def invalidate(
        self, descriptor: DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor
    ) -> bool:
        """Send an invalidation request; False while no ITag is free, or MIP forbids one more."""
        itag = next((itag for itag in range(self._itags) if itag not in self.outstanding), None)
        function = descriptor.pfsid if self._throttles else descriptor.sid
        if itag is None or (self._throttles and self._busy(function, descriptor.mip)):
            return False
        request = invalidation_request(descriptor, itag)
        self._publish(DeviceTlbInvalidationSent(descriptor.sid, request))
        client = self.clients.get(descriptor.sid)
        if client is None:
            self._publish(DeviceTlbInvalidationCompleted(descriptor.sid, request))
        else:
            self.outstanding[itag] = PendingInvalidation(descriptor.sid, request, function)
            client.invalidate(request)
        return True

    def _busy(self, function: int, mip: int) -> bool:
        """Whether a physical function has as many pending requests as MIP allows; 0 is 32."""
        count = sum(pending.throttled_by == function for pending in self.outstanding.values())
        return count >= (mip or ITAGS)

    def complete(self, source_id: int, itag_vector: int, count: int) -> None:
        """An invalidation completion message: bit n of the vector is ITag n, count 0 means 8.

        Bits for ITags that the requester has not been sent are an error (ICE), found after the
        others are dealt with.
        """
        unexpected = False
        for itag in range(ITAGS):
            if not itag_vector >> itag & 1:
                continue
            pending = self.outstanding.get(itag)
            if pending is None or pending.source_id != source_id:
                unexpected = True
                continue
            pending.answers += 1
            if pending.answers == (count & 7 or 8):
                del self.outstanding[itag]
                self._publish(DeviceTlbInvalidationCompleted(source_id, pending.request))
        if unexpected:
            self._report("ice", source_id)
        self.resume()

    def time_out(self, itag: int) -> None:
        """The time for the completion of this request is over; ValueError if there is none."""
        pending = self.outstanding.pop(itag, None)
        if pending is None:
            raise ValueError(f"itag: no invalidation request {itag} is outstanding")
        self._publish(DeviceTlbInvalidationTimedOut(pending.source_id, pending.request))
        self._report("ite", pending.source_id)

    def _report(self, error: str, source_id: int) -> None:
        """Set ICE or ITE; the source-id is kept from when the field was clear (11.4.9.9)."""
        if not getattr(self._registers[FaultStatus], error):
            record = self._registers[InvalidationQueueErrorRecord]
            self._registers[InvalidationQueueErrorRecord] = record.replace(
                **{f"{error}sid": source_id}
            )
        self._faults.raise_status(**{error: True})

    def respond(self, descriptor: PageGroupResponseDescriptor) -> None:
        """Send the page group response of a descriptor."""
        pasid = descriptor.pasid if descriptor.pp else None
        response = PageGroupResponse(descriptor.rc, descriptor.prgi, pasid)
        self.send_response(descriptor.rid, response, automatic=False)

    def send_response(
        self, source_id: int, response: PageGroupResponse, *, automatic: bool
    ) -> None:
        """Send a page group response, of software or made by the unit."""
        self._publish(PageGroupResponseSent(source_id, response, automatic))
        client = self.clients.get(source_id)
        if client is not None:
            client.page_response(response)


def invalidation_request(
    descriptor: DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor, itag: int
) -> InvalidationRequest:
    """The message that a descriptor asks for."""
    address, size = invalidation_range(descriptor.addr, larger=descriptor.s)
    if isinstance(descriptor, DeviceTlbInvalidateDescriptor):
        return InvalidationRequest(address, size, global_=False, pasid=None, itag=itag)
    return InvalidationRequest(
        address, size, global_=descriptor.gi, pasid=descriptor.pasid, itag=itag
    )


def invalidation_range(address: int, *, larger: bool) -> tuple[int, int]:
    """Start and size in bytes of what ADDR and S cover (6.5.2.5)."""
    if not larger:
        return address, 0x1000
    page = address >> 12
    zero_bit = (~page & page + 1).bit_length() - 1
    size = min(0x2000 << zero_bit, EVERYTHING)
    return address & -size, size


def _nobody_waits() -> None:
    """There is no queue to go on with."""
