"""The way to memory of a function behind bridges: each may stop a request or turn it round.

PCI Express Base Specification 7.5.1.1.3 (bus master enable) and 6.12.1 (access control services).
Messages, such as page requests and answers to invalidations, are not stopped by either. A request
is routed by its first address.
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
from devices.peer import transfer
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
        """Send what no bridge stops, to where it leads."""
        if request.access != MESSAGE:
            met = self._topology.met_above(
                self._function, self._sender, request.address_type, request.address
            )
            if isinstance(met, CompletionStatus):
                return Completion(met)
            if met is not None:
                bar, offset = met
                return transfer(bar, offset, request)
        return self.root_port.request(request)

    def way(self) -> DmaPort:
        """The port at the root as long as the bridges let everything through."""
        topology, function = self._topology, self._function
        stopped = any(topology.refusal(function, self._sender, kind) for kind in AddressType)
        return self if stopped or topology.is_switched(function) else self.root_port.way()

    @property
    def _sender(self) -> SourceId:
        """The requester id in the requests of the function."""
        own = self._sent_as
        return self._topology.bdf(self._function).source_id if own is None else own
