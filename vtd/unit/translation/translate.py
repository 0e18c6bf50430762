"""The translation path: from a request to the page it may use, or the fault it meets.

Read :func:`translate` top to bottom next to VT-d 3.4 to 3.9 and Table 30.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from devices.dma import READ, WRITE, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.geometry import INDEX_BITS, PAGE_SHIFT, StageKind
from pagetables.memory import BusError, TableMemory
from pagetables.nested import GuestMemory
from pagetables.second_stage import SNOOP
from pagetables.walk import (
    OFFSETS,
    STARTS,
    Leaf,
    Stage,
    WalkFault,
    WalkRule,
    set_flags,
    walk,
)
from vtd.layouts.entries import PasidEntry
from vtd.unit.caching.cache import Cache
from vtd.unit.caching.caches import LOWEST_TABLE_SHIFT, StructureEntry, StructureKey
from vtd.unit.caching.iotlb import IotlbEntry, Space, Translation
from vtd.unit.observer import CacheName, Observer
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import kind_of, meets_interrupts
from vtd.unit.requests.target import Target
from vtd.unit.translation.lookup import find_tables, keep_context_fault, tag_width
from vtd.unit.translation.remapping import Remapping

Page = tuple[int, int, int, bool, Leaf | None, Leaf | None, TableMemory]
"""Where an address leads and what the request's privilege may do there: the translated address,
log2 of the range around it that is mapped alike, READ and WRITE, whether a first-stage entry on the
way keeps user requests out (U/S), the leaf of each stage, and where the first-stage entries are."""


StructureCache = Cache[StructureKey, StructureEntry]
CACHE_NAMES = {StageKind.FIRST: CacheName.FIRST_STAGE, StageKind.SECOND: CacheName.SECOND_STAGE}


def entry_for(remapping: Remapping, request: Request) -> IotlbEntry:
    """The translation of an untranslated request; TranslationFault if it is to be blocked."""
    space = remapping.caches.iotlb.space(kind_of(request))
    return IotlbEntry._make(translate(remapping, request, space, request.address, request.access))


def translate(  # noqa: PLR0912 - all that a request meets, in one piece
    remapping: Remapping,
    request: Request,
    space: Space,
    address: int,
    access: int,
    cached: Translation | None = None,
) -> Translation:
    """Translate an untranslated request; TranslationFault if it is to be blocked.

    ``space`` is where the IOTLB has requests of its kind; ``address`` and ``access`` are its own,
    which the caller has at hand, as taking a request apart is a thirtieth of what a miss costs.
    ``cached`` is what the IOTLB has for it: an entry that by its rights alone does not decide.
    """
    if cached is not None:
        _, _, _, _, granted, _, fault = cached
        if fault is not None:
            raise TranslationFault(fault.reason, fault.fpd)
        if _missing_right(remapping, request, granted) is None:
            return cached

    target, privileged = find_tables(remapping, space.kind)
    try:
        if cached is not None and remapping.options.caches.trust_cached_rights:
            check_rights(remapping, target, request, granted_by_tables(cached))
        while True:
            page = find_page(remapping, target, address, privileged)
            physical, _, rights, user_denied, _, _, _ = page
            if user_denied:
                raise TranslationFault(FaultReason.USER_DENIED, target.fpd)
            if access & ~rights and _missing_right(remapping, request, rights) is not None:
                if remapping.keeps_faults:
                    _keep_page(remapping, target, request, page)
                check_rights(remapping, target, request, rights)
            if physical >> 20 == INTERRUPT_MEGABYTE:
                raise TranslationFault(target.reasons.interrupt_range, target.fpd)
            if target.has_flags:
                if access & WRITE:
                    if not set_dirty(remapping, target, page):
                        continue
                elif needs_dirty(target, page):
                    rights = without_dirty(rights)
            break
    except WalkFault as ended:
        raise _fault_at_end(remapping, target, request, ended) from ended
    except TranslationFault as fault:
        of_every_access = fault.reason in target.reasons.of_every_access
        if remapping.keeps_faults and of_every_access and target.first is None:
            _keep_fault(remapping, target, request, fault)
        raise
    entry = translation(target, address, page, rights)
    if remapping.fractures:
        entry = piece_of(entry, address)
    remapping.caches.iotlb.keep(space, entry)
    if remapping.observer is not None:
        found(remapping.observer, request, entry)
    return entry


def found(observer: Observer, request: Request, bare: Translation) -> None:
    """Tell whoever watches of the page, and that the IOTLB was given it."""
    entry = IotlbEntry._make(bare)
    observer.found(request, entry)
    observer.kept(CacheName.IOTLB, (kind_of(request), entry.address), entry)


def translation(target: Target, address: int, page: Page, rights: int) -> Translation:
    """The translation as the IOTLB keeps it, without the interrupt range in it."""
    physical, shift, _, _, _, second, _ = page
    if shift > PAGE_SHIFT and meets_interrupts(physical, shift):
        shift = PAGE_SHIFT
    snoop = target.snooped or (second is not None and second[0] & SNOOP != 0)
    starts = _PAGE_STARTS[shift]
    return target.tags, address & starts, shift, physical & starts, rights, snoop, None


_PAGE_STARTS = tuple((1 << 64) - 1 & ~offset for offset in OFFSETS)
"""The address bits above a page, by log2 of its size."""


INTERRUPT_MEGABYTE = INTERRUPT_RANGE.start >> 20


def piece_of(entry: Translation, address: int) -> Translation:
    """The 4 KiB page at an address as an entry of its own (6.2.4.1)."""
    tags, _, shift, physical, rights, snoop, fault = entry
    page = address & -1 << PAGE_SHIFT
    return tags, page, PAGE_SHIFT, physical | page & OFFSETS[shift], rights, snoop, fault


def without_dirty(rights: int) -> int:
    """Rights until a dirty flag is set: without WRITE, so that the first write sets the flag.

    The two bits above say what the tables grant.
    """
    return rights & ~WRITE | rights << 2


def find_page(remapping: Remapping, target: Target, address: int, privileged: bool) -> Page:
    """Walk the tables of ``target`` without judging the access (3.6 to 3.9).

    Raises WalkFault where the tables end, TranslationFault where the address is out of range.
    """
    memory, first_stage, second_stage = remapping.memory, target.first, target.second
    if first_stage is None:
        if second_stage is None:
            if address >> target.width:
                raise TranslationFault(target.reasons.beyond_haw, target.fpd)
            return address, PAGE_SHIFT, READ | WRITE, False, None, None, memory
        if address >> target.width:
            raise TranslationFault(target.reasons.beyond_width, target.fpd)
        second = entry, shift, rights, _, _ = walk_tables(
            remapping, target, second_stage, memory, address
        )
        physical = entry & STARTS[shift] | address & OFFSETS[shift]
        granted = rights >> second_stage.geometry.rights_at & 3
        return physical, shift, granted, False, None, second, memory

    geometry = first_stage.geometry
    if not is_canonical(address, target.canonical_width):
        raise TranslationFault(FaultReason.NOT_CANONICAL, target.fpd)
    if second_stage is not None:
        if remapping.caches.second_stage.off and remapping.observer is None:
            walk_second = partial(walk, memory, second_stage)
        else:
            walk_second = partial(walk_tables, remapping, target, second_stage, memory)
        memory = GuestMemory(memory, second_stage, target.width, walk_second, remapping.observer)
    first = walk_tables(remapping, target, first_stage, memory, address)
    entry, shift, rights, _, _ = first
    physical = entry & STARTS[shift] | address & OFFSETS[shift]
    granted = rights >> geometry.rights_at & 3
    user_denied = not privileged and not rights & geometry.user
    if privileged and not _write_protected(target):
        granted |= WRITE
    if second_stage is None:
        return physical, shift, granted, user_denied, first, None, memory

    if physical >> target.width:
        raise TranslationFault(FaultReason.FS_BEYOND_WIDTH, target.fpd)
    second = walk_second(physical)
    entry, second_shift, rights, _, _ = second
    physical = entry & STARTS[second_shift] | physical & OFFSETS[second_shift]
    granted &= rights >> second_stage.geometry.rights_at
    shift = min(shift, second_shift)
    return physical, shift, granted, user_denied, first, second, memory


def is_canonical(address: int, width: int) -> bool:
    """Whether bits 63 down to ``width - 1`` are all alike (SGN.1)."""
    return address >> width - 1 in (0, (1 << 65 - width) - 1)


def check_rights(remapping: Remapping, target: Target, request: Request, rights: int) -> None:
    """TranslationFault if ``rights`` don't let the request through (LGN.2/3, SGN.6/7)."""
    missing = _missing_right(remapping, request, rights)
    if missing is not None:
        raise TranslationFault(denial(target, missing), target.fpd)


