"""Translation by a unit that drops what cached pages deny, or keeps passing devices through.

A unit without these departures has nothing of this on the way of its requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from devices.dma import READ, WRITE, Request
from pagetables.geometry import PAGE_SHIFT
from pagetables.memory import BusError
from vtd.layouts.entries import PasidEntry, PasidTranslationType, RootEntry, ScalableRootEntry
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.iotlb import IotlbEntry, Space, Translation
from vtd.unit.departures import Departures
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.target import LEGACY, SCALABLE, IotlbTags, Target
from vtd.unit.translation.lookup import find_tables
from vtd.unit.translation.remapping import Remapping, onlooker
from vtd.unit.translation.translate import granted_by_tables

Translate = Callable[[Remapping, Request, Space, int, int, Translation | None], Translation]
PAGE = -1 << PAGE_SHIFT
PASSED = IotlbTags(0, PasidTranslationType.PASS_THROUGH, 0)


def departing(departures: Departures, translate: Translate) -> Translate:
    """``translate`` as a unit with these departures has it."""
    if departures.drop_denied_hits:
        translate = _dropping(translate)
    return _keeping(translate) if departures.keep_pass_through else translate


def _dropping(translate: Translate) -> Translate:
    def drop(
        remapping: Remapping,
        request: Request,
        space: Space,
        address: int,
        access: int,
        cached: Translation | None,
    ) -> Translation:
        if cached is not None and IotlbEntry._make(cached).fault is None:
            denied = access & (READ | WRITE) & ~granted_by_tables(cached)
            if denied and not request.zero_length_read:
                legacy = remapping.mode is TranslationTableMode.LEGACY
                reasons = LEGACY if legacy else SCALABLE
                reason = reasons.write_denied if denied & WRITE else reasons.read_denied
                raise TranslationFault(reason, True)  # as if not to be recorded
        return translate(remapping, request, space, address, access, cached)

    return drop


def _keeping(translate: Translate) -> Translate:
    def keep(
        remapping: Remapping,
        request: Request,
        space: Space,
        address: int,
        access: int,
        cached: Translation | None,
    ) -> Translation:
        if request.pasid is not None:
            return translate(remapping, request, space, address, access, cached)
        if request.source_id in remapping.passed:
            page = address & PAGE
            return IotlbEntry(PASSED, page, PAGE_SHIFT, page, READ | WRITE, False, None)
        entry = translate(remapping, request, space, address, access, cached)
        if IotlbEntry._make(entry).tags.kind is PasidTranslationType.PASS_THROUGH:
            remapping.passed.add(request.source_id)
        return entry

    return keep


def look_again(remapping: Remapping, source_id: int = 0, kept: int = 0) -> None:
    """Which devices are passed through now: all, or those that are ``source_id`` but for ``kept``.

    ``kept`` is a mask of the bits that have to be alike.
    """
    if not remapping.options.departures.keep_pass_through:
        return
    look = onlooker(remapping)
    for device in {*_devices(look), *remapping.passed, *remapping.pasid_entries}:
        if (device ^ source_id) & kept == 0:
            _judge(remapping, device, _target(look, device))


def look_again_by_domain(
    remapping: Remapping, domain_id: int | None = None, pasid: int | None = None
) -> None:
    """The same after a PASID-cache invalidation, for devices whose entry is of the domain.

    That is the entry that the unit knows, or where it knows none the one in memory; one that has
    not changed is left alone.
    """
    if not remapping.options.departures.keep_pass_through:
        return
    look = onlooker(remapping)
    for device in {*_devices(look), *remapping.passed, *remapping.pasid_entries}:
        target, known = _target(look, device), remapping.pasid_entries.get(device)
        if target is None:
            if known is not None:
                _judge(remapping, device, None)
            continue
        entry = target.entry
        owner = PasidEntry(known if known is not None else entry).did
        if domain_id not in (None, owner) or pasid not in (None, target.pasid):
            continue
        if known != entry:
            _judge(remapping, device, target)


def _judge(remapping: Remapping, device: int, target: Target | None) -> None:
    """Note what a device is now; an entry that was known stays so until there is none."""
    remapping.passed.discard(device)
    if target is None:
        remapping.pasid_entries.pop(device, None)
        return
    remapping.pasid_entries.setdefault(device, target.entry)
    if target.kind is PasidTranslationType.PASS_THROUGH:
        remapping.passed.add(device)


def begin_again(remapping: Remapping) -> None:
    """The same for all devices, where the unit forgets what it knew: SRTP, and TE that changes."""
    remapping.pasid_entries.clear()
    look_again(remapping)


def _target(look: Remapping, device: int) -> Target | None:
    try:
        return find_tables(look, (device, None, False))[0]
    except TranslationFault:
        return None


def _devices(look: Remapping) -> Iterator[int]:
    """The source-ids with a context entry that is present."""
    scalable = look.mode is TranslationTableMode.SCALABLE
    size = 32 if scalable else 16
    for bus in range(256):
        root = _record(look, look.root_table + bus * 16, 16)
        tables = [ScalableRootEntry(root).lctp, ScalableRootEntry(root).uctp]
        for half, table in enumerate(tables if scalable else [RootEntry(root).ctp]):
            if root >> 64 * half & 1:
                for number in range(128 if scalable else 256):
                    if _record(look, table + number * size, 8) & 1:
                        yield bus << 8 | half << 7 | number


def _record(look: Remapping, address: int, size: int) -> int:
    with suppress(BusError):
        return look.memory.read_record(address, size)
    return 0
