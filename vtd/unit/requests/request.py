"""Requests as a remapping unit sees them (VT-d 3.1, 3.15, 4.2.1)."""

from __future__ import annotations

from devices.dma import Request
from devices.interrupt_messages import INTERRUPT_RANGE

RequestKind = tuple[int, int | None, bool]
"""What the IOTLB finds translations by: source-id, PASID or None, privileged mode."""


def kind_of(request: Request) -> RequestKind:
    """The kind of request that this is one of."""
    return request.source_id, request.pasid, request.privileged


def meets_interrupts(physical: int, shift: int) -> bool:
    """Whether the page of ``2**shift`` bytes around an address has any of the interrupt range."""
    start = physical >> shift << shift
    return start < INTERRUPT_RANGE.stop and INTERRUPT_RANGE.start < start + (1 << shift)
