"""Translation requests: what a device-TLB is told about an address.

VT-d 4.2.3 and the translation request columns of Table 30. :func:`answer` decides everything and
changes nothing but caches and flags; recording a fault is the unit's business. The specification
leaves open what a request with PASID learns of FEEx_xxxxh through a pass-through entry: here it is
a success without any permission.
"""

from __future__ import annotations

from typing import NamedTuple

from devices.dma import (
    ATOMIC,
    EXECUTE_REQUESTED,
    READ,
    REFUSED,
    WRITE,
    Completion,
    CompletionStatus,
    NoWrite,
    Request,
    TranslationEntry,
)
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.walk import WalkFault
from vtd.layouts.entries import (
    ContextEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    TranslationType,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import CacheName
from vtd.unit.requests.faults import Answer, FaultReason, TranslationFault
from vtd.unit.requests.request import kind_of, meets_interrupts
from vtd.unit.requests.target import LEGACY, Target
from vtd.unit.translation.execute import check_execute
from vtd.unit.translation.lookup import (
    Lookup,
    check_enabled_pasid,
    check_mode,
    legacy_context,
    scalable_context,
    scalable_lookup,
)
from vtd.unit.translation.remapping import Remapping
from vtd.unit.translation.translate import (
    Page,
    find_page,
    found,
    granted_by_tables,
    needs_dirty,
    piece_of,
    set_dirty,
    translation,
    walk_fault,
    without_dirty,
)

PAGE_SIZE = 0x1000
MAX_COUNT = 16
"""Translations of one request with the largest read completion boundary, 128 bytes (4.2.1)."""

REFUSALS = {
    Answer.UR: CompletionStatus.UNSUPPORTED_REQUEST,
    Answer.CA: CompletionStatus.COMPLETER_ABORT,
}


class Answered(NamedTuple):
    """The answer to a translation request, and the fault that software hears of, if any."""

    completion: Completion
    fault: TranslationFault | None = None


def answer(remapping: Remapping, request: Request) -> Answered:
    """Translate pages of one size from the address of ``request`` on, 8 bytes each (4.2.3.2).

    A request that writes, or for half a translation or more than MAX_COUNT, breaks the protocol
    (4.2.1): UR, and no fault.
    """
    count, more = divmod(request.length, 8)
    if more or not 1 <= count <= MAX_COUNT or request.access & ATOMIC != READ:
        return Answered(REFUSED)
    no_write = isinstance(request.payload, NoWrite)
    need = READ if no_write and "nwfs" in remapping.capabilities.features else ATOMIC
    entries: list[TranslationEntry] = []
    recorded = None
    address = request.address & -PAGE_SIZE
    while len(entries) < count and not address >> 64:
        try:
            entry = _translation(remapping, request._replace(address=address), need)
        except TranslationFault as fault:
            refusal = REFUSALS.get(fault.reason.ats)
            if refusal is not None:
                if entries:
                    break
                return Answered(Completion(refusal), fault)
            if fault.reason.ats is Answer.RECORDED:
                recorded = fault
            entry = _without_permission(request)
        if entries and entry.size != entries[0].size:
            break
        entries.append(entry)
        address = (address & -entry.size) + entry.size
    return Answered(Completion(CompletionStatus.SUCCESS, entries=tuple(entries)), recorded)


def lookup_for_ats(remapping: Remapping, request: Request) -> Lookup:
    """The tables of a translation request; TranslationFault if it has none or is not allowed."""
    has_pasid = request.pasid is not None
    check_mode(remapping, has_pasid=has_pasid)
    if remapping.mode is TranslationTableMode.LEGACY:
        target = legacy_context(remapping, request.source_id, check_device_tlb_allowed)
        return target, False

    def check(context: ScalableContextEntry) -> None:
        check_device_tlb_enabled(context)
        check_enabled_pasid(remapping, context, request.pasid)

    context = scalable_context(remapping, request.source_id, check, needs_paside=has_pasid)
    return scalable_lookup(remapping, kind_of(request), context)


def check_device_tlb_enabled(context: ScalableContextEntry) -> None:
    """SCT.5: translation and translated requests need DTE."""
    if not context.dte:
        raise TranslationFault(FaultReason.DEVICE_TLB_DISABLED, context.fpd)


def check_device_tlb_allowed(target: Target) -> None:
    """LCT.5: a legacy-mode context entry allows a device-TLB with TT = 01b only."""
    entry = target.entry
    if not (isinstance(entry, ContextEntry) and entry.tt is TranslationType.DEVICE_TLB):
        raise TranslationFault(FaultReason.REQUEST_TYPE_BLOCKED, target.fpd)


def _translation(remapping: Remapping, request: Request, need: int) -> TranslationEntry:
    if request.access & EXECUTE_REQUESTED:
        check_execute(remapping, request, lookup_for_ats)
    target, privileged = lookup_for_ats(remapping, request)
    in_interrupt_range = request.address in INTERRUPT_RANGE
    if request.pasid is None and in_interrupt_range:
        if need & WRITE:
            return _without_permission(request)._replace(w=True, u=True)  # S.1
        return _without_permission(request)  # S.2
    if target.kind is PasidTranslationType.PASS_THROUGH:
        if in_interrupt_range:
            return _without_permission(request)
        return _pass_through(remapping, target, request, need)
    entry = _cached(remapping, target, request, need)
    if entry is None:
        entry = _walk(remapping, target, request, need, privileged)
        kept = piece_of(entry, request.address) if remapping.fractures else entry
        remapping.caches.iotlb.insert(kind_of(request), kept)
        if remapping.observer is not None:
            found(remapping.observer, request, kept)
    granted = entry.rights & need
    if not granted:
        return _without_permission(request)
    return TranslationEntry(
        address=entry.physical,
        size=1 << entry.shift,
        r=bool(granted & READ),
        w=bool(granted & WRITE),
        u=False,
        n=entry.snoop,
        x=False,
        priv=request.privileged,
        global_=False,
    )


def _without_permission(request: Request) -> TranslationEntry:
    return TranslationEntry(
        address=0,
        size=PAGE_SIZE,
        r=False,
        w=False,
        u=False,
        n=False,
        x=False,
        priv=request.privileged,
        global_=False,
    )


def _pass_through(
    remapping: Remapping, target: Target, request: Request, need: int
) -> TranslationEntry:
    """The region around an address: the largest page without interrupt addresses in it (4.2.3)."""
    address, width = request.address, remapping.capabilities.host_address_width
    if address >> width:
        raise TranslationFault(target.reasons.beyond_haw, target.fpd)
    shifts = _page_shifts(remapping) if remapping.options.largest_pass_through_page else (12,)
    shift = next(
        shift for shift in shifts if shift <= width and not meets_interrupts(address, shift)
    )
    return TranslationEntry(
        address=address >> shift << shift,
        size=1 << shift,
        r=True,
        w=bool(need & WRITE),
        u=False,
        n=isinstance(target.entry, PasidEntry) and target.entry.pgsnp,
        x=False,
        priv=request.privileged,
        global_=False,
    )


def _page_shifts(remapping: Remapping) -> tuple[int, ...]:
    """log2 of the page sizes that any stage of the unit supports, the largest first."""
    features = remapping.capabilities.features
    gigabyte = features & {"fs1gp", "sslps_1g"}
    two_megabytes = features & {"fsts", "sslps_2m"}
    return (*((30,) if gigabyte else ()), *((21,) if two_megabytes else ()), 12)


def _cached(remapping: Remapping, target: Target, request: Request, need: int) -> IotlbEntry | None:
    """What the IOTLB knows, if that decides the request."""
    kind, observer = kind_of(request), remapping.observer
    cached = remapping.caches.iotlb.find(kind, request.address)
    if observer is not None:
        observer.asked(CacheName.IOTLB, (kind, request.address), cached)
    if cached is None:
        return None
    if cached.fault is not None:
        if cached.fault.reason.ats is Answer.REDUCED:
            return None
        raise TranslationFault(cached.fault.reason, cached.fault.fpd)
    if meets_interrupts(cached.physical, 30):
        return None  # a piece of a larger page, whose size matters here
    missing = need & ~cached.rights
    if missing and not remapping.options.caches.trust_cached_rights:
        return None
    for_want_of_dirty = missing & granted_by_tables(cached)
    return None if for_want_of_dirty else cached  # R and W are each found for itself (4.2.3)


def _walk(
    remapping: Remapping, target: Target, request: Request, need: int, privileged: bool
) -> IotlbEntry:
    """As an untranslated request would walk, with each right found for itself."""
    try:
        page = find_page(remapping, target, request.address, privileged)
        _, _, rights, user_denied, _, _, _ = page
        if user_denied:
            raise TranslationFault(FaultReason.USER_DENIED, target.fpd)
        if not rights & need:
            raise TranslationFault(target.reasons.read_denied, target.fpd)
        if _outputs_interrupts(target, page):
            raise TranslationFault(target.reasons.interrupt_range, target.fpd)
        if rights & need & WRITE:
            if not set_dirty(remapping, target, page):
                return _walk(remapping, target, request, need, privileged)
        elif needs_dirty(target, page):
            rights = without_dirty(rights)
    except WalkFault as fault:
        raise walk_fault(remapping, target, fault, request) from fault
    return IotlbEntry._make(translation(target, request.address, page, rights))


def _outputs_interrupts(target: Target, page: Page) -> bool:
    """LGN.4 judges the address, SGN.8.2 the whole range that would be handed out."""
    physical, shift, _, _, _, _, _ = page
    legacy = target.reasons is LEGACY
    return physical in INTERRUPT_RANGE if legacy else meets_interrupts(physical, shift)
