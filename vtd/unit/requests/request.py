"""A request on its way to a remapping unit (VT-d 3.1, 4.2.1)."""

from __future__ import annotations

from typing import NamedTuple

from devices.dma import READ, WRITE, AddressType
from vtd.layouts.registers import RequestType

ATOMIC = READ | WRITE
PAGE_REQUEST = 0
"""The access of a page request message: none."""

INTERRUPT_RANGE = range(0xFEE0_0000, 0xFEF0_0000)
"""The interrupt address range FEEx_xxxxh (3.15)."""


def meets_interrupts(physical: int, shift: int) -> bool:
    """Whether the page of ``2**shift`` bytes around an address has any of the interrupt range."""
    start = physical >> shift << shift
    return start < INTERRUPT_RANGE.stop and INTERRUPT_RANGE.start < start + (1 << shift)


RequestKind = tuple[int, int | None, bool]
"""Source-id, PASID or None, privileged mode."""


class Request(NamedTuple):
    """One request for one page; ``address`` to ``address + length`` stays within 4 KiB."""

    source_id: int
    address: int
    access: int
    """READ, WRITE, ATOMIC or PAGE_REQUEST."""
    length: int = 1
    """Bytes; 0 is the zero-length read."""
    pasid: int | None = None
    privileged: bool = False
    """Privileged mode requested; only with a PASID."""
    address_type: AddressType = AddressType.UNTRANSLATED

    @property
    def kind(self) -> RequestKind:
        """What the IOTLB finds its translations by."""
        return self.source_id, self.pasid, self.privileged

    @property
    def zero_length_read(self) -> bool:
        return self.length == 0 and self.access == READ

    @property
    def type(self) -> RequestType:
        """How a fault record names the kind of request."""
        return _TYPES[self.access]


_TYPES = {
    READ: RequestType.READ,
    WRITE: RequestType.WRITE,
    ATOMIC: RequestType.ATOMIC_OP,
    PAGE_REQUEST: RequestType.PAGE_REQUEST,
}
