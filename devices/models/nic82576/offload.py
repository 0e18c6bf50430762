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
SHORTEST_IPV4 = 20
_PROTOCOLS = (UDP, TCP, SCTP, 0)
_FIN_PSH, _CWR = 0x09, 0x80


def with_checksums(
    frame: bytes, context: ContextDescriptor, *, ip: bool, transport: bool, extra: int = 0
) -> bytes:
    """A packet with the checksums asked for; ``extra`` completes the pseudo header."""
    network, protocol = context.maclen, _PROTOCOLS[context.l4t]
    at, made = network + context.iplen, bytearray(frame)
    field = at + CHECKSUM_AT.get(protocol, len(frame))
    end = field + (4 if protocol == SCTP else 2)
    if transport and end <= len(frame):
        if protocol == SCTP:
            made[field:end] = crc32c(frame[at:field] + bytes(4) + frame[end:]).to_bytes(4, "little")
        else:
            total = ones_complement(frame[at:], extra) ^ 0xFFFF
            made[field:end] = (total or (0xFFFF if protocol == UDP else 0)).to_bytes(2, "big")
    if ip and context.ipv4 and context.iplen >= SHORTEST_IPV4 and at <= len(frame):
        header = frame[network : network + 10] + frame[network + 12 : at]
        made[network + 10 : network + 12] = (ones_complement(header) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(made)


def segments(
    data: bytes, context: ContextDescriptor, *, ip: bool, transport: bool
) -> Iterator[bytes]:
    """The packets that a large one becomes; none where the context makes no sense of it."""
    network, protocol = context.maclen, _PROTOCOLS[context.l4t]
    at = network + context.iplen
    start = at + context.l4len
    shortest = {TCP: 20, UDP: 8}.get(protocol, len(data))
    ip_header = SHORTEST_IPV4 if context.ipv4 else 40
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
        extra = len(frame) - at
        yield with_checksums(bytes(frame), context, ip=ip, transport=transport, extra=extra)
