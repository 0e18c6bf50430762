"""What a context descriptor asks of a packet: checksums put in, data cut into segments.

As the data sheet has it, the checksum field holds the sum of the pseudo header beforehand: with the
length for a single packet, without it for one that is to be segmented.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from devices.models.nic82576.descriptors import ContextDescriptor
from devices.network.frames import CHECKSUM_AT, SCTP, TCP, UDP, crc32c, ones_complement

SMALLEST_MSS = 64
"""Segments of less are not cut: a packet that asks for them is dropped."""
SHORTEST_IPV4 = 20
_PROTOCOLS = (UDP, TCP, SCTP, 0)
_FIN_PSH, _CWR = 0x09, 0x80
_NOWHERE = 1 << 32
_put, _put_long = struct.Struct("!H").pack_into, struct.Struct("!I").pack_into


class Context(NamedTuple):
    """A context descriptor read: where things are in the packets that name it."""

    network: int
    transport: int
    payload: int
    protocol: int
    """UDP, TCP, SCTP, or 0."""
    ipv4: bool
    sum_at: int
    """The checksum of IPv4; far behind every packet if there is none to put in."""
    field: int
    """The checksum of layer 4, likewise."""
    mss: int
    vlan: int


@lru_cache
def read_context(raw: int) -> Context:
    """A context descriptor as it stands in memory; of a flow it is always the same."""
    read = ContextDescriptor(raw)
    network, protocol, ipv4 = read.maclen, _PROTOCOLS[read.l4t], bool(read.ipv4)
    transport = network + read.iplen
    sums = ipv4 and read.iplen >= SHORTEST_IPV4
    return Context(
        network,
        transport,
        transport + read.l4len,
        protocol,
        ipv4,
        network + 10 if sums else _NOWHERE,
        transport + CHECKSUM_AT.get(protocol, _NOWHERE),
        read.mss,
        read.vlan,
    )


def with_checksums(
    frame: bytes, context: Context, *, ip: bool, transport: bool, extra: int = 0
) -> bytes:
    """A packet with the checksums asked for; ``extra`` completes the pseudo header."""
    network, at, _, protocol, _, sum_at, field, _, _ = context
    made, size = bytearray(frame), len(frame)
    if transport and protocol == SCTP:
        if field + 4 <= size:
            plain = frame[at:field] + bytes(4) + frame[field + 4 :]
            made[field : field + 4] = crc32c(plain).to_bytes(4, "little")
    elif transport and field + 2 <= size:
        total = ones_complement(frame, extra, at) ^ 0xFFFF
        _put(made, field, total or (0xFFFF if protocol == UDP else 0))
    if ip and sum_at < at <= size:
        header = frame[network:sum_at] + frame[sum_at + 2 : at]
        _put(made, sum_at, ones_complement(header) ^ 0xFFFF)
    return bytes(made)


def segments(data: bytes, context: Context, *, ip: bool, transport: bool) -> Iterator[bytes]:
    """The packets that a large one becomes; none where the context makes no sense of it."""
    network, at, start, protocol, ipv4, _, _, mss, _ = context
    shortest = {TCP: 20, UDP: 8}.get(protocol, len(data))
    ip_header = SHORTEST_IPV4 if ipv4 else 40
    if mss < SMALLEST_MSS or start - at < shortest or at - network < ip_header:
        return
    if start >= len(data):
        return
    header = bytearray(data[:start])
    size_at, counted = (network + 2, network) if ipv4 else (network + 4, network + 40)
    first_id = int.from_bytes(header[network + 4 : network + 6], "big")
    sequence = int.from_bytes(header[at + 4 : at + 8], "big")
    flags = header[at + 13] if protocol == TCP else 0
    for number, offset in enumerate(range(start, len(data), mss)):
        payload = data[offset : offset + mss]
        size = start + len(payload)
        _put(header, size_at, size - counted & 0xFFFF)
        if ipv4:
            _put(header, network + 4, first_id + number & 0xFFFF)
        if protocol == TCP:
            _put_long(header, at + 4, sequence + offset - start & 0xFFFF_FFFF)
            kept = 0xFF if offset + mss >= len(data) else ~_FIN_PSH
            header[at + 13] = flags & kept & (~_CWR if number else 0xFF)
        else:
            _put(header, at + 4, size - at & 0xFFFF)
        frame = bytes(header) + payload
        yield with_checksums(frame, context, ip=ip, transport=transport, extra=size - at)
