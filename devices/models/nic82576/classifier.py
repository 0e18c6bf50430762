"""What the controller finds out about a received frame: checksums, packet type, RSS hash.

The fragment checksum, which a descriptor has in place of the hash while RXCSUM.PCSD is clear, is
left out: the field is 0 then.
"""

from __future__ import annotations

from devices.models.nic82576.filters import Filters
from devices.models.nic82576.receive import Packet
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
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
    Headers,
    dissect,
    fcs,
    network_checksum_good,
    transport_checksum_good,
)
from devices.network.toeplitz import toeplitz

_STATUS_IPCS, _STATUS_L4CS, _STATUS_UDPCS, _STATUS_VP = 1 << 6, 1 << 5, 1 << 4, 1 << 3
_STATUS_IPE, _STATUS_L4E = 1 << 30, 1 << 29
_TYPE_IPV4, _TYPE_IPV4_OPTIONS, _TYPE_IPV6, _TYPE_IPV6_EXTENDED = 1 << 4, 1 << 5, 1 << 6, 1 << 7
_TYPES = {TCP: 1 << 8, UDP: 1 << 9, 132: 1 << 10}
_RSS, _VMDQ_RSS = 2, 5
_RSS, _VMDQ_RSS = 2, 5
_RSS_FIELDS = {
    (4, TCP): ((16, 1, True), (17, 2, False)),
    (4, UDP): ((22, 7, True), (17, 2, False)),
    (4, 0): ((17, 2, False),),
    (6, TCP): ((21, 3, True), (18, 6, True), (20, 5, False)),
    (6, UDP): ((23, 8, True), (24, 9, True), (20, 5, False)),
    (6, 0): ((20, 5, False),),
}
"""For IP version and protocol: bit of MRQC, RSS type, and whether the ports are hashed too."""


_new = tuple.__new__  # a named tuple's own constructor costs twice as much


class Classifier:
    """Makes packets for memory of frames."""

    def __init__(self, bank: RegisterBank, filters: Filters) -> None:
        self._values = bank.values
        self._filters = filters
        self._key = b""
        bank.on_write[RSSRK] = self._key_written

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
        if not headers.version:
            return _new(Packet, (data, headers, status, vlan, 0)), 0
        options = values[RXCSUM]
        if headers.version == 4 and options & RXCSUM_IP:
            status |= _STATUS_IPCS
            if not network_checksum_good(data, headers):
                status |= _STATUS_IPE
        if options & RXCSUM_L4 and headers.protocol:
            good = transport_checksum_good(data, headers)
            if good is not None:
                status |= _STATUS_L4CS | _STATUS_UDPCS * (headers.protocol == UDP)
                status |= _STATUS_L4E * (not good)
        rss_type, value, spread = self._spread(data, headers)
        low = rss_type | _packet_type(headers) | value * bool(options & RXCSUM_PCSD) << 32
        return _new(Packet, (data, headers, status, vlan, low)), spread

    def _spread(self, data: bytes, headers: Headers) -> tuple[int, int, int]:
        """RSS type, hash, and what the redirection table has for it."""
        values = self._values
        control = values[MRQC]
        mode = control & 7
        if mode not in {_RSS, _VMDQ_RSS}:
            return 0, 0, 0
        network, version, protocol, transport, _, _ = headers
        for bit, rss_type, ports in _RSS_FIELDS[version, protocol if protocol != SCTP else 0]:
            if control >> bit & 1:
                covered = (
                    data[network + 12 : network + 20]
                    if version == 4
                    else data[network + 8 : network + 40]
                )
                if ports:
                    covered += data[transport : transport + 4]
                value = toeplitz(self._key or self._read_key(), covered)
                entry = values[RETA + (value >> 2 & 31)] >> 8 * (value & 3)
                return rss_type, value, entry & (1 if mode == _VMDQ_RSS else 15)
        return 0, 0, 0

    def forget(self) -> None:
        """The key of the hash has changed."""
        self._key = b""

    def _key_written(self, _: int, value: int) -> None:
        self.forget()

    def _read_key(self) -> bytes:
        words = self._values[RSSRK : RSSRK + RSSRK.count]
        self._key = b"".join(word.to_bytes(4, "little") for word in words)
        return self._key


def _packet_type(headers: Headers) -> int:
    """The packet type of a receive descriptor, in its place."""
    if headers.version == 4:
        kind = _TYPE_IPV4 | _TYPE_IPV4_OPTIONS * headers.extended
    else:
        kind = _TYPE_IPV6 | _TYPE_IPV6_EXTENDED * headers.extended
    return kind | _TYPES.get(headers.protocol, 0)
