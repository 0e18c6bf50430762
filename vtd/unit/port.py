"""A requester's way to memory through a remapping unit.

VT-d 3.13: transfers are cut at 4 KiB boundaries of the input address, and each part is translated,
carried out or refused for itself.
"""

from __future__ import annotations

from typing import Any

from devices.dma import (
    ATOMIC,
    DONE,
    MESSAGE,
    READ,
    SUCCESS,
    WRITE,
    AddressType,
    Completion,
    CompletionStatus,
    DmaPort,
    Request,
    move,
    part_of,
    split_pages,
)
from devices.peer import PeerSpace
from pagetables.memory import CUTTERS, BusError, PhysicalMemory
from vtd.unit.caching.iotlb import NOTHING
from vtd.unit.unit import RemappingUnit

UNSUPPORTED = Completion(CompletionStatus.UNSUPPORTED_REQUEST)


class UnitPort(DmaPort):
    """The port of one source-id behind ``unit``; data moves in ``memory``.

    ``peers``: where the root complex sends what is not for memory; nowhere without (3.17).
    """

    def __init__(
        self,
        unit: RemappingUnit,
        memory: PhysicalMemory,
        source_id: int,
        peers: PeerSpace | None = None,
    ) -> None:
        self.source_id = source_id
        self._peers = peers
        self._unit = unit
        self._memory = memory
        self._frames = memory.frames
        self._iotlb = unit.caches.iotlb
        self._counters = self._iotlb.counters
        self._space = self._iotlb.space((source_id, None, False))

    def __reduce__(self) -> tuple[Any, ...]:
        return UnitPort, (self._unit, self._memory, self.source_id, self._peers)

    def request(self, request: Request) -> Completion:
        """Carry out a request under this port's source-id.

        The first part of a read that is refused decides; of a write all parts are tried.
        """
        source_id, address, access, length, pasid, privileged, address_type, payload = request
        number, offset = address >> 12, address & 0xFFF
        if not 0 <= length <= 0x1000 - offset and not _whole(request):
            return self._in_parts(request)
        space = self._space
        if pasid is not None:
            space = self._iotlb.space((self.source_id, pasid, privileged))
        line = space.small.get(number) or (space.line(number) if space.larger else NOTHING)
        grants, frame, within, touch, _ = line
        if access not in grants or address_type or not self._unit.hits_are_final:
            if source_id != self.source_id:
                request = request._replace(source_id=self.source_id)
            admitted = self._unit.admit(request, line, space)
            if not isinstance(admitted, int):
                return admitted
            frame = admitted >> 12
        else:
            self._counters.hits += 1
            if touch is not None:
                touch()
            frame |= number & within
        try:
            if access == READ:
                (data,) = CUTTERS[length](self._frames[frame], offset)
                return _new(Completion, (SUCCESS, data, (), None))
            if access == WRITE and isinstance(payload, bytes) and len(payload) == length:
                self._memory.write(frame << 12 | offset, payload)
                return DONE
        except BusError:
            return self._peer(request, frame << 12 | offset)
        done = move(self._memory, request, frame << 12 | offset)
        return done if done.ok else self._peer(request, frame << 12 | offset)

    def _peer(self, request: Request, address: int) -> Completion:
        """Send what memory has not taken to a peer, by its address after translation (3.17)."""
        return UNSUPPORTED if self._peers is None else self._peers.carry_out(request, address)

    def _in_parts(self, request: Request) -> Completion:
        if not (request.well_formed and _carries_its_length(request)):
            return UNSUPPORTED
        outcome, data = DONE, bytearray()
        for start, size in split_pages(request.address, request.length):
            part = self.request(part_of(request, start, size))
            if part.ok:
                data += part.data
            elif request.access & ATOMIC == READ:
                return part
            elif outcome.ok:
                outcome = part
        return outcome._replace(data=bytes(data)) if outcome.ok else outcome


def _whole(request: Request) -> bool:
    """Whether a request is none that is cut: no transfer, or an atomic, which is aligned."""
    kind = request.address_type
    return request.access in (MESSAGE, ATOMIC) or kind is AddressType.TRANSLATION_REQUEST


def _carries_its_length(request: Request) -> bool:
    """Whether a write has as many bytes as it says; each of its parts may have."""
    payload = request.payload
    writes = request.access & ATOMIC == WRITE
    return not writes or (isinstance(payload, bytes) and len(payload) == request.length)


_new = tuple.__new__  # a named tuple's own constructor costs twice as much
