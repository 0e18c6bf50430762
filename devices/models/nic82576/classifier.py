"""What the controller finds out about a received frame: checksums, packet type, RSS hash.

The fragment checksum, which a descriptor has in place of the hash while RXCSUM.PCSD is clear, is
left out: the field is 0 then.
"""

from __future__ import annotations

from devices.models.nic82576.filters import Filters
from devices.models.nic82576.receive import Packet
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    DECLARED,
    MRQC,
    RETA,
    RSSRK,
    RXCSUM,
    RXCSUM_IP,
    RXCSUM_L4,
    RXCSUM_PCSD,
)
from devices.network.frames import (
    SCTP,
    TCP,
    UDP,
    VLAN_TAG,
    addresses,
    dissect,
    fcs,
    network_checksum_good,
    transport_checksum_good,
)
from devices.network.toeplitz import toeplitz

_STATUS_IPCS, _STATUS_L4CS, _STATUS_UDPCS, _STATUS_VP = 1 << 6, 1 << 5, 1 << 4, 1 << 3
_STATUS_IPE, _STATUS_L4E = 1 << 30, 1 << 29
_TYPE_IPV4, _TYPE_IPV4_OPTIONS, _TYPE_IPV6, _TYPE_IPV6_EXTENDED = 1 << 4, 1 << 5, 1 << 6, 1 << 7
_TYPES = {TCP: 1 << 8, UDP: 1 << 9, SCTP: 1 << 10, 0: 0}
_PACKET_TYPES = {
    (version, protocol, extended): kind | options * extended | bit
    for version, kind, options in (
        (4, _TYPE_IPV4, _TYPE_IPV4_OPTIONS),
        (6, _TYPE_IPV6, _TYPE_IPV6_EXTENDED),
    )
    for protocol, bit in _TYPES.items()
    for extended in (False, True)
}
"""The packet type of a receive descriptor, in its place."""
_RSS, _VMDQ_RSS = 2, 5
_IPV4_HASHES, _IPV6_HASHES = ((17, 2, False),), ((20, 5, False),)
_HASHES = {
    (4, TCP): ((16, 1, True), *_IPV4_HASHES),
    (4, UDP): ((22, 7, True), *_IPV4_HASHES),
    (4, SCTP): _IPV4_HASHES,
    (4, 0): _IPV4_HASHES,
    (6, TCP): ((21, 3, True), (18, 6, True), *_IPV6_HASHES),
    (6, UDP): ((23, 8, True), (24, 9, True), *_IPV6_HASHES),
    (6, SCTP): _IPV6_HASHES,
    (6, 0): _IPV6_HASHES,
}
"""For IP version and protocol: bit of MRQC, RSS type, and whether the ports are hashed too."""


_new = tuple.__new__  # a named tuple's own constructor costs twice as much


class Classifier:
    """Makes packets for memory of frames."""

    def __init__(self, bank: RegisterBank, filters: Filters) -> None:
        self._values = bank.values
        self._filters = filters
        self.forget()
        for register in (MRQC, RSSRK):
            bank.on_write[register] = self._changed

    def packet(self, frame: bytes, strip_vlan: int, strip_crc: int) -> tuple[Packet, int]:
        """The packet for memory, and the queue that RSS finds for it."""
        values = self._values
        status = vlan = 0
        data = frame
        if strip_vlan and self._filters.vlan(frame) is not None:
            status, vlan = _STATUS_VP, frame[14] << 8 | frame[15]
            data = frame[:12] + frame[12 + VLAN_TAG :]
        headers = dissect(data)
        if not strip_crc:
            data += fcs(frame)
        if not headers[1]:
            return _new(Packet, (data, headers, status, vlan, 0)), 0
        _, version, protocol, _, _, extended = headers
        options = values[RXCSUM]
        if version == 4 and options & RXCSUM_IP:
            status |= _STATUS_IPCS
            if not network_checksum_good(data, headers):
                status |= _STATUS_IPE
        if options & RXCSUM_L4 and protocol:
            good = transport_checksum_good(data, headers)
            if good is not None:
                status |= _STATUS_UDPCS | _STATUS_L4CS if protocol == UDP else _STATUS_L4CS
                if not good:
                    status |= _STATUS_L4E
        low, spread = _PACKET_TYPES[version, protocol, extended], 0
        hashes = self._hashes if self._hashes is not None else self._read_hashes()
        hashed = hashes.get((version, protocol))
        if hashed is not None:
            rss_type, ports = hashed
            value = toeplitz(self._key, addresses(data, headers, ports=ports))
            low |= value << 32 | rss_type if options & RXCSUM_PCSD else rss_type
            spread = values[RETA + (value >> 2 & 31)] >> 8 * (value & 3) & self._queues
        return _new(Packet, (data, headers, status, vlan, low)), spread

    def forget(self) -> None:
        """What is hashed, and with which key, has changed."""
        self._hashes: dict[tuple[int, int], tuple[int, bool]] | None = None

    def _changed(self, _: int, value: int) -> None:
        self.forget()

    def _read_hashes(self) -> dict[tuple[int, int], tuple[int, bool]]:
        """RSS type by IP version and protocol, and whether ports are hashed; key and queues."""
        control, found = self._values[MRQC], dict[tuple[int, int], tuple[int, bool]]()
        if control & 7 in {_RSS, _VMDQ_RSS}:
            for packet, hashes in _HASHES.items():
                for bit, rss_type, ports in reversed(hashes):
                    if control >> bit & 1:
                        found[packet] = rss_type, ports
        words = self._values[RSSRK : RSSRK + DECLARED[RSSRK].count]
        self._key = b"".join(word.to_bytes(4, "little") for word in words)
        self._queues = 1 if control & 7 == _VMDQ_RSS else 15
        self._hashes = found
        return found
