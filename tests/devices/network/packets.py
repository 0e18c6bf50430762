"""IP packets for the tests, their checksums computed word by word."""

from __future__ import annotations

import struct


def slow_sum(data: bytes) -> int:
    """RFC 1071, as written."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for high, low in zip(data[::2], data[1::2], strict=True):
        total += high << 8 | low
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!II", length, protocol)


def ip_packet(
    payload: bytes,
    protocol: int,
    *,
    version: int = 4,
    ports: tuple[int, int] = (1000, 2000),
    mac: bytes = b"\2\0\0\0\0\1",
    flags: int = 0x18,
    check: bool = True,
) -> bytes:
    """An Ethernet frame with IP and TCP (6) or UDP (17) in it.

    With ``check`` its checksums are right. Otherwise they are as a driver leaves them: none of
    IPv4, and that of the pseudo header in layer 4.
    """
    width = 4 if version == 4 else 16
    source, destination = bytes(range(1, width + 1)), bytes(range(101, width + 101))
    if protocol == 6:
        transport = struct.pack("!HHIIBBHHH", *ports, 1000, 0, 5 << 4, flags, 512, 0, 0)
        at = 16
    else:
        transport = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
        at = 6
    body = transport + payload
    header = pseudo(source, destination, protocol, len(body))
    total = slow_sum(header + body) ^ 0xFFFF if check else slow_sum(header)
    body = body[:at] + struct.pack("!H", total or 0xFFFF) + body[at + 2 :]
    if version == 4:
        network = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0x4000, 64, protocol, 0)
        network += source + destination
        if check:
            network = network[:10] + struct.pack("!H", slow_sum(network) ^ 0xFFFF) + network[12:]
        kind = b"\x08\x00"
    else:
        network = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source + destination
        kind = b"\x86\xdd"
    return mac + b"\2\0\0\0\0\x09" + kind + network + body


def with_extension(frame: bytes) -> bytes:
    """The same packet with options of IPv4, or with an extension header of IPv6."""
    network, length = frame[14:], int.from_bytes(frame[16:18], "big")
    if network[0] >> 4 == 4:
        head = b"\x46" + network[1:2] + struct.pack("!H", length + 4) + network[4:10]
        head += bytes(2) + network[12:20] + b"\x01\x01\x01\x00"
        head = head[:10] + struct.pack("!H", slow_sum(head) ^ 0xFFFF) + head[12:]
        return frame[:14] + head + network[20:]
    head = network[:4] + struct.pack("!HB", int.from_bytes(network[4:6], "big") + 8, 60)
    destination_options = network[6:7] + b"\0\1\4\0\0\0\0"
    return frame[:14] + head + network[7:40] + destination_options + network[40:]


def sound(frame: bytes) -> bool:
    """Whether lengths and checksums of a frame of :func:`ip_packet` agree."""
    version = frame[14] >> 4
    end = 20 if version == 4 else 40
    network, body = frame[14 : 14 + end], frame[14 + end :]
    if version == 4:
        source, destination, protocol = network[12:16], network[16:20], network[9]
        if slow_sum(network) != 0xFFFF or int.from_bytes(network[2:4], "big") != 20 + len(body):
            return False
    else:
        source, destination, protocol = network[8:24], network[24:40], network[6]
        if int.from_bytes(network[4:6], "big") != len(body):
            return False
    if protocol == 17 and int.from_bytes(body[4:6], "big") != len(body):
        return False
    return slow_sum(pseudo(source, destination, protocol, len(body)) + body) == 0xFFFF
