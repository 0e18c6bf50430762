"""A receive queue: frames into the buffers of its descriptors, and the descriptors written back.

Writes are posted: the controller learns nothing of one that was refused, the packet is lost and its
descriptor done. If a descriptor can't be fetched, the queue stands still and the packet is dropped;
the next one tries again.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from devices.dma import REFUSED, CompletionStatus, DmaPort
from devices.models.nic82576.descriptors import LegacyReceived, Received
from devices.models.nic82576.registers import (
    MPC,
    PSRTYPE,
    QUEUE_ENABLE,
    RCTL,
    RCTL_BUFFER_SIZE,
    RDBAH,
    RDBAL,
    RDH,
    RDLEN,
    RDT,
    RNBC,
    RQDPC,
    RXDCTL,
    SRRCTL,
    SRRCTL_DROP,
    SRRCTL_HEADER_SIZE,
    SRRCTL_PACKET_SIZE,
    SRRCTL_TYPE,
)
from devices.network.frames import TCP, UDP, Headers, payload_offset

_DD, _EOP = Received.dd.mask >> 64, Received.eop.mask >> 64
_DONE = _DD | _EOP
_LENGTH, _VLAN = Received.length.low - 64, Received.vlan.low - 64
_HEADER_LENGTH, _SPLIT = Received.header_length.low, Received.sph.mask
_LEGACY_LENGTH, _LEGACY_STATUS = LegacyReceived.length.low - 64, LegacyReceived.dd.low - 64
_LEGACY_VLAN = LegacyReceived.vlan.low - 64
_LEGACY, _ONE_BUFFER, _SPLIT_IF_KNOWN, _SPLIT_ALWAYS = 0, 1, 2, 5
_SUCCESS = CompletionStatus.SUCCESS
_SPLIT_TCP, _SPLIT_UDP, _SPLIT_IPV4, _SPLIT_IPV6 = 1 << 4, 1 << 5, 1 << 8, 1 << 9
_PAIR, _FIRST = struct.Struct("<QQ"), struct.Struct("<Q8x")


class Packet(NamedTuple):
    """A frame as it goes to a queue, and what the write-back says about it."""

    data: bytes
    headers: Headers
    status: int
    """Status and errors, as in an advanced descriptor."""
    vlan: int
    """The tag that was taken out."""
    low: int
    """Packet and RSS type, and the hash: the lower 64 bits."""


class ReceiveQueue:
    """One of the 16."""

    def __init__(self, number: int, values: list[int]) -> None:
        self._values = values
        self._base, self._base_high = RDBAL + number, RDBAH + number
        self._length, self._head, self._tail = RDLEN + number, RDH + number, RDT + number
        self._control, self._split = RXDCTL + number, SRRCTL + number
        self._dropped = RQDPC + number
        self._split_types = PSRTYPE + (number & 7)

    def deliver(self, packet: Packet, dma: DmaPort) -> bool:
        """Put a packet into memory; False, and counted, if it can't be."""
        values = self._values
        head, tail, size = values[self._head], values[self._tail], values[self._length] >> 4
        split = values[self._split]
        if values[self._control] & QUEUE_ENABLE and head != tail and head < size and tail < size:
            kind = split >> SRRCTL_TYPE & 7
            room = (split & SRRCTL_PACKET_SIZE) << 10
            room = room or 2048 >> (values[RCTL] >> RCTL_BUFFER_SIZE & 3)
            if kind == _ONE_BUFFER and len(packet[0]) <= room:
                filled = self._fill_one(packet, dma, head, size)
            else:
                filled = self._fill(packet, dma, kind, room)
            if filled:
                return True
        if split & SRRCTL_DROP:
            values[self._dropped] += 1
        else:
            values[RNBC] += 1
            values[MPC] += 1
        return False

    def _fill_one(self, packet: Packet, dma: DmaPort, head: int, size: int) -> bool:
        """The usual case, without the bookkeeping of several buffers."""
        values = self._values
        at = (values[self._base] | values[self._base_high] << 32) + 16 * head
        fetched, descriptor, _, _ = dma.read(at, 16)
        if fetched is not _SUCCESS:
            return False
        head += 1
        values[self._head] = head if head < size else 0
        (address,) = _FIRST.unpack(descriptor)
        data, _, status, vlan, low = packet
        if address:
            dma.write(address, data)
        high = status | _DONE | len(data) << _LENGTH | vlan << _VLAN
        dma.write(at, _PAIR.pack(low, high))
        return True

    def _fill(self, packet: Packet, dma: DmaPort, kind: int, room: int) -> bool:
        """As many buffers of ``room`` bytes as it takes; all are fetched before one is used."""
        values = self._values
        head, size = values[self._head], values[self._length] >> 4
        base = values[self._base] | values[self._base_high] << 32
        data, _, status, vlan, low = packet
        header = 0
        if kind in {_SPLIT_IF_KNOWN, _SPLIT_ALWAYS}:
            header, low = self._header(packet, kind)
        offset, end = header, len(data)
        taken: list[tuple[int, int, int, int]] = []
        while offset < end or not taken:
            fetched = dma.read(base + 16 * head, 16) if head != values[self._tail] else REFUSED
            if fetched.status is not _SUCCESS:
                return False
            head = head + 1 if head + 1 < size else 0
            step = min(room, end - offset)
            taken.append((*_PAIR.unpack(fetched.data), offset, step))
            offset += step
        slot, values[self._head] = values[self._head], head
        last = len(taken) - 1
        for number, (address, second, start, step) in enumerate(taken):
            if header and not number:
                dma.write(second & ~1, data[:header])
            if step and address:  # what would go to a buffer at address 0 goes nowhere
                dma.write(address, data[start : start + step])
            high = _DD | step << _LENGTH
            if kind == _LEGACY:
                low, high = address, self._legacy(packet, step, number == last)
            elif number == last:
                high |= status | _EOP | vlan << _VLAN
            dma.write(base + 16 * slot, _PAIR.pack(low, high))
            low = packet.low
            slot = slot + 1 if slot + 1 < size else 0
        return True

    def _header(self, packet: Packet, kind: int) -> tuple[int, int]:
        """Bytes for the header buffer of the first descriptor, and the lower half that says so."""
        room = (self._values[self._split] >> SRRCTL_HEADER_SIZE & 0x3F) << 6
        headers, types = packet.headers, self._values[self._split_types]
        length = 0
        if (headers.protocol == TCP and types & _SPLIT_TCP) or (
            headers.protocol == UDP and types & _SPLIT_UDP
        ):
            length = payload_offset(packet.data, headers)
        elif (headers.version == 4 and types & _SPLIT_IPV4) or (
            headers.version == 6 and types & _SPLIT_IPV6
        ):
            length = headers.transport
        if length and length <= room:
            return length, packet.low | length << _HEADER_LENGTH | _SPLIT
        if kind == _SPLIT_ALWAYS:
            length = min(len(packet.data), room)
            return length, packet.low | length << _HEADER_LENGTH
        return 0, packet.low

    @staticmethod
    def _legacy(packet: Packet, length: int, last: bool) -> int:
        """The upper half of a legacy descriptor written back."""
        high = length << _LEGACY_LENGTH | _DD << _LEGACY_STATUS
        if last:
            status, errors = packet.status & 0xFF | _EOP, packet.status >> 24 & 0xFF
            high |= (status | errors << 8) << _LEGACY_STATUS | packet.vlan << _LEGACY_VLAN
        return high
