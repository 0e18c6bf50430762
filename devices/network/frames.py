"""Where the headers of an Ethernet frame are, and the checksums in them.

IEEE 802.3 and 802.1Q, RFC 791, 8200, 768, 9293 and 9260. A frame is its bytes without preamble and
frame check sequence. No frame makes anything here raise: what is cut short or contradicts itself is
simply not found.
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import cache
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
_IPV4 = struct.Struct("!BxH2xHxB")
"""Version and length of the header, length of the packet, fragment, protocol."""
_ADDRESSES = {4: 8, 6: 32}
"""Bytes of both addresses, with which the header ends."""
_IP_HEADER = {4: 20, 6: 40}
"""Its bytes, without extensions."""
_LONG = 256
"""Bytes from which on folding pays."""


def dissect(frame: bytes, vlan_type: int = 0x8100) -> Headers:
    """Find the headers; a VLAN tag of ``vlan_type`` is passed over."""
    network = ETHERNET_HEADER
    if len(frame) < network:
        return _NOT_IP
    ethertype = frame[12] << 8 | frame[13]
    if ethertype == vlan_type and len(frame) >= network + VLAN_TAG:
        network += VLAN_TAG
        ethertype = frame[16] << 8 | frame[17]
    if ethertype == 0x0800:
        return _ipv4(frame, network)
    if ethertype == 0x86DD:
        return _ipv6(frame, network)
    return _NOT_IP


def _ipv4(frame: bytes, at: int) -> Headers:
    if len(frame) < at + 20:
        return _NOT_IP
    first, size, fragment, protocol = _IPV4.unpack_from(frame, at)
    length, end = (first & 15) * 4, at + size
    transport = at + length
    if first >> 4 != 4 or length < 20 or end > len(frame) or transport > end:
        return _NOT_IP
    protocol = 0 if fragment & 0x3FFF else _protocol(protocol, transport, end)
    return _new(Headers, (at, 4, protocol, transport, end, length > 20))


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


def ones_complement(data: bytes, start: int = 0) -> int:
    """The one's complement sum of the 16-bit words of ``data`` and ``start`` (RFC 1071).

    It is what remains of all words as one number. Dividing that takes most of the time, so that
    long ones are folded first, twice.
    """
    size, number = len(data), int.from_bytes
    if size & 1:
        data += b"\0"
    if size > _LONG:
        half = size >> 2 << 1
        total = number(data[:half], "big") + number(data[half:], "big")
        bits = half << 2 & -16
        total = start + (total >> bits) + (total & (1 << bits) - 1)
    else:
        total = start + number(data, "big")
    return total % 0xFFFF or (0xFFFF if total else 0)


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
    return ones_complement(frame[headers.network : headers.transport]) == 0xFFFF


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
        return ones_complement(frame[transport:end], pseudo_header(frame, headers)) == 0xFFFF
    start = transport - _ADDRESSES[version]  # they stand right before: one sum does
    return ones_complement(frame[start:end], protocol + end - transport) == 0xFFFF


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
