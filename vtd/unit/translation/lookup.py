"""From a request's source-id and PASID to the tables that translate it.

VT-d 3.4, with the conditions RTA, LRT, LCT, SRT, SCT, SPD and SPT of Table 30. Checks follow the
order in which the data is read; where the specification leaves two checks unordered, the order
here is the one of the code. An entry is cached once a request has passed the checks of that entry:
with CAP.CM = 0 none may be kept for which a fault condition was met (6.2.2, 6.2.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from devices.dma import Request
from pagetables.bits import BitRecord
from pagetables.first_stage import EXTENDED_ACCESSED
from pagetables.geometry import StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import BusError
from pagetables.observer import Structure
from pagetables.walk import Stage
from vtd.layouts.entries import (
    AddressWidth,
    ContextEntry,
    FirstStagePagingMode,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    TranslationType,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.caches import ContextCacheEntry, PasidCacheEntry
from vtd.unit.observer import CacheName
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import RequestKind, kind_of
from vtd.unit.requests.target import LEGACY, SCALABLE, IotlbTags, Target
from vtd.unit.translation import rules
from vtd.unit.translation.remapping import Remapping

R = TypeVar("R", bound=BitRecord)
T = TypeVar("T")
Check = Callable[[T], None]

LEVELS = {AddressWidth.AGAW_39: 3, AddressWidth.AGAW_48: 4, AddressWidth.AGAW_57: 5}
FIRST_STAGE_LEVELS = {FirstStagePagingMode.FOUR_LEVEL: 4, FirstStagePagingMode.FIVE_LEVEL: 5}

_Kind = tuple[type[R], Structure, int, FaultReason]
"""How a structure is read: as which record, of how many bytes, and the fault where that fails."""

_ROOT: _Kind[RootEntry] = RootEntry, Structure.ROOT, 16, FaultReason.ROOT_READ_ERROR
_CONTEXT: _Kind[ContextEntry] = (
    ContextEntry,
    Structure.CONTEXT,
    16,
    FaultReason.CONTEXT_READ_ERROR,
)
_SCALABLE_ROOT: _Kind[ScalableRootEntry] = (
    ScalableRootEntry,
    Structure.ROOT,
    16,
    FaultReason.SM_ROOT_READ_ERROR,
)
_SCALABLE_CONTEXT: _Kind[ScalableContextEntry] = (
    ScalableContextEntry,
    Structure.CONTEXT,
    32,
    FaultReason.SM_CONTEXT_READ_ERROR,
)
_PASID_DIRECTORY: _Kind[PasidDirectoryEntry] = (
    PasidDirectoryEntry,
    Structure.PASID_DIRECTORY,
    8,
    FaultReason.PASID_DIRECTORY_READ_ERROR,
)
_PASID: _Kind[PasidEntry] = PasidEntry, Structure.PASID, 64, FaultReason.PASID_READ_ERROR

Lookup = tuple[Target, bool]
"""The tables that translate a request, and its privilege: its own, or RID_PRIV without a PASID
(9.4)."""


def lookup(remapping: Remapping, request: Request) -> Lookup:
    """The tables of an untranslated request; TranslationFault if it has none."""
    return find_tables(remapping, kind_of(request))


def find_tables(remapping: Remapping, kind: RequestKind) -> Lookup:
    """The tables of untranslated requests of a kind; TranslationFault if they have none."""
    caches = remapping.caches
    found = caches.lookups.get(kind)
    if found is None or remapping.observer is not None:
        found = _lookup(remapping, kind)
        if caches.context.unbounded and caches.pasid.unbounded:  # a use changes nothing
            caches.lookups[kind] = found
        return found
    caches.context.counters.hits += 1
    if remapping.mode is not LEGACY_MODE:
        caches.pasid.counters.hits += 1
    return found


def _lookup(remapping: Remapping, kind: RequestKind) -> Lookup:
    """From the context and the PASID cache, and what they don't have from memory."""
    source_id, pasid, _ = kind
    if pasid is not None or remapping.mode_fault is not None:
        check_mode(remapping, has_pasid=pasid is not None)
    if remapping.mode is LEGACY_MODE:
        return legacy_context(remapping, source_id), False
    if pasid is None:
        context = scalable_context(remapping, source_id)
    else:
        context = scalable_context(
            remapping,
            source_id,
            lambda entry: check_enabled_pasid(remapping, entry, pasid),
            needs_paside=True,
        )
    return scalable_lookup(remapping, kind, context)


