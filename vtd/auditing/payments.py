"""Invalidations pay: what each removes, whether it comes too early, and whether it was needed."""

from __future__ import annotations

from devices.dma import InvalidationRequest
from pagetables.bits import BitRecord
from vtd.auditing.copies import Copy
from vtd.auditing.domain_ids import DomainIds
from vtd.auditing.frames_left import STRUCTURES, FramesLeft
from vtd.auditing.outdated import Outdated
from vtd.auditing.stored_words import LOOKUP, Change
from vtd.auditing.waits import Waits
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    HostPermissionInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.registers import IotlbGranularity
from vtd.unit.observer import CacheName
from vtd.unit.queues.device_messages import PendingInvalidation


class Payments:
    """What invalidations have removed.

    ``descriptors`` counts them, ``wasteful`` those of them that met nothing outdated.
    """

    def __init__(
        self, outdated: Outdated, waits: Waits, domain_ids: DomainIds, frames: FramesLeft
    ) -> None:
        self._outdated = outdated
        self._unit = outdated.unit
        self._copies = outdated.copies
        self._waits = waits
        self._domain_ids = domain_ids
        self._frames = frames
        self._refills = outdated.unit.options.caches.refills
        self._behind: list[tuple[list[PendingInvalidation], Copy]] = []
        """What was removed while invalidations of device-TLBs were under way, and which."""
        self.descriptors = self.wasteful = 0

    def pay(self, descriptor: BitRecord) -> None:
        """An invalidation removes what it covers, unless that can be made again (6.5.2.1)."""
        self.descriptors += 1
        self._waits.invalidated(descriptor)
        departures = self._unit.options.departures
        context = isinstance(descriptor, ContextCacheInvalidateDescriptor)
        if context and departures.drop_pasid_entries_with_context:
            for copy in list(self._copies.pasid.values()):
                copy.drop()
        needed = isinstance(
            descriptor, DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor
        )
        undrained = self._undrained(descriptor)
        for copy in self._copies.covered(descriptor):
            changed = self._outdated.harmful(copy)
            if changed is None and self._refills and self._refilled(copy):
                continue
            if changed is not None:
                needed = True
                if changed.word.structure in LOOKUP and self._outdated.remaker(copy) is not None:
                    copy.early = _describe(descriptor)
                    continue
            self.leave(copy, changed, undrained)
        if isinstance(descriptor, IotlbInvalidateDescriptor) and not undrained:
            everything = descriptor.g == IotlbGranularity.GLOBAL
            self._frames.drained(None if everything else descriptor.did)
        self.wasteful += not needed

    def _refilled(self, copy: Copy) -> bool:
        """Whether a unit may have an entry again at once, as nothing of it has changed."""
        if copy.cache not in _OF_REQUESTS or copy.refused or not self._frames.is_on(copy):
            return False
        return not any(self._outdated.stored.changes(copy))

    def _undrained(self, descriptor: BitRecord) -> str:
        """Which of DR and DW an iotlb_inv leaves out; others drain what they concern (6.5.4)."""
        if not isinstance(descriptor, IotlbInvalidateDescriptor):
            return ""
        cap = self._unit.capabilities.cap
        if cap.dwd and not descriptor.dw:
            return "DW"
        return "DR" if cap.drd and not descriptor.dr else ""

    def leave(self, copy: Copy, changed: Change | None, undrained: str = "") -> None:
        """An invalidation removes a copy; what it led to must not be used before a wait."""
        copy.drop()
        if changed is not None:
            self._domain_ids.left(copy)
            self._frames.left(copy, undrained)
            pending = list(self._unit.devices.outstanding.values())
            if pending:
                self._behind.append((pending, copy))

    def answered(self) -> None:
        """A device has answered: what stood behind invalidations that are all over is certain."""
        if not self._unit.devices.outstanding:
            self._behind.clear()

    def timed_out(self, request: InvalidationRequest) -> None:
        """A device has not answered: what stood behind the oldest that is open may not be done."""
        open_ones = [each.request for each in self._unit.devices.outstanding.values()]
        still = {id(each) for each in [*open_ones, request]}
        for pending, copy in self._behind:
            if any(id(each.request) in still for each in pending):
                copy.stays()
        self.answered()


_OF_REQUESTS = (*STRUCTURES, CacheName.IOTLB)
"""Caches whose entries know all that a request met, from the root on."""


def _describe(descriptor: BitRecord) -> str:
    return _NAMES[type(descriptor)]


_NAMES: dict[type[BitRecord], str] = {
    ContextCacheInvalidateDescriptor: "cc_inv",
    PasidCacheInvalidateDescriptor: "pc_inv",
    IotlbInvalidateDescriptor: "iotlb_inv",
    PasidIotlbInvalidateDescriptor: "p_iotlb_inv",
    HostPermissionInvalidateDescriptor: "hpt_inv",
}