def _missing_right(remapping: Remapping, request: Request, rights: int) -> int | None:
    missing = request.access & ~rights
    if not missing:
        return None
    if request.zero_length_read and rights & WRITE and remapping.capabilities.cap.zlr:
        return None
    return WRITE if missing & WRITE else READ


def denial(target: Target, right: int) -> FaultReason:
    """The reason of a request that lacks this right."""
    return target.reasons.write_denied if right & WRITE else target.reasons.read_denied


def granted_by_tables(cached: Translation) -> int:
    """READ and WRITE of an entry, also where a dirty flag has to be set first."""
    _, _, _, _, rights, _, _ = cached
    return rights | rights >> 2


def needs_dirty(target: Target, page: Page) -> bool:
    """Whether a write still has to set a dirty flag (3.6.2, 3.7.2)."""
    _, _, _, _, first, second, _ = page
    if first is not None and target.first is not None and target.first.dirty & ~first[0]:
        return True
    return (
        second is not None and target.second is not None and bool(target.second.dirty & ~second[0])
    )


def set_dirty(remapping: Remapping, target: Target, page: Page) -> bool:
    """Set the dirty flags of the leaves; False if an entry changed and has to be walked again."""
    _, _, _, _, first, second, tables = page
    observer = remapping.observer
    for stage, leaf, memory in (
        (target.first, first, tables),
        (target.second, second, remapping.memory),
    ):
        if stage is None or leaf is None or not stage.dirty & ~leaf[0]:
            continue
        if not set_flags(memory, stage, leaf, stage.dirty, observer):
            return False
    return True


