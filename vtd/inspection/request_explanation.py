"""One DMA request explained: every structure read, the walk step by step, and what decides.

VT-d 3.4 to 3.9. The request takes the ordinary path, seen by an onlooker: no flag is set, no fault
recorded, and no cache asked, as hardware with empty caches would do it. Left out: protected memory
regions, which block by physical address after all this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from devices.dma import WRITE, Completion, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables import walk_explanation as page_walk
from pagetables.bits import BitRecord
from pagetables.geometry import StageKind
from pagetables.observer import Structure
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.iotlb import Iotlb, IotlbEntry
from vtd.unit.observer import Observer
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import kind_of
from vtd.unit.requests.target import Target
from vtd.unit.translation.ats import answer, lookup_for_ats
from vtd.unit.translation.lookup import Lookup, lookup
from vtd.unit.translation.remapping import Remapping, onlooker
from vtd.unit.translation.translate import entry_for, is_canonical

LEGACY_STRUCTURES: tuple[type[BitRecord], ...] = (RootEntry, ContextEntry)
SCALABLE_STRUCTURES: tuple[type[BitRecord], ...] = (
    ScalableRootEntry,
    ScalableContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
)
NAMES: dict[type[BitRecord], str] = {
    RootEntry: "root entry",
    ContextEntry: "context entry",
    ScalableRootEntry: "root entry",
    ScalableContextEntry: "context entry",
    PasidDirectoryEntry: "PASID directory entry",
    PasidEntry: "PASID entry",
}


class StructureRead(NamedTuple):
    """One structure on the way from the source-id to the page tables."""

    name: str
    address: int
    record: BitRecord | None
    """None where reading failed."""


class ReachedMemory(NamedTuple):
    """What the request comes to."""

    physical: int
    length: int
    """Bytes around ``physical`` that are translated alike."""
    rights: int
    """READ and WRITE as far as this translation may be used without another flag update."""
    domain_id: int


class RequestExplanation(NamedTuple):
    """A request from its source-id to the memory that it reaches, or to its fault."""

    request: Request
    structures: tuple[StructureRead, ...]
    target: Target | None
    """The tables of the request; None if it did not come that far."""
    walk: page_walk.WalkExplanation | None
    """None where there is nothing to walk: passed through, or refused before."""
    outcome: ReachedMemory | None
    fault: TranslationFault | None
    answer: Completion | None = None
    """Of a translation request."""

    def _repr_svg_(self) -> str:
        """In a notebook: every entry with its bits."""
        from vtd.inspection.request_picture import request_svg  # noqa: PLC0415 - only there

        return request_svg(self)


def is_interrupt(request: Request) -> bool:
    """Whether a request is none for memory, but one to the interrupt range (3.15)."""
    return request.pasid is None and request.address in INTERRUPT_RANGE


def cached(iotlb: Iotlb, request: Request) -> IotlbEntry | None:
    """The IOTLB entry that covers a request; looking does not count as a hit or miss."""
    return iotlb.peek(kind_of(request), request.address)


def explain_request(remapping: Remapping, request: Request) -> RequestExplanation:
    """Explain a memory request while DMA remapping is enabled."""
    observer = onlooker(remapping)
    seen = _follow(observer, request, lookup)
    if seen.target is None:
        return seen
    try:
        entry = entry_for(observer, request)
    except TranslationFault as fault:
        return seen._replace(fault=fault)
    physical = entry.physical | request.address & (1 << entry.shift) - 1
    outcome = ReachedMemory(physical, 1 << entry.shift, entry.rights, entry.tags.domain_id)
    walk = seen.walk
    if walk is not None and request.access & WRITE:
        walk = walk._replace(steps=tuple(_dirtied(seen.target, step) for step in walk.steps))
    return seen._replace(outcome=outcome, walk=walk)


def _dirtied(target: Target, step: page_walk.Step) -> page_walk.Step:
    """The step of a write: in the entry that maps the page the dirty flag is set too (3.6.2)."""
    if step.outcome is not page_walk.EntryRole.PAGE or step.entry is None:
        return step
    stage = target.first if step.kind is StageKind.FIRST else target.second
    dirty = 0 if stage is None else stage.dirty & ~step.entry
    return step._replace(flags=step.flags | dirty)


def explain_translation_request(remapping: Remapping, request: Request) -> RequestExplanation:
    """Explain the answer to a translation request of a device-TLB (4.2.3)."""
    observer = onlooker(remapping)
    seen = _follow(observer, request, lookup_for_ats)
    completion, fault = answer(observer, request)
    return seen._replace(answer=completion, fault=fault)


def _follow(
    remapping: Remapping, request: Request, look_up: Callable[[Remapping, Request], Lookup]
) -> RequestExplanation:
    """The structures and the walk, without an outcome unless there are no tables."""
    log = remapping.observer = _StructureReads()
    target = walk = fault = None
    try:
        target, _ = look_up(remapping, request)
    except TranslationFault as refused:
        fault = refused
    remapping.observer = None
    if target is not None:
        walk = _walk(remapping, target, request.address)
    legacy = remapping.mode is TranslationTableMode.LEGACY
    records = LEGACY_STRUCTURES if legacy else SCALABLE_STRUCTURES
    structures = tuple(
        StructureRead(NAMES[record], address, None if value is None else record(value))
        for record, (address, value) in zip(records, log.reads, strict=False)
    )
    return RequestExplanation(request, structures, target, walk, None, fault)


def _walk(remapping: Remapping, target: Target, address: int) -> page_walk.WalkExplanation | None:
    """The walk of an address that the tables can translate."""
    memory, first, second = remapping.memory, target.first, target.second
    if first is not None:
        if not is_canonical(address, first.geometry.width):
            return None
        if second is not None:
            return page_walk.explain_nested_walk(memory, first, second, target.width, address)
        return page_walk.explain_walk(memory, first, address)
    if second is None or address >> target.width:
        return None
    return page_walk.explain_walk(memory, second, address)


class _StructureReads(Observer):
    """The structures of a lookup: address and value, None where reading failed."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int | None]] = []

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """The next one."""
        self.reads.append((address, value))

    def unreadable(self, structure: Structure, address: int) -> None:
        """The last one."""
        self.reads.append((address, None))
