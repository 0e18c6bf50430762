"""What software has invalidated since it last waited, and what it has waited for.

VT-d 6.5.2.9 and 6.5.2.12.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from pagetables.bits import BitRecord
from vtd.auditing.copies import Copy
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.unit.observer import CacheName

EVERYTHING = "*"
STAGES = {
    CacheName.CONTEXT: 0,
    CacheName.PASID: 1,
    CacheName.IOTLB: 2,
    CacheName.FIRST_STAGE: 2,
    CacheName.SECOND_STAGE: 2,
    CacheName.DEVICE_TLB: 3,
    CacheName.HOST_PERMISSION: 4,
    CacheName.HOST_PERMISSION_TABLE: 4,
    CacheName.INTERRUPT: 0,
}
"""In which order the caches are invalidated (6.5.2.12)."""
Tag = tuple[str, int] | str
"""What waiting is for: a domain, a source-id, interrupts, or everything."""


def tells(command: BitRecord) -> TypeGuard[InvalidationWaitDescriptor]:
    """Whether this is a wait descriptor of whose completion software learns (6.5.2.9)."""
    return isinstance(command, InvalidationWaitDescriptor) and bool(command.sw or command.if_)


class Waits:
    """Invalidations by what they concern and the stage of their cache."""

    def __init__(self) -> None:
        self._recent: dict[Tag, int] = {}
        """The latest stage of the invalidations since the last wait, by what they concern."""
        self._closed: dict[tuple[Tag, int], int] = {}
        """When software last waited for invalidations, by what they concern and stage."""

    def invalidated(self, descriptor: BitRecord) -> None:
        """Nobody has waited for this one yet."""
        for tag, stage in _concerns(descriptor):
            self._recent[tag] = max(stage, self._recent.get(tag, 0))

    def waited(self, now: int) -> None:
        """A wait descriptor is complete: what was invalidated before is closed."""
        for tag, latest in self._recent.items():
            for stage in range(latest + 1):
                self._closed[tag, stage] = now
        self._recent.clear()

    def may_pay(self, copy: Copy) -> bool:
        """Whether an invalidation since the last wait is of the stage of a copy, or a later one."""
        stage = STAGES[copy.cache]
        return any(self._recent.get(tag, -1) >= stage for tag in _tags(copy))

    def closed_since(self, copy: Copy, changed: int | None) -> bool:
        """Whether software waited, after a change, for invalidations that should have paid."""
        if changed is None:
            return False
        stage = STAGES[copy.cache]
        return any(self._closed.get((tag, stage), -1) > changed for tag in _tags(copy))


def _tags(copy: Copy) -> Iterator[Tag]:
    """What invalidations of a copy concern."""
    if copy.cache is CacheName.INTERRUPT:
        yield "interrupts"
        return
    yield EVERYTHING
    if copy.source_id is not None:
        yield "source", copy.source_id
    if STAGES[copy.cache] == STAGES[CacheName.HOST_PERMISSION]:
        yield "HPT domain", copy.domain_id or 0
    elif copy.domain_id is not None and copy.cache is not CacheName.DEVICE_TLB:
        yield "domain", copy.domain_id


def _concerns(descriptor: BitRecord) -> Iterator[tuple[Tag, int]]:
    """What an invalidation concerns, and the stage of its cache."""
    match descriptor:
        case ContextCacheInvalidateDescriptor():
            if descriptor.g == 1:
                yield EVERYTHING, 0
            elif descriptor.g == 3:
                yield ("source", descriptor.sid), 0
            yield ("domain", descriptor.did), 0
        case PasidCacheInvalidateDescriptor():
            yield (EVERYTHING if descriptor.g == 3 else ("domain", descriptor.did)), 1
        case IotlbInvalidateDescriptor():
            yield (EVERYTHING if descriptor.g == 1 else ("domain", descriptor.did)), 2
        case PasidIotlbInvalidateDescriptor():
            yield ("domain", descriptor.did), 2
        case DeviceTlbInvalidateDescriptor() | PasidDeviceTlbInvalidateDescriptor():
            yield ("source", descriptor.sid), 3
        case HostPermissionInvalidateDescriptor():
            everything = descriptor.g == HostPermissionGranularity.GLOBAL
            yield (EVERYTHING if everything else ("HPT domain", descriptor.hptdid)), 4
        case InterruptEntryCacheInvalidateDescriptor():
            yield "interrupts", 0