def walk_tables(
    remapping: Remapping, target: Target, stage: Stage, memory: TableMemory, address: int
) -> Leaf:
    """Walk a stage, from the table of 4 KiB pages if that is cached, or as far as is (6.2.5)."""
    caches, observer = remapping.caches, remapping.observer
    cache, pasid = caches.second_stage, None
    if stage is target.first:
        cache, pasid = caches.first_stage, target.pasid
        if memory.__class__ is GuestMemory and not cache.off:
            return _walk_guest(cache, (target.domain_id, pasid), memory, stage, address, observer)
    if cache.off:
        return walk(memory, stage, address, None, None, observer)
    key = target.domain_id, pasid, LOWEST_TABLE_SHIFT, address >> LOWEST_TABLE_SHIFT
    lowest = cache.take(key)
    if lowest is None:
        return _walk_and_remember(remapping, cache, key[:2], memory, stage, address)
    cache.counters.hits += 1
    if observer is not None:
        observer.asked(CACHE_NAMES[stage.geometry.kind], key, lowest)
    if lowest.refused is not None:
        raise _refused(lowest, stage)
    geometry, frame, rights = stage.geometry, lowest.frame, lowest.rights
    if observer is None and not stage.accessed:
        index = address >> PAGE_SHIFT & 511
        try:
            entry = memory.frames[frame][index]
        except BusError:
            entry = 0
        granted = rights & entry
        if granted & geometry.present and not entry & geometry.page_reserved:
            return entry, PAGE_SHIFT, granted, frame, index
    return walk(memory, stage, address, None, (len(geometry.levels) - 1, frame, rights), observer)


def _refused(entry: StructureEntry, stage: Stage) -> WalkFault:
    """What a walk meets at an entry that is kept for having faulted."""
    assert entry.refused is not None
    top = entry.shift == stage.geometry.levels[0].shift
    return WalkFault(entry.refused, stage.geometry.kind, entry.shift, top)


