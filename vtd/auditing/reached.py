"""Which fault reasons and descriptors the units of a test run met."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

from devices.dma import Request
from pagetables.bits import BitRecord
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    ContextCacheInvalidateDescriptor,
    DescriptorType,
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    IotlbInvalidateDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.registers import ContextGranularity, IotlbGranularity
from vtd.unit.observer import Observer
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

GRANULARITIES: dict[type[BitRecord], type[IntEnum]] = {
    ContextCacheInvalidateDescriptor: ContextGranularity,
    IotlbInvalidateDescriptor: IotlbGranularity,
    PasidCacheInvalidateDescriptor: PasidCacheGranularity,
    PasidIotlbInvalidateDescriptor: PasidIotlbGranularity,
    HostPermissionInvalidateDescriptor: HostPermissionGranularity,
    InterruptEntryCacheInvalidateDescriptor: InterruptGranularity,
}
"""What G means in descriptors that have it."""
FAULT_REASONS = tuple(f"{int(each):02X}h {each.text}" for each in FaultReason)


def _name(kind: DescriptorType, granularity: object = None) -> str:
    name = f"{kind.name.lower()}"
    return name if granularity is None else f"{name} {getattr(granularity, 'name', granularity)}"


DESCRIPTOR_KINDS = tuple(
    _name(kind, each)
    for kind, record in DESCRIPTORS.items()
    for each in GRANULARITIES.get(record, (None,))
    if not getattr(each, "name", "").startswith("RESERVED")
)


class Reaching(Observer):
    """Counts into ``faults`` and ``descriptors`` what ``unit`` meets from now on."""

    def __init__(
        self, unit: RemappingUnit, faults: Counter[str], descriptors: Counter[str]
    ) -> None:
        self._faults = faults
        self._descriptors = descriptors
        unit.observe(self)

    def fault(self, request: Request, reason: FaultReason) -> None:
        """A request or interrupt was blocked."""
        self._faults[f"{int(reason):02X}h {reason.text}"] += 1

    def invalidated(self, command: BitRecord) -> None:
        """A descriptor was carried out; commands of registers are not counted."""
        kind = next((kind for kind, record in DESCRIPTORS.items() if type(command) is record), None)
        if kind is None:
            return
        granularity = GRANULARITIES.get(type(command))
        g = None if granularity is None else granularity(command.fields()["g"])
        self._descriptors[_name(kind, g)] += 1