def scalable_lookup(
    remapping: Remapping, kind: RequestKind, context: ScalableContextEntry
) -> Lookup:
    """The tables below a context entry that lets the request through."""
    source_id, pasid, privileged = kind
    if pasid is None:  # both 0 where RPS or RPRIVS is not reported
        pasid, privileged = context.rid_pasid, context.rid_priv
    check = check_supervisor if privileged else None
    return pasid_target(remapping, source_id, context, pasid, check), privileged


LEGACY_MODE = TranslationTableMode.LEGACY


def check_mode(remapping: Remapping, *, has_pasid: bool) -> None:
    """The conditions RTA.1, RTA.2 and RTA.4 on the latched root table pointer.

    RTA.1.4, SSIRWE in legacy mode, does not apply to requests with PASID.
    """
    if has_pasid and remapping.mode is LEGACY_MODE:
        raise TranslationFault(FaultReason.PASID_IN_LEGACY_MODE)
    if remapping.mode_fault is not None:
        raise TranslationFault(remapping.mode_fault)


def legacy_context(
    remapping: Remapping, source_id: int, check: Check[Target] | None = None
) -> Target:
    """The context entry of a source-id, from the context cache or memory (9.1, 9.3).

    ``check`` raises TranslationFault if the entry refuses the request.
    """
    cached, observer = remapping.caches.context.find(source_id), remapping.observer
    if observer is not None:
        observer.asked(CacheName.CONTEXT, source_id, cached)
    if cached is not None and not isinstance(cached.value, ScalableContextEntry):
        return _checked(_usable(cached.value), check)
    try:
        target = _read_legacy_context(remapping, source_id)
    except TranslationFault as fault:
        keep_context_fault(remapping, source_id, fault)
        raise
    if remapping.keeps_faults:  # an entry that refuses the request is one that faults (6.2.2)
        _keep_context(remapping, source_id, target.domain_id, target)
        return _checked(target, check)
    _checked(target, check)
    _keep_context(remapping, source_id, target.domain_id, target)
    return target


def _usable(
    value: T | TranslationFault,
) -> T:
    """What a cache holds; raises the fault of an entry that is kept for having faulted (6.1)."""
    if isinstance(value, TranslationFault):
        raise TranslationFault(value.reason, value.fpd)
    return value


def _keep_context(
    remapping: Remapping,
    source_id: int,
    domain_id: int | None,
    value: Target | ScalableContextEntry | TranslationFault,
) -> None:
    cache = remapping.caches.context
    if cache.off and remapping.observer is None:
        return
    entry = ContextCacheEntry(domain_id, value)
    cache.put(source_id, entry)
    if remapping.observer is not None:
        remapping.observer.kept(CacheName.CONTEXT, source_id, entry)


def _read_legacy_context(remapping: Remapping, source_id: int) -> Target:
    root = _record(remapping, _ROOT, remapping.root_table + (source_id >> 8) * 16)
    if not root.p:
        raise TranslationFault(FaultReason.ROOT_NOT_PRESENT)
    if root & remapping.reserved[RootEntry]:
        raise TranslationFault(FaultReason.ROOT_RESERVED)
    data = _read(remapping, _CONTEXT, root.ctp + (source_id & 0xFF) * 16)
    key = data, -1, False
    target = remapping.targets.get(key)
    if target is None:
        target = _remember(remapping, key, _legacy_target(remapping, ContextEntry(data)))
    return target