def _walk_and_remember(
    remapping: Remapping,
    cache: StructureCache,
    tags: tuple[int, int | None],
    memory: TableMemory,
    stage: Stage,
    address: int,
) -> Leaf:
    observer = remapping.observer
    _, start = _below(cache, tags, stage, address, observer, LOWEST_TABLE_SHIFT + INDEX_BITS)
    width = tag_width(stage)

    def remember(shift: int, frame: int, rights: int) -> None:
        keep(StructureEntry(shift, frame, rights, width))

    def keep(entry: StructureEntry) -> None:
        key = *tags, entry.shift, address >> entry.shift
        cache.put(key, entry)
        if observer is not None:
            observer.kept(CACHE_NAMES[stage.geometry.kind], key, entry)

    try:
        return walk(memory, stage, address, remember, start, observer)
    except WalkFault as fault:
        above_pages = fault.shift > PAGE_SHIFT and fault.rule in _OF_ENTRIES
        if remapping.keeps_faults and above_pages and fault.kind is StageKind.SECOND:
            keep(StructureEntry(fault.shift, 0, 0, width, refused=fault.rule))
        raise


def _walk_guest(
    cache: StructureCache,
    tags: tuple[int, int | None],
    memory: GuestMemory,
    stage: Stage,
    address: int,
    observer: Observer | None,
) -> Leaf:
    """A first-stage walk whose entries hold where the second stage has the tables (6.2.5).

    So there is none that leads to a table which the second stage refuses.
    """
    width = tag_width(stage)
    reached: StructureEntry | None = None

    def remember(shift: int, frame: int, rights: int) -> None:
        nonlocal reached
        reached = StructureEntry(shift, frame, rights, width)

    def locate(frame: int, host: int) -> None:
        if reached is not None and reached.frame == frame:
            key = (*tags, reached.shift, address >> reached.shift)
            entry = replace(reached, host=host)
            cache.put(key, entry)
            if observer is not None:
                observer.kept(CacheName.FIRST_STAGE, key, entry)

    below, start = _below(cache, tags, stage, address, observer, LOWEST_TABLE_SHIFT)
    if below is not None and below.host is not None:
        memory.known[below.frame] = below.host
    memory.located = locate
    return walk(memory, stage, address, remember, start, observer)


def _below(
    cache: StructureCache,
    tags: tuple[int, int | None],
    stage: Stage,
    address: int,
    observer: Observer | None,
    shift: int,
) -> tuple[StructureEntry | None, tuple[int, int, int] | None]:
    """The deepest entry on the way to ``address``, and where a walk goes on from it.

    Entries are looked for from ``shift``, which tells their level, upwards.
    """
    levels = stage.geometry.levels
    for done in range(len(levels) - 1, 0, -1):
        if levels[done - 1].shift < shift:
            continue
        key = *tags, levels[done - 1].shift, address >> levels[done - 1].shift
        entry = cache.use(key)
        if entry is not None:
            if observer is not None:
                observer.asked(CACHE_NAMES[stage.geometry.kind], key, entry)
            if entry.refused is not None:
                raise _refused(entry, stage)
            return entry, (done, entry.frame, entry.rights)
    cache.counters.misses += 1
    if observer is not None:
        key = *tags, LOWEST_TABLE_SHIFT, address >> LOWEST_TABLE_SHIFT
        observer.asked(CACHE_NAMES[stage.geometry.kind], key, None)
    return None, None


def _fault_at_end(
    remapping: Remapping, target: Target, request: Request, ended: WalkFault
) -> TranslationFault:
    """The fault of a request whose walk ended early, cached if the policy does that (6.1).

    Whoever raises it keeps it in no variable, as its traceback would hold on to that.
    """
    met = walk_fault(remapping, target, ended, request)
    if remapping.keeps_faults:
        _keep_end(remapping, target, request, ended, met)
    return met


def walk_fault(
    remapping: Remapping, target: Target, ended: WalkFault, request: Request
) -> TranslationFault:
    """The fault that a walk which ended early amounts to (LSS, SFS, SSS)."""
    rule, kind, _, top = ended.args
    reasons = target.reasons
    if kind is _FIRST:
        at_top, below = _FIRST_STAGE_REASONS[rule]
        reason = at_top if top else below
    elif rule is _NOT_PRESENT:
        reason = reasons.no_permission or denial(target, request.access)
    elif rule is _READ_ERROR:
        reason = reasons.top_read_error if top else reasons.read_error
    else:
        reason = _SECOND_STAGE_REASONS.get(rule, reasons.reserved)
    met = TranslationFault(reason, target.fpd)
    if reason is _CONTEXT_INVALID:  # LCT.4.3: a fault of the context entry
        remapping.caches.forget_context(request.source_id)
        keep_context_fault(remapping, request.source_id, met)
    return met


