"""The common IOTLB miss in few steps: a plain second-stage page of a requester seen before.

Everything a shortcut relies on is in the caches already, and it is forgotten when any of that is
invalidated. It does what ``translate`` would do and counts what that would count; whatever is
out of the ordinary is left to it. Scripts/bench has the figures.
"""

from __future__ import annotations

from devices.dma import READ, WRITE
from pagetables.memory import BusError, PhysicalMemory
from pagetables.second_stage import SNOOP
from pagetables.walk import WalkFault, walk
from vtd.unit.caching.cache import OFF, UNBOUNDED
from vtd.unit.caching.iotlb import FRAME, IotlbEntry, Shortcut, Space
from vtd.unit.requests.request import INTERRUPT_RANGE, RequestKind
from vtd.unit.requests.target import LEGACY, Target
from vtd.unit.translation.remapping import Remapping

INTERRUPT_START, INTERRUPT_END = INTERRUPT_RANGE.start, INTERRUPT_RANGE.stop


def refill(remapping: Remapping, space: Space, address: int, access: int) -> int | None:
    """The physical address after a miss of ``space``, or None for the long way."""
    if space.shortcut is None:
        return None
    memory, stage, width, tables, reserved, template, iotlb, context, pasid, structures = (
        space.shortcut
    )
    if memory is not remapping.memory or (space.large and _in_large_page(space, address)):
        return None
    try:
        if structures is None:
            entry, shift, rights, _ = walk(memory, stage, address)
            if shift != 12 or address >> width or address in INTERRUPT_RANGE:
                return None
        else:
            table = tables[address >> 21]
            entry = memory.frames[table >> 2][address >> 12 & 511]
            rights = entry & table & 3
    except (BusError, KeyError, WalkFault):
        return None
    frame = entry & FRAME
    if rights & access != access or entry & reserved or INTERRUPT_START <= frame < INTERRUPT_END:
        return None
    iotlb.misses += 1
    iotlb.insertions += 1
    context.hits += 1
    if pasid is not None:
        pasid.hits += 1
    if structures is not None:
        structures.hits += 1
    space.store[address >> 12] = template | frame | rights
    return frame | address & 0xFFF


def _in_large_page(space: Space, address: int) -> bool:
    """Whether a larger page is cached that this one is a part of."""
    return (21, address >> 21) in space.large or (30, address >> 30) in space.large


def prepare_shortcut(
    remapping: Remapping, target: Target, kind: RequestKind, address: int, entry: IotlbEntry
) -> None:
    """Let :func:`refill` answer the next misses like this one."""
    caches, memory, second = remapping.caches, remapping.memory, target.second
    policy = caches.policy
    if (
        not caches.iotlb.direct
        or not isinstance(memory, PhysicalMemory)  # an observer sees each access once
        or policy.context != UNBOUNDED
        or policy.pasid != UNBOUNDED
        or policy.paging_structure not in (OFF, UNBOUNDED)
        or target.first is not None
        or second is None
        or second.accessed
        or second.geometry.rights != READ | WRITE
        or entry.shift != 12
        or entry.snoop
    ):
        return
    reserved = second.geometry.levels[-1].page_reserved | SNOOP
    template = caches.iotlb.pack(entry) & ~(FRAME | READ | WRITE)
    structures = None if policy.paging_structure == OFF else caches.second_stage.counters
    space = caches.iotlb.space(kind)
    shortcut = space.shortcut
    if shortcut is None or shortcut.memory is not memory or shortcut.template != template:
        shortcut = space.shortcut = Shortcut(
            memory,
            second,
            target.width,
            {},
            reserved,
            template,
            caches.iotlb.counters,
            caches.context.counters,
            None if target.reasons is LEGACY else caches.pasid.counters,
            structures,
        )
    below = caches.second_stage.peek((target.domain_id, None, 21, address >> 21))
    if below is not None and address >> 21 != INTERRUPT_START >> 21:
        shortcut.tables[address >> 21] = below.frame << 2 | below.rights
