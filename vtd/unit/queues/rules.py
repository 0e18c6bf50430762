"""Rules of invalidation that units are known to depart from.

Each function gives the specification's answer unless the unit has the departure that it names; the
code beside this module knows of none.
"""

from __future__ import annotations

from vtd.layouts.descriptors import InvalidationWaitDescriptor
from vtd.layouts.registers import Capability, ExtendedCapability, TranslationTableMode
from vtd.unit.caching.caches import TranslationCaches
from vtd.unit.departures import Departures


def needs_wide_queue(departures: Departures, mode: TranslationTableMode) -> bool:
    """Whether descriptors have to have 256 bits: in all modes but legacy mode (11.4.9.9)."""
    return mode is not TranslationTableMode.LEGACY and not departures.accept_narrow_queue


def mode_of_descriptors(
    departures: Departures, mode: TranslationTableMode, size: int
) -> TranslationTableMode:
    """The mode whose types of descriptors of ``size`` bytes are valid (6.5.2)."""
    narrow = size == 16 and departures.accept_narrow_queue
    return TranslationTableMode.LEGACY if narrow else mode


def is_register_interface_closed(
    departures: Departures, mode: TranslationTableMode, *, beside_queue: bool, major_version: int
) -> bool:
    """Whether register-based invalidations are ignored (6.5.1, 11.4.6)."""
    closed = beside_queue or mode is not TranslationTableMode.LEGACY or major_version >= 6
    return closed and not departures.accept_register_invalidation


def resumes_once_cleared(departures: Departures) -> bool:
    """Whether clearing IQE makes a stopped queue go on, without a write of the tail (6.5.2.11)."""
    return not departures.resume_with_tail


def is_wait_supported(departures: Departures, descriptor: InvalidationWaitDescriptor) -> bool:
    """Whether a wait descriptor is valid that does nothing: it is (6.5.2.9)."""
    return (
        bool(descriptor.if_ or descriptor.sw or descriptor.fn) or not departures.refuse_silent_wait
    )


def is_interrupt_mask_supported(
    departures: Departures, mask: int, ecap: ExtendedCapability
) -> bool:
    """Whether an interrupt entry cache invalidation may have this IM: up to MHMV (11.4.3)."""
    return mask <= ecap.mhmv or departures.ignore_mhmv


def is_pasid_mask_supported(departures: Departures, mask: int, cap: Capability) -> bool:
    """Whether a PASID-based IOTLB invalidation may have this AM: any (6.5.2.4, 11.4.2)."""
    return mask <= cap.mamv or not departures.limit_pasid_masks


def invalidate_with_context(departures: Departures, caches: TranslationCaches) -> None:
    """What a context-cache invalidation removes from other caches: nothing (6.5.2.1)."""
    if departures.drop_pasid_entries_with_context:
        caches.invalidate_pasid_global()