_FIRST, _NOT_PRESENT, _READ_ERROR = StageKind.FIRST, WalkRule.NOT_PRESENT, WalkRule.READ_ERROR
_CONTEXT_INVALID = (
    FaultReason.CONTEXT_INVALID
)  # asking the enumerations takes several times as long

_SECOND_STAGE_REASONS = {
    WalkRule.NOT_SNOOPED: FaultReason.SS_NOT_SNOOPED,
    WalkRule.UPDATE_ERROR: FaultReason.SS_UPDATE_ERROR,
}
_FIRST_STAGE_REASONS = {
    WalkRule.READ_ERROR: (FaultReason.FS_TOP_READ_ERROR, FaultReason.FS_READ_ERROR),
    WalkRule.NOT_PRESENT: (FaultReason.FS_NOT_PRESENT,) * 2,
    WalkRule.RESERVED: (FaultReason.FS_RESERVED,) * 2,
    WalkRule.NOT_SNOOPED: (FaultReason.FS_NOT_SNOOPED,) * 2,
    WalkRule.UPDATE_ERROR: (FaultReason.FS_UPDATE_ERROR,) * 2,
    WalkRule.TABLE_BEYOND_WIDTH: (FaultReason.FS_BEYOND_WIDTH,) * 2,
    WalkRule.TABLE_NOT_READABLE: (FaultReason.FS_TOP_NOT_READABLE, FaultReason.FS_NOT_READABLE),
    WalkRule.TABLE_NOT_WRITABLE: (FaultReason.FS_NOT_WRITABLE,) * 2,
}
"""Reasons at the top table and below it."""


def _write_protected(target: Target) -> bool:
    return isinstance(target.entry, PasidEntry) and target.entry.wpe


def _keep_end(
    remapping: Remapping, target: Target, request: Request, ended: WalkFault, met: TranslationFault
) -> None:
    """Cache how a walk ended, if that is not in the first stage (6.2.4.1)."""
    if ended.kind is StageKind.SECOND and ended.rule in _SAME_FOR_ALL:
        _keep_fault(remapping, target, request, met)


def _keep_fault(
    remapping: Remapping, target: Target, request: Request, fault: TranslationFault
) -> None:
    """Cache a result of the second stage that faults whatever the access to the page is (6.1)."""
    reasons = target.reasons
    denied = fault.reason in (reasons.read_denied, reasons.write_denied)
    page = request.address >> PAGE_SHIFT << PAGE_SHIFT
    entry = IotlbEntry(
        target.tags,
        page,
        PAGE_SHIFT,
        physical=page,
        rights=0,
        snoop=False,
        fault=None if denied else fault,  # legacy mode names the right that the access needs
    )
    _keep(remapping, request, entry)


def _keep_page(remapping: Remapping, target: Target, request: Request, page: Page) -> None:
    """Cache a page of the second stage that does not grant what the request needs (6.2.4.1)."""
    physical, _, rights, _, _, _, _ = page
    if target.first is not None or physical >> 20 == INTERRUPT_MEGABYTE:
        return
    if needs_dirty(target, page):
        rights = without_dirty(rights)
    _keep(remapping, request, translation(target, request.address, page, rights))


def _keep(remapping: Remapping, request: Request, entry: Translation) -> None:
    """Cache a result that refused its request."""
    kind = kind_of(request)
    if remapping.fractures:
        entry = piece_of(entry, request.address)
    remapping.caches.iotlb.insert(kind, entry)
    if remapping.observer is not None:
        named = IotlbEntry._make(entry)
        remapping.observer.kept(CacheName.IOTLB, (kind, named.address), named)


_OF_ENTRIES = (WalkRule.NOT_PRESENT, WalkRule.RESERVED)
"""Rules by which an entry itself stops a walk."""
_SAME_FOR_ALL = (WalkRule.READ_ERROR, WalkRule.NOT_PRESENT, WalkRule.RESERVED)
"""Rules that stop a walk whatever the request is for."""
