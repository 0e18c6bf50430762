"""What a context descriptor asks of a packet: checksums put in, data cut into segments.

As the data sheet has it, the checksum field holds the sum of the pseudo header beforehand: with the
length for a single packet, without it for one that is to be segmented.
"""

from __future__ import annotations

from collections.abc import Iterator

from devices.models.nic82576.descriptors import ContextDescriptor
from devices.network.frames import CHECKSUM_AT, SCTP, TCP, UDP, crc32c, ones_complement

SMALLEST_MSS = 64
"""Segments of less are not cut: a packet that asks for them is dropped."""
_PROTOCOLS = (UDP, TCP, SCTP, 0)
_FIN_PSH, _CWR = 0x09, 0x80


def insert_ip_checksum(frame: bytearray, at: int, length: int) -> None:
    """The checksum of the IPv4 header of ``length`` bytes at ``at``; nothing if it isn't there."""
    if 20 <= length <= len(frame) - at:
        frame[at + 10 : at + 12] = b"\0\0"
        total = ones_complement(bytes(frame[at : at + length]))
        frame[at + 10 : at + 12] = (total ^ 0xFFFF).to_bytes(2, "big")


def insert_transport_checksum(frame: bytearray, at: int, protocol: int, extra: int = 0) -> None:
    """The checksum of layer 4 from ``at`` to the end; ``extra`` completes the pseudo header."""
    field = at + CHECKSUM_AT.get(protocol, len(frame))
    if protocol == SCTP:
        if field + 4 <= len(frame):
            frame[field : field + 4] = bytes(4)
            frame[field : field + 4] = crc32c(bytes(frame[at:])).to_bytes(4, "little")
        return
    if field + 2 <= len(frame):
        total = ones_complement(bytes(frame[at:]), extra) ^ 0xFFFF
        if protocol == UDP and not total:
            total = 0xFFFF
        frame[field : field + 2] = total.to_bytes(2, "big")


def with_checksums(data: bytes, context: ContextDescriptor, *, ip: bool, transport: bool) -> bytes:
    """A packet with the checksums asked for."""
    frame = bytearray(data)
    if transport:
        insert_transport_checksum(frame, context.maclen + context.iplen, _PROTOCOLS[context.l4t])
    if ip and context.ipv4:
        insert_ip_checksum(frame, context.maclen, context.iplen)
    return bytes(frame)


def segments(
    data: bytes, context: ContextDescriptor, *, ip: bool, transport: bool
) -> Iterator[bytes]:
    """The packets that a large one becomes; none where the context makes no sense of it."""
    network, protocol = context.maclen, _PROTOCOLS[context.l4t]
    at = network + context.iplen
    start = at + context.l4len
    shortest = {TCP: 20, UDP: 8}.get(protocol, len(data))
    ip_header = 20 if context.ipv4 else 40
    if context.mss < SMALLEST_MSS or context.l4len < shortest or context.iplen < ip_header:
        return
    if start >= len(data):
        return
    header = data[:start]
    first_id = int.from_bytes(header[network + 4 : network + 6], "big")
    sequence = int.from_bytes(header[at + 4 : at + 8], "big")
    for number, offset in enumerate(range(start, len(data), context.mss)):
        payload = data[offset : offset + context.mss]
        last = offset + context.mss >= len(data)
        frame = bytearray(header + payload)
        if context.ipv4:
            frame[network + 2 : network + 4] = (len(frame) - network & 0xFFFF).to_bytes(2, "big")
            frame[network + 4 : network + 6] = (first_id + number & 0xFFFF).to_bytes(2, "big")
        else:
            frame[network + 4 : network + 6] = (len(frame) - network - 40 & 0xFFFF).to_bytes(
                2, "big"
            )
        if protocol == TCP:
            frame[at + 4 : at + 8] = (sequence + offset - start & 0xFFFF_FFFF).to_bytes(4, "big")
            if not last:
                frame[at + 13] &= ~_FIN_PSH & 0xFF
            if number:
                frame[at + 13] &= ~_CWR & 0xFF
        else:
            frame[at + 4 : at + 6] = (len(frame) - at & 0xFFFF).to_bytes(2, "big")
        if transport:
            insert_transport_checksum(frame, at, protocol, len(frame) - at)
        if ip and context.ipv4:
            insert_ip_checksum(frame, network, context.iplen)
        yield bytes(frame)
