"""The core of an integrated device with a device-TLB: what it may send by itself (VT-d 4.4).

Host physical addresses stay inside the boundary, with the device-TLB: that alone sends translated
requests and ATS messages. Left out: data caches inside it, and the system fabric (CXL.cache), whose
accesses no remapping unit sees.
"""

from __future__ import annotations

from devices.dma import MESSAGE, REFUSED, Completion, DmaPort, Request


class IsolationBoundary(DmaPort):
    """``port`` as the core of the device reaches it: untranslated requests only."""

    def __init__(self, port: DmaPort) -> None:
        self.source_id = port.source_id
        self._port = port

    def request(self, request: Request) -> Completion:
        """Pass on what needs a translation still."""
        if request.access == MESSAGE or request.address_type:
            return REFUSED
        return self._port.request(request)
