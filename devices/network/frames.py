"""Where the headers of an Ethernet frame are, and the checksums in them.

IEEE 802.3 and 802.1Q, RFC 791, 8200, 768, 9293 and 9260. A frame is its bytes without preamble and
frame check sequence. No frame makes anything here raise: what is cut short or contradicts itself is
simply not found.
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import cache, lru_cache
from typing import NamedTuple

ETHERNET_HEADER = 14
VLAN_TAG = 4
FCS = 4
SHORTEST = 60
"""The shortest frame, without FCS; hardware pads up to it."""
BROADCAST = b"\xff" * 6

TCP, UDP, SCTP = 6, 17, 132
CHECKSUM_AT = {TCP: 16, UDP: 6, SCTP: 8}
"""Where a header of layer 4 has its checksum."""
_SHORTEST_HEADER = {TCP: 20, UDP: 8, SCTP: 12}
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60


_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE | re.ASCII)


def station_address(text: str) -> bytes:
    """The address written ``02:00:82:57:60:00``; ValueError if no station can have it."""
    address = bytes.fromhex(text.replace(":", "")) if _ADDRESS.fullmatch(text) else bytes(6)
    if address[0] & 1 or not any(address):
        raise ValueError(f"mac: {text!r} is not the address of one station")
    return address


class Headers(NamedTuple):
    """Offsets of headers in a frame; 0 is one that there is none of, or that makes no sense."""

    network: int = 0
    """Offset of the IP header."""
    version: int = 0
    """4, 6, or 0 for what is not IP."""
    protocol: int = 0
    """TCP, UDP or SCTP; 0 for all others, and for fragments."""
    transport: int = 0
    """Offset of that header; of what follows the IP header for others."""
    end: int = 0
    """Where the IP packet ends; padding may follow."""
    extended: bool = False
    """IPv4 with options, IPv6 with extension headers."""


_NOT_IP = Headers()
_START = struct.Struct("!12xHBxH2xHxB")
"""EtherType, and of IPv4: version and length of the header, length of the packet, fragment,
protocol."""
_ADDRESSES = {4: 8, 6: 32}
"""Bytes of both addresses, with which the header ends."""
_IP_HEADER = {4: 20, 6: 40}
"""Its bytes, without extensions."""
_LONG = 256
"""Bytes from which on folding pays."""
_number = int.from_bytes


def dissect(frame: bytes, vlan_type: int = 0x8100) -> Headers:
    """Find the headers; a VLAN tag of ``vlan_type`` is passed over."""
    network, available = ETHERNET_HEADER, len(frame)
    if available < network + 20:
        return _NOT_IP
    ethertype, first, size, fragment, protocol = _START.unpack_from(frame)
    if ethertype == vlan_type and available >= network + VLAN_TAG + 20:
        network += VLAN_TAG
        ethertype, first, size, fragment, protocol = _START.unpack_from(frame, VLAN_TAG)
    if ethertype == 0x86DD:
        return _ipv6(frame, network)
    if ethertype != 0x0800 or first >> 4 != 4:
        return _NOT_IP
    length, end = (first & 15) * 4, network + size
    transport = network + length
    if length < 20 or not transport <= end <= available:
        return _NOT_IP
    if fragment & 0x3FFF or transport + _SHORTEST_HEADER.get(protocol, size) > end:
        protocol = 0
    return _new(Headers, (network, 4, protocol, transport, end, length > 20))


def _ipv6(frame: bytes, at: int) -> Headers:
    if len(frame) < at + 40 or frame[at] >> 4 != 6:
        return _NOT_IP
    end = at + 40 + (frame[at + 4] << 8 | frame[at + 5])
    if end > len(frame):
        return _NOT_IP
    following, transport = frame[at + 6], at + 40
    while following in {_HOP_BY_HOP, _ROUTING, _DESTINATION} and transport + 8 <= end:
        following, transport = frame[transport], transport + 8 * (frame[transport + 1] + 1)
    if transport > end:
        return Headers(at, 6, 0, at + 40, end)
    extended = transport > at + 40 or following == _FRAGMENT
    return Headers(at, 6, _protocol(following, transport, end), transport, end, extended)


def _protocol(number: int, transport: int, end: int) -> int:
    shortest = _SHORTEST_HEADER.get(number)
    return number if shortest is not None and transport + shortest <= end else 0


def payload_offset(frame: bytes, headers: Headers) -> int:
    """Where the payload of layer 4 begins; where that header begins, for protocols unknown here."""
    if headers.protocol == TCP:
        return min(headers.transport + (frame[headers.transport + 12] >> 4) * 4, headers.end)
    return headers.transport + _SHORTEST_HEADER.get(headers.protocol, 0)


def ones_complement(data: bytes, extra: int = 0, start: int = 0, end: int | None = None) -> int:
    """The one's complement sum of ``extra`` and of 16-bit words, ``start`` to ``end`` (RFC 1071).

    It is what remains of all words as one number. Dividing that takes most of the time, so that
    long ones are folded first, twice.
    """
    size = (len(data) if end is None else end) - start
    if size <= _LONG:
        total = _number(data[start:end], "big") << (size & 1) * 8
    else:
        half, bits, mask = _halves(size)
        half += start
        second = _number(data[half:end], "big")
        total = _number(data[start:half], "big") + (second << 8 if size & 1 else second)
        total = (total >> bits) + (total & mask)
    total += extra
    return total % 0xFFFF or (0xFFFF if total else 0)


@lru_cache(maxsize=32)
def _halves(size: int) -> tuple[int, int, int]:
    """Where data of that size is folded, the bits at which that is folded again, and their mask."""
    half = size >> 2 << 1
    bits = half << 2 & -16
    return half, bits, (1 << bits) - 1


def addresses(frame: bytes, headers: Headers, *, ports: bool = False) -> bytes:
    """Source and destination of an IP packet, and of TCP or UDP in it if ``ports``."""
    network, version, _, transport, _, extended = headers
    end = network + _IP_HEADER[version] if extended else transport
    start = end - _ADDRESSES[version]
    if not ports:
        return frame[start:end]
    if extended:
        return frame[start:end] + frame[transport : transport + 4]
    return frame[start : transport + 4]


def pseudo_header(frame: bytes, headers: Headers) -> int:
    """The sum that TCP and UDP checksums begin with: addresses, protocol, length."""
    return ones_complement(
        addresses(frame, headers), headers.protocol + headers.end - headers.transport
    )


def network_checksum_good(frame: bytes, headers: Headers) -> bool:
    """Whether the checksum of an IPv4 header is right."""
    return ones_complement(frame, 0, headers.network, headers.transport) == 0xFFFF


def transport_checksum_good(frame: bytes, headers: Headers) -> bool | None:
    """Whether the checksum of layer 4 is right; None where there is none to check."""
    _, version, protocol, transport, end, extended = headers
    if not protocol:
        return None
    if protocol == SCTP:
        at = transport + CHECKSUM_AT[SCTP]
        plain = frame[transport:at] + bytes(4) + frame[at + 4 : end]
        return frame[at : at + 4] == crc32c(plain).to_bytes(4, "little")
    if protocol == UDP and not frame[transport + 6] and not frame[transport + 7]:
        return None if version == 4 else False
    if extended:
        return ones_complement(frame, pseudo_header(frame, headers), transport, end) == 0xFFFF
    start = transport - _ADDRESSES[version]  # they stand right before: one sum does
    return ones_complement(frame, protocol + end - transport, start, end) == 0xFFFF


def fcs(frame: bytes) -> bytes:
    """The frame check sequence."""
    return zlib.crc32(frame).to_bytes(4, "little")


@cache
def _castagnoli() -> tuple[int, ...]:
    table = []
    for value in range(256):
        remainder = value
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F6_3B78 if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)


def crc32c(data: bytes, before: int = 0) -> int:
    """The CRC of SCTP (RFC 9260, appendix A); ``before`` is that of what comes before ``data``."""
    table = _castagnoli()
    remainder = before ^ 0xFFFF_FFFF
    for byte in data:
        remainder = remainder >> 8 ^ table[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFF_FFFF


_new = tuple.__new__  # a named tuple's own constructor costs twice as much
