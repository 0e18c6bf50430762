"""A transmit queue: descriptors fetched, packets gathered and made ready, descriptors written back.

If a buffer can't be read the packet is dropped and its descriptors are done all the same; if a
descriptor can't be fetched, the queue stands still until software writes its tail again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from devices.dma import REFUSED, CompletionStatus, DmaPort
from devices.models.nic82576.descriptors import (
    CONTEXT,
    DATA,
    DataDescriptor,
    LegacyTransmit,
)
from devices.models.nic82576.offload import read_context, segments, with_checksums
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    CTRL,
    CTRL_MASTER_DISABLE,
    POOLS,
    QUEUE_ENABLE,
    TCTL,
    TCTL_ENABLE,
    TDBAH,
    TDBAL,
    TDH,
    TDLEN,
    TDT,
    TDWBAH,
    TDWBAL,
    TSCTC,
    TSCTFC,
    TXDCTL,
    VET,
    VFTE,
)
from devices.network.frames import ETHERNET_HEADER, FCS, fcs, ones_complement

LONGEST = 0x3FFFF
"""The payload length of a descriptor has 18 bits: no packet is longer."""
LONGEST_FRAME = 9728
TURN = 4096
"""Descriptors and frames after which a queue lets others go on."""

_HIGH = 64
_DEXT = DataDescriptor.dext.mask >> _HIGH
_EOP = DataDescriptor.eop.mask >> _HIGH
_IFCS = DataDescriptor.ifcs.mask >> _HIGH
_RS = DataDescriptor.rs.mask >> _HIGH
_VLE = DataDescriptor.vle.mask >> _HIGH
_TSE = DataDescriptor.tse.mask >> _HIGH
_IC = LegacyTransmit.ic.mask >> _HIGH
_IXSM = DataDescriptor.ixsm.mask >> _HIGH
_TXSM = DataDescriptor.txsm.mask >> _HIGH
_DTYP = DataDescriptor.dtyp.low - _HIGH
_IDX = DataDescriptor.idx.low - _HIGH
_SUMS = _IXSM | _TXSM
_KIND_BITS = _DEXT | DataDescriptor.dtyp.mask >> _HIGH
_CONTEXT, _DATA = _DEXT | CONTEXT << _DTYP, _DEXT | DATA << _DTYP
_SIMPLE_BITS = _KIND_BITS | _IFCS | _TSE | _VLE
_SIMPLE = _DATA | _IFCS
"""The usual case: one frame, of which at most checksums are to be put in."""
_WHOLE_BITS, _WHOLE = _SIMPLE_BITS | _EOP, _SIMPLE | _EOP
"""The same in one buffer."""
_STATUS_AT = 12
_KEPT_STATUS = 0xFFFF_FFF0
_CONTEXTS = 2
_SUCCESS = CompletionStatus.SUCCESS
_unpack = struct.Struct("<QQ").unpack

Send = Callable[[int, bytes], None]
"""Takes the number of a queue and a frame."""


class TransmitQueue:
    """One of the 16: ``run`` does what is between head and tail."""

    def __init__(self, number: int, bank: RegisterBank, send: Send) -> None:
        self.number = number
        self._bank, self._values = bank, bank.values
        self._send = send
        self._head = TDH + number
        self._report, self._report_high = TDWBAL + number, TDWBAH + number
        self.unfinished = False
        self._running = False
        self._sent = 0
        self.reset()

    def reset(self) -> None:
        """Forget contexts, and the packet of which not all descriptors have come."""
        self._contexts = [read_context(0)] * _CONTEXTS
        self._first: int | None = None
        self._parts: list[bytes] = []
        self._gathered = 0
        self._lost = False

    def run(self, dma: DmaPort) -> bool:
        """Carry out descriptors, for a while; whether any was reported done.

        ``unfinished`` tells whether there is more to be done, so that whatever software puts into a
        ring, others get their turn.
        """
        if self._running:
            return False  # who carries out descriptors already sees that a register was written
        self._running = True
        self.unfinished = reported = False
        self._sent = descriptors = 0
        values, read = self._values, dma.read
        bank, written, at_head = self._bank, -1, self._head
        while True:
            if written != bank.written:
                written = bank.written
                base, size, tail = self._ring()
            head = values[at_head]
            if head == tail or not size:
                break
            descriptors += 1
            if descriptors + self._sent > TURN:
                self.unfinished = True
                break
            at = base + 16 * head
            status, fetched, _, _ = read(at, 16)
            if status is not _SUCCESS:
                break
            head += 1
            values[at_head] = head if head < size else 0
            low, high = _unpack(fetched)
            if high & _KIND_BITS == _CONTEXT:
                self._contexts[high >> _IDX & _CONTEXTS - 1] = read_context(low | high << _HIGH)
            else:
                self._execute(low, high, dma)
            if high & _RS:
                self._write_back(dma, at, high)
                reported = True
        self._running = False
        return reported

    def _ring(self) -> tuple[int, int, int]:
        """Address, descriptors and tail of the ring; no descriptors while nothing may be sent."""
        values, number = self._values, self.number
        head, tail, size = values[self._head], values[TDT + number], values[TDLEN + number] >> 4
        ready = (
            values[TXDCTL + number] & QUEUE_ENABLE
            and values[TCTL] & TCTL_ENABLE
            and not values[CTRL] & CTRL_MASTER_DISABLE
            and values[VFTE] & 1 << number % POOLS
            and head < size
            and tail < size
        )
        base = values[TDBAL + number] | values[TDBAH + number] << 32
        return base, size if ready else 0, tail

    def _execute(self, low: int, high: int, dma: DmaPort) -> None:
        """A descriptor of data, or of a kind that does nothing."""
        length = high & 0xFFFF
        whole = high & _WHOLE_BITS == _WHOLE and self._first is None
        if whole and ETHERNET_HEADER <= length <= LONGEST_FRAME:
            status, frame, _, _ = dma.read(low, length)
            if status is _SUCCESS:
                self._sent += 1
                self._send(self.number, self._summed(frame, high) if high & _SUMS else frame)
            return
        if high & _DEXT and high & _KIND_BITS != _DATA:
            return
        if self._first is None:
            self._first = high
            self._parts, self._gathered, self._lost = [], 0, False
        if length and not self._lost:
            self._gathered += length
            status, part, _, _ = dma.read(low, length) if self._gathered <= LONGEST else REFUSED
            self._lost = status is not _SUCCESS
            self._parts.append(part)
        if high & _EOP:
            first, self._first = self._first, None
            if not self._lost and self._gathered >= ETHERNET_HEADER:
                for frame in self._frames(b"".join(self._parts), first, high):
                    if ETHERNET_HEADER <= len(frame) <= LONGEST_FRAME:
                        self._sent += 1
                        self._send(self.number, frame)

    def _frames(self, data: bytes, first: int, last: int) -> Iterable[bytes]:
        """The frames that a packet becomes; the first descriptor tells what is to be done."""
        if last & _IFCS and first & _SIMPLE_BITS == _SIMPLE:
            return (self._summed(data, first) if first & _SUMS else data,)
        if not last & _IFCS:
            if data[-FCS:] != fcs(data[:-FCS]):
                return ()  # with a wrong check sequence it gets nowhere
            data = data[:-FCS]
        if not first & _DEXT:
            return (self._legacy(data, first, last),)
        context = self._contexts[first >> _IDX & _CONTEXTS - 1]
        frames: Iterable[bytes]
        if first & _TSE:
            ip, transport = bool(first & _IXSM), bool(first & _TXSM)
            frames = tuple(segments(data, context, ip=ip, transport=transport))
            self._values[TSCTC if frames else TSCTFC] += 1
        else:
            frames = (self._summed(data, first),)
        if first & _VLE:
            return (self.tagged(frame, context.vlan) for frame in frames)
        return frames

    def _summed(self, frame: bytes, high: int) -> bytes:
        """A frame with the checksums that its descriptor asks for."""
        context = self._contexts[high >> _IDX & _CONTEXTS - 1]
        return with_checksums(frame, context, ip=high & _IXSM != 0, transport=high & _TXSM != 0)

    def _legacy(self, data: bytes, first: int, last: int) -> bytes:
        descriptor = LegacyTransmit(first << _HIGH)
        if first & _IC:
            at, start = descriptor.checksum_offset, descriptor.checksum_start
            if start < len(data) and at + 2 <= len(data):
                total = ones_complement(data, start=start) ^ 0xFFFF
                data = data[:at] + total.to_bytes(2, "big") + data[at + 2 :]
        if last & _VLE:
            data = self.tagged(data, LegacyTransmit(last << _HIGH).vlan)
        return data

    def tagged(self, frame: bytes, tag: int) -> bytes:
        """A frame with a VLAN tag put in."""
        ethertype = self._values[VET] & 0xFFFF
        return frame[:12] + (ethertype << 16 | tag).to_bytes(4, "big") + frame[12:]

    def _write_back(self, dma: DmaPort, at: int, high: int) -> None:
        """Report a descriptor done: in its place, or as the head, where software asked for that."""
        values = self._values
        report = values[self._report]
        if report & 1:
            address = report & ~3 | values[self._report_high] << 32
            dma.write(address, values[self._head].to_bytes(4, "little"))
        else:
            status = high >> 32 & _KEPT_STATUS | 1
            dma.write(at + _STATUS_AT, status.to_bytes(4, "little"))
