"""What can be at the other end of a cable: a replayed capture, a generator, a host."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from devices.clock import Clock
from devices.network.capture import CapturedFrame
from devices.network.frames import (
    BROADCAST,
    ETHERNET_HEADER,
    dissect,
    network_checksum_good,
    ones_complement,
)
from devices.network.link import LinkPartner

_ARP, _IPV4 = b"\x08\x06", b"\x08\x00"
_ARP_REQUEST = b"\x00\x01\x08\x00\x06\x04\x00\x01"
_ARP_REPLY = b"\x00\x01\x08\x00\x06\x04\x00\x02"
_ICMP = 1
_ECHO_REQUEST, _ECHO_REPLY = 8, 0


def replay(frames: Iterable[CapturedFrame], port: LinkPartner, clock: Clock) -> None:
    """Have frames arrive at a port: the first one at once, the others at their distances."""
    first: int | None = None
    for time, data in frames:
        first = time if first is None else first
        clock.after(max(time - first, 0), partial(port.receive, data))


class Generator:
    """Sends ``count`` frames of ``length`` bytes (60 or more) to ``destination``, one an interval.

    Each has its number in it, from byte 14 on. What arrives is counted.
    """

    def __init__(
        self,
        port: LinkPartner,
        clock: Clock,
        *,
        destination: bytes,
        source: bytes = b"\x02\0\0\0\0\xfe",
        count: int = 1000,
        length: int = 60,
        nanoseconds: int = 1000,
    ) -> None:
        self.sent = self.received = 0
        self._port, self._clock = port, clock
        self._head = destination + source + b"\x88\xb5"
        self._count, self._length, self._interval = count, max(length, 60), nanoseconds

    def start(self) -> None:
        """Send the first, and the others later."""
        if self.sent == self._count:
            return
        number = self.sent.to_bytes(4, "big")
        self.sent += 1
        self._clock.after(self._interval, self.start)
        self._port.receive((self._head + number).ljust(self._length, b"\0"))

    def receive(self, frame: bytes) -> None:
        """Count it."""
        self.received += 1


class Responder:
    """A host with one IPv4 address that answers ARP and ICMP echo, so that it can be pinged."""

    def __init__(
        self, port: LinkPartner, *, mac: bytes = b"\x02\0\0\0\0\xfe", address: bytes
    ) -> None:
        self.mac, self.address = mac, address
        self._port = port

    def receive(self, frame: bytes) -> None:
        """Answer it, if it asks for something that is answered here."""
        if frame[:6] not in {self.mac, BROADCAST}:
            return
        answer = self._arp(frame) if frame[12:14] == _ARP else self._echo(frame)
        if answer is not None:
            self._port.receive(frame[6:12] + self.mac + answer)

    def _arp(self, frame: bytes) -> bytes | None:
        if frame[14:22] != _ARP_REQUEST or frame[38:42] != self.address:
            return None
        return _ARP + _ARP_REPLY + self.mac + self.address + frame[22:32]

    def _echo(self, frame: bytes) -> bytes | None:
        headers = dissect(frame)
        message = frame[headers.transport : headers.end]
        wanted = (
            headers.version == 4
            and frame[headers.network + 9] == _ICMP
            and frame[headers.network + 16 : headers.network + 20] == self.address
            and message[:1] == bytes((_ECHO_REQUEST,))
            and len(message) >= 8
            and network_checksum_good(frame, headers)
            and ones_complement(message) == 0xFFFF
        )
        if not wanted:
            return None
        reply = bytes((_ECHO_REPLY, 0, 0, 0)) + message[4:]
        reply = reply[:2] + (ones_complement(reply) ^ 0xFFFF).to_bytes(2, "big") + reply[4:]
        network = frame[ETHERNET_HEADER : headers.transport]
        # exchanged addresses have the same sum, so the checksum of the header stays right
        return _IPV4 + network[:12] + network[16:20] + network[12:16] + network[20:] + reply
