"""The way to memory of a function behind bridges: each of them may stop a request.

PCI Express Base Specification 7.5.1.1.3 (bus master enable) and 6.12.1 (access control services).
Messages, such as page requests and answers to invalidations, are not stopped by either.
"""

from __future__ import annotations

from devices.dma import (
    AddressType,
    AtomicOp,
    AtsPort,
    Completion,
    PageRequest,
    TranslationCompletion,
)
from devices.function import PciFunction
from devices.topology import Topology


class BridgedPort:
    """``port`` as ``function`` reaches it through the bridges above it (implements AtsPort)."""

    def __init__(self, port: AtsPort, topology: Topology, function: PciFunction) -> None:
        self.root_port = port
        """Where the requests arrive that the bridges let through."""
        self._topology = topology
        self._function = function

    def _refused(self, address_type: AddressType = AddressType.UNTRANSLATED) -> Completion | None:
        source_id = self._topology.bdf(self._function).source_id
        status = self._topology.refusal(self._function, source_id, address_type)
        return None if status is None else Completion(status)

    def read(
        self, address: int, length: int, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Read ``length`` bytes."""
        return self._refused() or self.root_port.read(
            address, length, pasid=pasid, privileged=privileged
        )

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        """Write all of ``data``."""
        return self._refused() or self.root_port.write(
            address, data, pasid=pasid, privileged=privileged
        )

    def atomic(
        self,
        op: AtomicOp,
        address: int,
        operands: bytes,
        *,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> Completion:
        """Change memory as ``op`` says; the completion's data is the old value."""
        return self._refused() or self.root_port.atomic(
            op, address, operands, pasid=pasid, privileged=privileged
        )

    def translate(
        self,
        address: int,
        count: int = 1,
        *,
        no_write: bool = False,
        pasid: int | None = None,
        privileged: bool = False,
    ) -> TranslationCompletion:
        """Ask for up to ``count`` translations from ``address`` on; ``no_write`` is the NW bit."""
        refused = self._refused(AddressType.TRANSLATION_REQUEST)
        if refused is not None:
            return TranslationCompletion(refused.status)
        return self.root_port.translate(
            address, count, no_write=no_write, pasid=pasid, privileged=privileged
        )

    def read_translated(self, address: int, length: int, *, pasid: int | None = None) -> Completion:
        """Read at translated addresses."""
        return self._refused(AddressType.TRANSLATED) or self.root_port.read_translated(
            address, length, pasid=pasid
        )

    def write_translated(
        self, address: int, data: bytes, *, pasid: int | None = None
    ) -> Completion:
        """Write at translated addresses."""
        return self._refused(AddressType.TRANSLATED) or self.root_port.write_translated(
            address, data, pasid=pasid
        )

    def page_request(self, request: PageRequest) -> None:
        """Ask software to make a page usable."""
        self.root_port.page_request(request)

    def complete_invalidation(self, itag_vector: int, count: int) -> None:
        """Answer invalidations: bit n of the 32-bit vector is ITag n."""
        self.root_port.complete_invalidation(itag_vector, count)
