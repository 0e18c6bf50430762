"""Device-TLB invalidations that count against the wrong function (VT-d 6.5.2.5, 6.5.2.6)."""

from __future__ import annotations

from devices.source_id import SourceId
from pagetables.bits import BitRecord
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.unit.unit import RemappingUnit


def names_no_function(unit: RemappingUnit, descriptor: BitRecord) -> str | None:
    """What is wrong with PFSID where the unit throttles by it (ECAP_REG.DIT)."""
    if not isinstance(
        descriptor, DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor
    ):
        return None
    throttles = "dit" in unit.capabilities.features
    if not throttles or not descriptor.sid or descriptor.pfsid:
        return None
    return f"device-TLB invalidation of {SourceId(descriptor.sid)}: PFSID is 0"