def _legacy_target(remapping: Remapping, entry: ContextEntry) -> Target:
    """What a context entry sets up, if it is one that can be used (LCT.2 to LCT.4)."""
    implementation, fpd = remapping.implementation, entry.fpd
    if not entry.p:
        raise TranslationFault(FaultReason.CONTEXT_NOT_PRESENT, fpd)
    if entry & remapping.reserved[ContextEntry]:
        raise TranslationFault(FaultReason.CONTEXT_RESERVED, fpd)
    features = implementation.features
    supported = {
        TranslationType.SECOND_STAGE: True,
        TranslationType.DEVICE_TLB: "dt" in features,
        TranslationType.PASS_THROUGH: "pt" in features,
        TranslationType.RESERVED_3: False,
    }
    if not supported[entry.tt] or entry.aw not in remapping.capabilities.address_widths:
        raise TranslationFault(FaultReason.CONTEXT_INVALID, fpd)
    second = Stage(second_stage_geometry(LEVELS[entry.aw], implementation), entry.ssptptr >> 12)
    pass_through = entry.tt is TranslationType.PASS_THROUGH
    kind = PasidTranslationType.PASS_THROUGH if pass_through else PasidTranslationType.SECOND_STAGE
    width = min(_guest_width(remapping), second.geometry.width)
    if pass_through:
        widest = min(remapping.capabilities.host_address_width, second.geometry.width)
        width = rules.pass_through_width(remapping.options.departures, widest)
    return Target(
        kind,
        entry.did,
        pasid=0,
        fpd=fpd,
        first=None,
        second=None if pass_through else second,
        width=width,
        reasons=LEGACY,
        entry=entry,
        tags=IotlbTags(entry.did, kind, 0),
        snooped=False,
        has_flags=False,
        canonical_width=width,
    )


def scalable_context(
    remapping: Remapping,
    source_id: int,
    check: Check[ScalableContextEntry] | None = None,
    *,
    needs_paside: bool = False,
) -> ScalableContextEntry:
    """The context entry of a source-id, from the context cache or memory (9.2, 9.4).

    ``check`` raises TranslationFault if the entry refuses the request.
    ``needs_paside``: an untranslated or translation request with PASID, to which EPTR without
    PASIDE is a lack of PASIDE (SCT.6) and not an invalid entry (SCT.4.3).
    """
    cached, observer = remapping.caches.context.find(source_id), remapping.observer
    if observer is not None:
        observer.asked(CacheName.CONTEXT, source_id, cached)
    if cached is not None and not isinstance(cached.value, Target):
        return _checked(_usable(cached.value), check)
    try:
        entry = _read_scalable_context(remapping, source_id)
    except TranslationFault as fault:
        keep_context_fault(remapping, source_id, fault)
        raise
    if entry.eptr and not entry.paside:
        if needs_paside:
            _checked(entry, check)
        raise TranslationFault(FaultReason.SM_CONTEXT_INVALID, entry.fpd)
    if remapping.keeps_faults:
        _keep_context(remapping, source_id, None, entry)
        return _checked(entry, check)
    _checked(entry, check)
    _keep_context(remapping, source_id, None, entry)
    return entry


def _read_scalable_context(remapping: Remapping, source_id: int) -> ScalableContextEntry:
    root = _record(remapping, _SCALABLE_ROOT, remapping.root_table + (source_id >> 8) * 16)
    upper = bool(source_id & 0x80)  # devices 16 to 31
    half = _UPPER_HALF if upper else _LOWER_HALF
    if not (root.up if upper else root.lp):
        raise TranslationFault(FaultReason.SM_ROOT_NOT_PRESENT)
    looked_at = rules.root_half(remapping.options.departures, half)
    if root & looked_at & remapping.reserved[ScalableRootEntry]:
        raise TranslationFault(FaultReason.SM_ROOT_RESERVED)
    table = root.uctp if upper else root.lctp
    entry = _record(remapping, _SCALABLE_CONTEXT, table + (source_id & 0x7F) * 32)
    if not entry.p:
        raise TranslationFault(FaultReason.SM_CONTEXT_NOT_PRESENT, entry.fpd)
    if entry & remapping.reserved[ScalableContextEntry]:
        raise TranslationFault(FaultReason.SM_CONTEXT_RESERVED, entry.fpd)
    entry = rules.without_unknown_rid_pasid(
        remapping.options.departures, entry, remapping.implementation
    )
    if (entry.pre and not entry.dte) or entry.rid_pasid >= pasid_limit(entry):
        raise TranslationFault(FaultReason.SM_CONTEXT_INVALID, entry.fpd)
    return entry


