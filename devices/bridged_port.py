"""The way to memory of a function behind bridges: each of them may stop a request.

PCI Express Base Specification 7.5.1.1.3 (bus master enable) and 6.12.1 (access control services).
Messages, such as page requests and answers to invalidations, are not stopped by either.
"""

from __future__ import annotations

from devices.dma import (
    MESSAGE,
    AddressType,
    Completion,
    CompletionStatus,
    DmaPort,
    Request,
)
from devices.function import PciFunction
from devices.source_id import SourceId
from devices.topology import Topology


class BridgedPort(DmaPort):
    """``port`` as ``function`` reaches it through the bridges above it.

    ``sent_as`` is the requester id that it puts into its requests, if that is not its own.
    """

    def __init__(
        self,
        port: DmaPort,
        topology: Topology,
        function: PciFunction,
        sent_as: SourceId | None = None,
    ) -> None:
        self.root_port = port
        """Where the requests arrive that the bridges let through."""
        self.source_id = port.source_id
        self._topology = topology
        self._function = function
        self._sent_as = sent_as

    def request(self, request: Request) -> Completion:
        """Send what no bridge stops."""
        if request.access != MESSAGE:
            status = self._refusal(request.address_type)
            if status is not None:
                return Completion(status)
        return self.root_port.request(request)

    def way(self) -> DmaPort:
        """The port at the root as long as the bridges let everything through."""
        stopped = any(self._refusal(kind) is not None for kind in AddressType)
        return self if stopped else self.root_port.way()

    def _refusal(self, kind: AddressType) -> CompletionStatus | None:
        """How the bridges refuse requests of this kind."""
        source_id = self._sent_as
        if source_id is None:
            source_id = self._topology.bdf(self._function).source_id
        return self._topology.refusal(self._function, source_id, kind)
