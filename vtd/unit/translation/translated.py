"""Translated requests: whether a device may use an address that it says it was given.

VT-d 4.2.4, 4.2.5 and the translated request columns of Table 30. Addresses stay what they are; with
HPTE = 1 the host permission table has to allow them. Addresses are judged before the table. Left
out: caches of the table, which no unit has to have.
"""

from __future__ import annotations

from typing import TypeVar

from devices.dma import READ, WRITE, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.bits import BitRecord
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

R = TypeVar("R", bound=BitRecord)

LOWER_LEVELS: tuple[
    tuple[
        type[HostPermissionL3Entry] | type[HostPermissionL2Entry] | type[HostPermissionL1Entry],
        int,
        int,
    ],
    ...,
] = (
    (HostPermissionL3Entry, 33, 30),
    (HostPermissionL2Entry, 25, 21),
    (HostPermissionL1Entry, 17, 12),
)
"""Entry, lowest address bit of its index in a table of 256, lowest address bit of the page."""

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
                raise TranslationFault(FaultReason.TRANSLATED_PASID_DISABLED, fpd=context.fpd)
            check_pasid(remapping, context, request.pasid)

    context = scalable_context(remapping, request.source_id, check_context)
    _check_address(remapping, request, SCALABLE, fpd=context.fpd)
    if context.hpte:
        pasid = context.rid_pasid if request.pasid is None else request.pasid
        target = pasid_target(
            remapping,
            request.source_id,
            context,
            pasid,
            lambda target: _check_size(request, _pasid_entry(target), fpd=target.fpd),
        )
        _check_host_permission(remapping, request, _pasid_entry(target), fpd=target.fpd)


def _pasid_entry(target: Target) -> PasidEntry:
    assert isinstance(target.entry, PasidEntry)
    return target.entry


def _check_address(
    remapping: Remapping, request: Request, reasons: ModeReasons, *, fpd: bool
) -> None:
    if request.address >> remapping.capabilities.host_address_width:
        raise TranslationFault(reasons.beyond_haw, fpd=fpd)
    if request.address in INTERRUPT_RANGE:
        raise TranslationFault(reasons.interrupt_range, fpd=fpd)


def _check_size(request: Request, entry: PasidEntry, *, fpd: bool) -> None:
    """SPT.9: the address has to be within the reach of the host permission table."""
    if request.address >> SMALLEST_TABLE_REACH + entry.hptsz:
        raise TranslationFault(FaultReason.HPT_BEYOND_SIZE, fpd=fpd)


def _check_host_permission(
    remapping: Remapping, request: Request, entry: PasidEntry, *, fpd: bool
) -> None:
    permissions = host_permissions(remapping, request.address, entry.hptptr, fpd=fpd)
    if request.zero_length_read and remapping.capabilities.cap.zlr:
        if not permissions:
            raise TranslationFault(FaultReason.HPT_NO_PERMISSION, fpd=fpd)
        return
    missing = request.access & ~permissions
    if missing & WRITE:
        raise TranslationFault(FaultReason.HPT_WRITE_DENIED, fpd=fpd)
    if missing & READ:
        raise TranslationFault(FaultReason.HPT_READ_DENIED, fpd=fpd)


def host_permissions(remapping: Remapping, address: int, table: int, *, fpd: bool = False) -> int:
    """READ and WRITE as the host permission table at ``table`` grants them (4.2.4)."""
    top = _read(
        remapping,
        HostPermissionL4Entry,
        table + (address >> 41) * ENTRY_SIZE,
        FaultReason.HPT_TOP_READ_ERROR,
        fpd=fpd,
    )
    if not top.av:
        return 0
    table = top.addr
    for record, index_bit, page_bit in LOWER_LEVELS:
        entry = _read(
            remapping,
            record,
            table + (address >> index_bit & 0xFF) * ENTRY_SIZE,
            FaultReason.HPT_READ_ERROR,
            fpd=fpd,
        )
        page = address >> page_bit & (1 << index_bit - page_bit) - 1
        permissions = entry.pp >> 4 * page & (READ | WRITE)
        if permissions or isinstance(entry, HostPermissionL1Entry) or not entry.av:
            return permissions
        table = entry.addr
    return 0


def _read(
    remapping: Remapping, record: type[R], address: int, failed: FaultReason, *, fpd: bool
) -> R:
    data = read_structure(
        remapping, Structure.HOST_PERMISSION, address, ENTRY_SIZE, failed, fpd=fpd
    )
    entry = record(data)
    reserved = record.reserved_mask(remapping.implementation)
    if "av" in record.FIELDS and not entry & record.FIELDS["av"].mask:
        reserved &= ~record.FIELDS["addr"].mask  # ignored (9.12)
    if entry & reserved:
        raise TranslationFault(FaultReason.HPT_RESERVED, fpd=fpd)
    return entry
