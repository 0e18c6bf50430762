"""A receive queue: frames into the buffers of its descriptors, and the descriptors written back.

Writes are posted: the controller learns nothing of one that was refused, the packet is lost and its
descriptor done. If a descriptor can't be fetched, the queue stands still and the packet is dropped;
the next one tries again.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from devices.dma import DmaPort
from devices.models.nic82576.descriptors import LegacyReceived, Received
from devices.models.nic82576.registers import (
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
    SRRCTL_HEADER_SIZE,
    SRRCTL_PACKET_SIZE,
    SRRCTL_TYPE,
)
from devices.network.frames import TCP, UDP, Headers, payload_offset

_DD, _EOP = Received.dd.mask >> 64, Received.eop.mask >> 64
_STATUS, _LENGTH = Received.dd.low, Received.length.low
_HEADER_LENGTH, _SPLIT = Received.header_length.low, Received.sph.mask
_LEGACY_LENGTH, _LEGACY_STATUS = LegacyReceived.length.low, LegacyReceived.dd.low
_LEGACY_VLAN, _VLAN = LegacyReceived.vlan.low, Received.vlan.low
_LEGACY, _SPLIT_IF_KNOWN, _SPLIT_ALWAYS = 0, 2, 5
_SPLIT_TCP, _SPLIT_UDP, _SPLIT_IPV4, _SPLIT_IPV6 = 1 << 4, 1 << 5, 1 << 8, 1 << 9
_PAIR = struct.Struct("<QQ")


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

    def __init__(self, number: int, values: dict[int, int]) -> None:
        self._values = values
        self._base, self._base_high = RDBAL.at(number), RDBAH.at(number)
        self._length, self._head, self._tail = RDLEN.at(number), RDH.at(number), RDT.at(number)
        self._control, self._split = RXDCTL.at(number), SRRCTL.at(number)
        self._dropped = RQDPC.at(number)
        self._split_types = PSRTYPE.at(number & 7)

    def deliver(self, packet: Packet, dma: DmaPort) -> bool:
        """Put a packet into memory; False, and counted, if it can't be."""
        values = self._values
        if not values[self._control] & QUEUE_ENABLE:
            return self._drop()
        head, tail, size = values[self._head], values[self._tail], values[self._length] >> 4
        if head >= size or tail >= size:
            return self._drop()
        base = values[self._base] | values[self._base_high] << 32
        split = values[self._split]
        kind = split >> SRRCTL_TYPE & 7
        room = (split & SRRCTL_PACKET_SIZE) << 10 or 2048 >> (values[RCTL] >> RCTL_BUFFER_SIZE & 3)
        data = packet.data
        low, header = packet.low, 0
        if kind in {_SPLIT_IF_KNOWN, _SPLIT_ALWAYS}:
            header, low = self._header(packet, kind, (split >> SRRCTL_HEADER_SIZE & 0x3F) << 6)
        offset, end = header, len(data)
        taken = []
        while True:
            if head == tail:
                return self._drop()
            fetched = dma.read(base + 16 * head, 16)
            if not fetched.ok:
                return self._drop()
            address, second = _PAIR.unpack(fetched.data)
            head = head + 1 if head + 1 < size else 0
            step = min(room, end - offset) if address else 0
            taken.append((address, second, offset, step))
            offset += step
            if offset == end and address:
                break
        slot = values[self._head]
        values[self._head] = head
        last = len(taken) - 1
        for number, (address, second, start, step) in enumerate(taken):
            if header and not number:
                dma.write(second & ~1, data[:header])
            if step:
                dma.write(address, data[start : start + step])
            if kind == _LEGACY:
                done = self._legacy(packet, address, step, number == last)
            else:
                done = low | step << _LENGTH
                done |= (
                    _DD << _STATUS
                    if number != last
                    else ((packet.status | _DD | _EOP) << _STATUS | packet.vlan << _VLAN)
                )
                low = packet.low
            dma.write(base + 16 * slot, done.to_bytes(16, "little"))
            slot = slot + 1 if slot + 1 < size else 0
        return True

    def _drop(self) -> bool:
        self._values[self._dropped] += 1
        self._values[RNBC] += 1
        return False

    def _header(self, packet: Packet, kind: int, room: int) -> tuple[int, int]:
        """Bytes for the header buffer of the first descriptor, and the lower half that says so."""
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
    def _legacy(packet: Packet, address: int, length: int, last: bool) -> int:
        status, errors = packet.status & 0xFF | _DD, packet.status >> 24 & 0xFF
        if not last:
            status, errors = _DD, 0
        return (
            address
            | length << _LEGACY_LENGTH
            | (status | (_EOP if last else 0) | errors << 8) << _LEGACY_STATUS
            | (packet.vlan if last else 0) << _LEGACY_VLAN
        )
