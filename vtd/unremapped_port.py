"""The way to memory of a function that no remapping unit covers (VT-d 8.3): past all of them."""

from __future__ import annotations

from devices.dma import REFUSED, WRITE, Completion, CompletionStatus, DirectPort, Request
from vtd.unit.interrupts.outcome import compatibility_interrupt
from vtd.unit.translation.translate import INTERRUPT_MEGABYTE


class UnremappedPort(DirectPort):
    """Addresses are physical, and any interrupt in compatibility format gets through (5.1.2.1)."""

    def request(self, request: Request) -> Completion:
        """As without remapping; a write of 4 bytes to FEEx_xxxxh is an interrupt."""
        if request.address >> 20 != INTERRUPT_MEGABYTE:
            return super().request(request)
        data = request.payload
        sent = request.access, request.length, request.address & 3, request.address_type
        if sent != (WRITE, 4, 0, 0) or not isinstance(data, bytes) or len(data) != 4:
            return REFUSED
        interrupt = compatibility_interrupt(request.address, int.from_bytes(data, "little"))
        return Completion(CompletionStatus.SUCCESS, interrupt=interrupt)