_LOWER_HALF = (1 << 64) - 1
_UPPER_HALF = _LOWER_HALF << 64


def pasid_limit(context: ScalableContextEntry) -> int:
    """PASIDs that the directory has room for (9.4, PDTS)."""
    return 1 << context.pdts + 13


def check_enabled_pasid(
    remapping: Remapping, context: ScalableContextEntry, pasid: int | None
) -> None:
    """SCT.6, SCT.7, SCT.9 and SGN.10: an untranslated or translation request may have a PASID."""
    if pasid is None:
        return
    if not context.paside:
        raise TranslationFault(FaultReason.PASID_DISABLED, context.fpd)
    check_pasid(remapping, context, pasid)


def check_pasid(remapping: Remapping, context: ScalableContextEntry, pasid: int) -> None:
    """The PASID of a request against the unit, the directory and RID_PASID."""
    if pasid >> remapping.capabilities.pasid_width:
        raise TranslationFault(FaultReason.PASID_TOO_WIDE, context.fpd)
    check_pasid_in_context(context, pasid)


def check_pasid_in_context(context: ScalableContextEntry, pasid: int) -> None:
    """SCT.7 and SCT.9: the PASID of a request against the directory and RID_PASID."""
    if pasid >= pasid_limit(context):
        raise TranslationFault(FaultReason.PASID_BEYOND_DIRECTORY, context.fpd)
    if pasid == context.rid_pasid:
        raise TranslationFault(FaultReason.PASID_IS_RID_PASID, context.fpd)


def check_supervisor(target: Target) -> None:
    """SPT.6: privileged requests need SRE."""
    if not (isinstance(target.entry, PasidEntry) and target.entry.sre):
        raise TranslationFault(FaultReason.SUPERVISOR_DISABLED, target.fpd)


def pasid_target(
    remapping: Remapping,
    source_id: int,
    context: ScalableContextEntry,
    pasid: int,
    check: Check[Target] | None = None,
) -> Target:
    """The PASID table entry, from the PASID cache or memory (9.5, 9.6).

    ``check`` raises TranslationFault if the entry refuses the request.
    """
    key, observer = (source_id, pasid), remapping.observer
    cached = remapping.caches.pasid.find(key)
    if observer is not None:
        observer.asked(CacheName.PASID, key, cached)
    if cached is not None:
        return _checked(_usable(cached.value), check)
    try:
        target = _read_pasid_target(remapping, context, pasid)
    except TranslationFault as fault:
        if remapping.keeps_faults:
            _keep_pasid(remapping, key, 0, fault)
        raise
    if remapping.keeps_faults:
        _keep_pasid(remapping, key, target.domain_id, target)
        return _checked(target, check)
    _checked(target, check)
    _keep_pasid(remapping, key, target.domain_id, target)
    return target


def _keep_pasid(
    remapping: Remapping, key: tuple[int, int], domain_id: int, value: Target | TranslationFault
) -> None:
    cache = remapping.caches.pasid
    if cache.off and remapping.observer is None:
        return
    entry = PasidCacheEntry(domain_id, value)
    cache.put(key, entry)
    if remapping.observer is not None:
        remapping.observer.kept(CacheName.PASID, key, entry)


