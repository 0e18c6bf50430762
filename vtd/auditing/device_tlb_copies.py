"""What device-TLBs may have: copied when they are given it, judged when they use it (4.1, 4.3)."""

from __future__ import annotations

from devices.dma import InvalidationRequest, Request
from devices.source_id import SourceId
from vtd.auditing.copies import Copy
from vtd.auditing.debt import Kind, Pointer
from vtd.auditing.outdated import Outdated
from vtd.auditing.payments import Payments
from vtd.auditing.uses import Uses
from vtd.auditing.verdicts import Verdicts
from vtd.layouts.descriptors import HostPermissionInvalidateDescriptor
from vtd.software.invalidation_rules import Rule
from vtd.unit.observer import CacheName
from vtd.unit.reporting.events import (
    DeviceTlbInvalidationCompleted,
    DeviceTlbInvalidationSent,
    DeviceTlbInvalidationTimedOut,
    Event,
    TranslatedRequestPassed,
    TranslationGiven,
)


class DeviceTlbCopies:
    """Follows what the devices behind a unit hold."""

    def __init__(
        self, outdated: Outdated, uses: Uses, payments: Payments, verdicts: Verdicts
    ) -> None:
        self._outdated = outdated
        self._unit = outdated.unit
        self._copies = outdated.copies
        self._stored = outdated.stored
        self._read = outdated.read
        self._uses = uses
        self._payments = payments
        self._verdicts = verdicts
        self._outputs: dict[tuple[int, int, int], list[Copy]] = {}
        """What device-TLBs hold, by source-id, log2 of the size and output page."""
        self._clients: dict[int, object] = {}
        """Whose device-TLB it was when it was last given something."""
        self._sent: dict[tuple[int, InvalidationRequest], int] = {}

    def event(self, event: Event) -> None:
        """Something was given, used or invalidated."""
        match event:
            case TranslationGiven():
                self._given(event)
            case TranslatedRequestPassed(request=request):
                self._translated(request)
            case DeviceTlbInvalidationSent(source_id=source_id, request=request):
                self._sent[source_id, request] = self._stored.now
                for copy in self._copies.given(source_id, request):
                    remaker = self._outdated.remaker(copy) if self._outdated.harmful(copy) else None
                    copy.early = "" if remaker is None else _device_descriptor(copy)
            case DeviceTlbInvalidationCompleted(source_id=source_id, request=request):
                sent = self._sent.pop((source_id, request), self._stored.now)
                for copy in self._copies.given(source_id, request):
                    if copy.number <= sent and not copy.early:
                        self._payments.leave(copy, self._outdated.harmful(copy))
                self._payments.answered()
            case DeviceTlbInvalidationTimedOut(source_id=source_id, request=request):
                self._sent.pop((source_id, request), None)
                for copy in self._copies.given(source_id, request):
                    copy.doubtful = True
                self._payments.timed_out(request)
            case _:
                pass

    def _given(self, given: TranslationGiven) -> None:
        """A device-TLB may have what the IOTLB has."""
        entry = given.entry
        if entry.u or not (entry.r or entry.w):
            return
        self._clients.setdefault(given.source_id, self._unit.devices.clients.get(given.source_id))
        self.forget_replaced()
        kind = given.source_id, given.pasid, given.privileged
        known = self._copies.iotlb[kind].get(given.address >> 12)
        words = tuple(self._read.lookup.values()) if known is None else known.words
        words = tuple(word for word in words if word.structure is not Pointer.ROOT)  # 6.6: not owed
        shift, start = entry.size.bit_length() - 1, given.address & -entry.size
        place = self._copies.devices.setdefault(given.source_id, {})
        copy = self._outdated.put(
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
                frame=(entry.address & -entry.size) >> 12,
                shift=shift,
                number=self._stored.now,
            )
        )
        outputs = self._outputs.setdefault((given.source_id, shift, entry.address >> shift), [])
        outputs[:] = [other for other in outputs if not other.gone]
        outputs.append(copy)

    def forget_replaced(self) -> None:
        """A device-TLB is gone with its device, or when it was attached anew."""
        for source_id, client in self._clients.items():
            now = self._unit.devices.clients.get(source_id)
            if now is not client:
                self._clients[source_id] = now
                for copy in list(self._copies.devices.get(source_id, {}).values()):
                    copy.drop()

    def permissions_invalidated(self, descriptor: HostPermissionInvalidateDescriptor) -> None:
        """Permissions went: what device-TLBs may have of their pages had to go first (6.5.3.4)."""
        for permission in self._copies.covered(descriptor):
            outdated = self._outdated.harmful(permission) is not None
            if not outdated or self._outdated.remaker(permission) is not None:
                continue
            for copy in self._held(permission.source_id or 0, permission.start or 0):
                changed = self._outdated.harmful(copy)
                if changed is not None and not self._is_sent(copy):
                    debt = self._verdicts.debt(Kind.WRONG_ORDER, copy, changed)
                    rule = Rule.HPT_REDUCED
                    self._verdicts.add(
                        debt._replace(rule=rule, section=rule.section, early=rule.descriptor)
                    )

    def _is_sent(self, copy: Copy) -> bool:
        """Whether an invalidation is on its way to the device."""
        return any(
            source_id == copy.source_id
            and copy.number <= sent
            and copy in self._copies.given(source_id, request)
            for (source_id, request), sent in self._sent.items()
        )

    def _held(self, source_id: int, address: int) -> list[Copy]:
        """Translations to an address that a device may have."""
        return [
            copy
            for shift in (12, 21, 30)
            for copy in self._outputs.get((source_id, shift, address >> shift), ())
            if not copy.gone
        ]

    def _translated(self, request: Request) -> None:
        """A device used a translation: one that still holds, or it is late."""
        self.forget_replaced()
        held = self._held(request.source_id, request.address)
        if held and all(self._outdated.harmful(copy) is not None for copy in held):
            self._uses.use(held[-1])


def _device_descriptor(copy: Copy) -> str:
    name = "dev_tlb_inv" if copy.pasid is None else "p_dev_tlb_inv"
    return f"{name} of {SourceId(copy.source_id or 0)}"
