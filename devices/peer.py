"""Requests that reach another function instead of memory (PCI Express Base Specification 2.2.4.1).

Left out: atomic operations, which a completer need not support.
"""

from __future__ import annotations

from devices.dma import DONE, READ, REFUSED, WRITE, Completion, CompletionStatus, Request
from devices.function import Bar
from devices.topology import Topology

LARGEST_ACCESS = 8


def transfer(bar: Bar, offset: int, request: Request) -> Completion:
    """Carry out a request in a BAR, in aligned accesses of up to 8 bytes."""
    access, payload = request.plain.access, request.payload
    if access == READ:
        data = b"".join(
            bar.read(at, size).to_bytes(size, "little")
            for at, size in _accesses(offset, request.length)
        )
        return Completion(CompletionStatus.SUCCESS, data)
    if access != WRITE or not isinstance(payload, bytes) or len(payload) != request.length:
        return REFUSED
    for at, size in _accesses(offset, request.length):
        start = at - offset
        bar.write(at, size, int.from_bytes(payload[start : start + size], "little"))
    return DONE


def _accesses(offset: int, length: int) -> list[tuple[int, int]]:
    """Offset and size of the accesses that a transfer is made of."""
    found, end = [], offset + length
    while offset < end:
        size = min(offset & -offset or LARGEST_ACCESS, LARGEST_ACCESS)
        while offset + size > end:
            size //= 2
        found.append((offset, size))
        offset += size
    return found


class PeerSpace:
    """The BARs of a segment as a root complex that forwards to them sees them (VT-d 3.17)."""

    def __init__(self, topology: Topology, segment: int) -> None:
        self._topology = topology
        self._segment = segment

    def carry_out(self, request: Request, address: int) -> Completion:
        """A request to a host physical address; unsupported where no BAR claims it."""
        claimed = self._topology.bar_at(address, self._segment)
        if claimed is None:
            return REFUSED
        _, bar, offset = claimed
        return transfer(bar, offset, request)