def _read_pasid_target(remapping: Remapping, context: ScalableContextEntry, pasid: int) -> Target:
    directory = _record(remapping, _PASID_DIRECTORY, context.pasiddirptr + (pasid >> 6) * 8)
    fpd = context.fpd or directory.fpd
    disabled = rules.disabled(remapping.options.departures, fpd, context.fpd)
    if not directory.p:
        raise TranslationFault(FaultReason.PASID_DIRECTORY_NOT_PRESENT, disabled)
    if directory & remapping.reserved[PasidDirectoryEntry]:
        raise TranslationFault(FaultReason.PASID_DIRECTORY_RESERVED, disabled)
    data = _read(remapping, _PASID, directory.smptblptr + (pasid & 63) * 64)
    key = data, pasid, fpd
    target = remapping.targets.get(key)
    if target is None:
        target = _remember(
            remapping, key, _pasid_target(remapping, PasidEntry(data), pasid, fpd, context.fpd)
        )
    return target


def _pasid_target(
    remapping: Remapping, entry: PasidEntry, pasid: int, fpd: bool, context_fpd: bool
) -> Target:
    """What a PASID table entry sets up, if it is one that can be used (SPT.2 to SPT.4)."""
    fpd = fpd or entry.fpd
    departures = remapping.options.departures
    disabled = rules.disabled(departures, fpd, context_fpd)
    if not entry.p:
        supported = _is_kind_supported(remapping, entry)
        raise TranslationFault(rules.absence(departures, supported=supported), disabled)
    checks = (
        (_has_reserved_pasid_bits, FaultReason.PASID_RESERVED),
        (_is_pasid_entry_invalid, FaultReason.PASID_INVALID),
    )
    for met, reason in rules.in_order(departures, checks):
        if met(remapping, entry):
            raise TranslationFault(reason, disabled)
    return _pasid_stages(remapping, entry, pasid, fpd)


def _remember(remapping: Remapping, key: tuple[int, int, bool], target: Target) -> Target:
    if len(remapping.targets) >= REMEMBERED:
        remapping.targets.clear()
    remapping.targets[key] = target
    return target


REMEMBERED = 4096
"""How many decoded entries are kept at most."""


def _has_reserved_pasid_bits(remapping: Remapping, entry: PasidEntry) -> bool:
    """SPT.3."""
    departures = remapping.options.departures
    return bool(entry & rules.reserved_pasid_bits(departures, remapping.implementation))


def _is_pasid_entry_invalid(remapping: Remapping, entry: PasidEntry) -> bool:
    """SPT.4: a PGTT, AW or FSPM that the unit has not, or FSPTPTR beyond the second stage."""
    if not _is_kind_supported(remapping, entry):
        return True
    if entry.pgtt not in (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED):
        return False
    levels = FIRST_STAGE_LEVELS.get(entry.fspm)
    if levels is None or (levels == 5 and "fs5lp" not in remapping.implementation.features):
        return True
    nested = entry.pgtt is PasidTranslationType.NESTED
    return nested and bool(entry.fsptptr >> _second_stage_width(remapping, entry.aw))


def _is_kind_supported(remapping: Remapping, entry: PasidEntry) -> bool:
    """Whether the unit has this PGTT, and this AW of a second stage."""
    if _FEATURE_OF.get(entry.pgtt) not in remapping.implementation.features:
        return False
    second = entry.pgtt in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)
    return not second or entry.aw in remapping.capabilities.address_widths


def _second_stage_width(remapping: Remapping, width: AddressWidth) -> int:
    geometry = second_stage_geometry(LEVELS[width], remapping.implementation)
    return min(_guest_width(remapping), geometry.width)


def _guest_width(remapping: Remapping) -> int:
    return remapping.capabilities.max_guest_address_width


