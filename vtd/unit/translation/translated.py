"""Translated requests: whether a device may use an address that it says it was given.

VT-d 4.2.4, 4.2.5 and the translated request columns of Table 30. Addresses stay what they are; with
HPTE = 1 the host permission table, or what the caches know of it (6.2.6), has to allow them.
Addresses are judged before the table. Left out: prefetching of the table (6.2.6.1).
"""

from __future__ import annotations

from devices.dma import READ, WRITE, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.geometry import PAGE_SHIFT
from pagetables.observer import Structure
from vtd.layouts.entries import (
    HostPermissionL1Entry,
    HostPermissionL2Entry,
    HostPermissionL3Entry,
    HostPermissionL4Entry,
    PasidEntry,
    ScalableContextEntry,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.caches import HOST_TABLE_SHIFTS, HostPermission, HostPermissionKey
from vtd.unit.observer import CacheName
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.target import LEGACY, SCALABLE, ModeReasons, Target
from vtd.unit.translation.ats import check_device_tlb_allowed, check_device_tlb_enabled
from vtd.unit.translation.lookup import (
    check_mode,
    check_pasid,
    legacy_context,
    pasid_target,
    read_structure,
    scalable_context,
)
from vtd.unit.translation.remapping import Remapping

Entry = (
    HostPermissionL4Entry | HostPermissionL3Entry | HostPermissionL2Entry | HostPermissionL1Entry
)
LEVELS: dict[int, tuple[type[Entry], int, int, FaultReason]] = {
    4: (HostPermissionL4Entry, 41, 41, FaultReason.HPT_TOP_READ_ERROR),
    3: (HostPermissionL3Entry, 33, 30, FaultReason.HPT_READ_ERROR),
    2: (HostPermissionL2Entry, 25, 21, FaultReason.HPT_READ_ERROR),
    1: (HostPermissionL1Entry, 17, 12, FaultReason.HPT_READ_ERROR),
}
"""Entry, lowest address bit of its index, lowest address bit of the page, error of reading it."""
INDEX_MASKS = {4: -1, 3: 0xFF, 2: 0xFF, 1: 0xFF}
"""Tables have 256 entries but for the top, whose size HPTSZ gives."""

ENTRY_SIZE = 16
SMALLEST_TABLE_REACH = 49
"""log2 of the addresses that a host permission table with HPTSZ = 0 covers."""


def check(remapping: Remapping, request: Request) -> None:
    """TranslationFault if a translated request is to be blocked.

    A request with PASID on a unit without PTRS never comes here: the root complex blocks it.
    """
    check_mode(remapping, has_pasid=request.pasid is not None)
    if remapping.mode is TranslationTableMode.LEGACY:
        target = legacy_context(remapping, request.source_id, check_device_tlb_allowed)
        _check_address(remapping, request, LEGACY, fpd=target.fpd)
        return

    def check_context(context: ScalableContextEntry) -> None:
        check_device_tlb_enabled(context)
        if request.pasid is not None:
            if not context.eptr:
                raise TranslationFault(FaultReason.TRANSLATED_PASID_DISABLED, context.fpd)
            check_pasid(remapping, context, request.pasid)

    context = scalable_context(remapping, request.source_id, check_context)
    _check_address(remapping, request, SCALABLE, fpd=context.fpd)
    if context.hpte:
        known = _cached_permission(remapping, request)
        if known is not None:
            _check_permissions(remapping, request, known)
            return
        pasid = context.rid_pasid if request.pasid is None else request.pasid
        target = pasid_target(
            remapping,
            request.source_id,
            context,
            pasid,
            lambda target: _check_size(request, _pasid_entry(target), fpd=target.fpd),
        )
        permission, worth_keeping = _walk(
            remapping, request.address, _pasid_entry(target), fpd=target.fpd
        )
        if worth_keeping:
            _keep(remapping, request, permission)
        _check_permissions(remapping, request, permission)


def _pasid_entry(target: Target) -> PasidEntry:
    assert isinstance(target.entry, PasidEntry)
    return target.entry


def _check_address(
    remapping: Remapping, request: Request, reasons: ModeReasons, *, fpd: bool
) -> None:
    if request.address >> remapping.capabilities.host_address_width:
        raise TranslationFault(reasons.beyond_haw, fpd)
    if request.address in INTERRUPT_RANGE:
        raise TranslationFault(reasons.interrupt_range, fpd)


def _check_size(request: Request, entry: PasidEntry, *, fpd: bool) -> None:
    """SPT.9: the address has to be within the reach of the host permission table."""
    if request.address >> SMALLEST_TABLE_REACH + entry.hptsz:
        raise TranslationFault(FaultReason.HPT_BEYOND_SIZE, fpd)


def _key(request: Request) -> HostPermissionKey:
    return request.source_id, request.pasid, request.address >> PAGE_SHIFT


def _cached_permission(remapping: Remapping, request: Request) -> HostPermission | None:
    cache, observer = remapping.caches.host_permissions, remapping.observer
    if cache.off:
        return None
    known = cache.find(_key(request))
    if observer is not None:
        observer.asked(CacheName.HOST_PERMISSION, _key(request), known)
    return known


def _keep(remapping: Remapping, request: Request, permission: HostPermission) -> None:
    remapping.caches.host_permissions.put(_key(request), permission)
    if remapping.observer is not None:
        remapping.observer.kept(CacheName.HOST_PERMISSION, _key(request), permission)


def _check_permissions(remapping: Remapping, request: Request, permission: HostPermission) -> None:
    permissions, fpd = permission.permissions, permission.fpd
    if request.zero_length_read and remapping.capabilities.cap.zlr:
        if not permissions:
            raise TranslationFault(FaultReason.HPT_NO_PERMISSION, fpd)
        return
    missing = request.access & ~permissions
    if missing & WRITE:
        raise TranslationFault(FaultReason.HPT_WRITE_DENIED, fpd)
    if missing & READ:
        raise TranslationFault(FaultReason.HPT_READ_DENIED, fpd)


def _walk(
    remapping: Remapping, address: int, pasid_entry: PasidEntry, *, fpd: bool
) -> tuple[HostPermission, bool]:
    """What the table says of an address, and whether that may be cached (6.2.6)."""
    domain_id, table = pasid_entry.hptdid, pasid_entry.hptptr
    level, found = _cached_table(remapping, domain_id, address)
    while True:
        record, index_bit, page_bit, failed = LEVELS[level]
        if found is None:
            where = table + (address >> index_bit & INDEX_MASKS[level]) * ENTRY_SIZE
            found = _read(remapping, record, where, failed, fpd=fpd)
        entry: Entry = record(found)
        pp = 0 if isinstance(entry, HostPermissionL4Entry) else entry.pp
        page = address >> page_bit & (1 << index_bit - page_bit) - 1
        permissions = pp >> 4 * page & (READ | WRITE)
        if permissions or isinstance(entry, HostPermissionL1Entry) or not entry.av:
            return HostPermission(domain_id, level, permissions, fpd), bool(pp)
        key = domain_id, level, address >> index_bit
        remapping.caches.host_tables.put(key, entry)
        if remapping.observer is not None:
            remapping.observer.kept(CacheName.HOST_PERMISSION_TABLE, key, entry)
        table, level, found = entry.addr, level - 1, None


def _cached_table(remapping: Remapping, domain_id: int, address: int) -> tuple[int, int | None]:
    """Where a walk begins: the deepest entry that is cached, and it; at the top without one."""
    cache, observer = remapping.caches.host_tables, remapping.observer
    if cache.off:
        return 4, None
    for level, shift in sorted(HOST_TABLE_SHIFTS.items()):
        key = domain_id, level, address >> shift
        entry = cache.use(key)
        if entry is not None:
            if observer is not None:
                observer.asked(CacheName.HOST_PERMISSION_TABLE, key, entry)
            return level, entry
    cache.counters.misses += 1
    if observer is not None:
        observer.asked(CacheName.HOST_PERMISSION_TABLE, (domain_id, 2, address >> 25), None)
    return 4, None


def _read(
    remapping: Remapping, record: type[Entry], address: int, failed: FaultReason, *, fpd: bool
) -> int:
    data = read_structure(
        remapping, Structure.HOST_PERMISSION, address, ENTRY_SIZE, failed, fpd=fpd
    )
    if data & record.reserved_mask(remapping.implementation):
        raise TranslationFault(FaultReason.HPT_RESERVED, fpd)
    return data