def _pasid_stages(remapping: Remapping, entry: PasidEntry, pasid: int, fpd: bool) -> Target:
    """The stages of an entry that meets no condition."""
    implementation, kind = remapping.implementation, entry.pgtt
    departures = remapping.options.departures
    snooped = rules.is_walk_snooped(departures, entry)
    first = second = None
    host_width = remapping.capabilities.host_address_width
    width = canonical_width = rules.pass_through_width(departures, host_width)
    if kind in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED):
        geometry = second_stage_geometry(LEVELS[entry.aw], implementation)
        accessed, dirty = (geometry.accessed, geometry.dirty) if entry.ssade else (0, 0)
        second = Stage(geometry, entry.ssptptr >> 12, accessed, dirty, snooped)
        width = _second_stage_width(remapping, entry.aw)
    if kind in (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED):
        geometry = first_stage_geometry(FIRST_STAGE_LEVELS[entry.fspm], implementation)
        accessed = geometry.accessed | (EXTENDED_ACCESSED if entry.eafe else 0)
        first = Stage(geometry, entry.fsptptr >> 12, accessed, geometry.dirty, snooped)
        canonical_width = rules.canonical_width(departures, entry, geometry.width)
    tags = IotlbTags(entry.did, kind, pasid, tag_width(first))
    has_flags = any(stage is not None and stage.dirty for stage in (first, second))
    return Target(
        kind,
        entry.did,
        pasid,
        fpd,
        first,
        second,
        width,
        SCALABLE,
        entry,
        tags,
        snooped=entry.pgsnp,
        has_flags=has_flags,
        canonical_width=canonical_width,
    )


_FEATURE_OF = {
    PasidTranslationType.FIRST_STAGE: "fsts",
    PasidTranslationType.SECOND_STAGE: "ssts",
    PasidTranslationType.NESTED: "nest",
    PasidTranslationType.PASS_THROUGH: "pt",
}


def tag_width(stage: Stage | None) -> int:
    """How many address bits tag what is cached of a stage: canonical addresses repeat the rest."""
    if stage is None or stage.geometry.kind is not StageKind.FIRST:
        return 64
    return stage.geometry.width


def _record(remapping: Remapping, kind: _Kind[R], address: int) -> R:
    """A structure as the record that it is; alike ones are one object, which knows its fields."""
    record, structure, size, failed = kind
    data = read_structure(remapping, structure, address, size, failed)
    known = remapping.records.get((record, data))
    if known is None:
        if len(remapping.records) >= REMEMBERED:
            remapping.records.clear()
        known = remapping.records[record, data] = record(data)
    return known  # type: ignore[return-value]  # by its key


def _read(remapping: Remapping, kind: _Kind[R], address: int) -> int:
    """The bytes of a structure of this kind."""
    _, structure, size, failed = kind
    return read_structure(remapping, structure, address, size, failed)


def read_structure(
    remapping: Remapping,
    structure: Structure,
    address: int,
    size: int,
    failed: FaultReason,
    *,
    fpd: bool = False,
) -> int:
    """The ``size`` bytes of a structure; TranslationFault ``failed`` where there is no memory."""
    try:
        if structure is _HOST_PERMISSION:  # snooped as paging structures are (4.2.4.2)
            frame, first = remapping.memory.frames[address >> 12], address >> 3 & 511
            data = frame[first] | frame[first + 1] << 64
        else:
            data = remapping.memory.read_record(address, size)
        if remapping.observer is not None:
            remapping.observer.read(structure, address, size, data)
    except BusError as error:
        if remapping.observer is not None:
            remapping.observer.unreadable(structure, address)
        raise TranslationFault(failed, fpd) from error
    return data


_HOST_PERMISSION = Structure.HOST_PERMISSION


def write_structure(remapping: Remapping, structure: Structure, address: int, data: bytes) -> None:
    """Store what the unit writes for software; BusError where there is no memory."""
    if remapping.observer is not None:
        remapping.observer.write(structure, address, data)
    remapping.snooped.write(address, data)


def _checked(entry: T, check: Check[T] | None) -> T:
    if check is not None:
        check(entry)
    return entry


def keep_context_fault(remapping: Remapping, source_id: int, fault: TranslationFault) -> None:
    """Cache what the context entry of a source-id met, if the unit does that (6.2.2)."""
    if remapping.keeps_faults:
        domain_id = 0 if remapping.mode is TranslationTableMode.LEGACY else None
        _keep_context(remapping, source_id, domain_id, fault)
