"""An I/O APIC: pins, the redirection table, and the interrupt requests it writes.

VT-d 5.1.5.1 for the remappable form of an entry. An entry's bits reach fixed places of the message,
so one formula serves both formats. The arbitration register and the interrupt command messages of
the three-wire APIC bus are left out.
"""

from __future__ import annotations

from enum import IntEnum

from devices.dma import DmaPort
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.bits import Access, BitRecord, Bits

RO = Access.RO

ID, VERSION, TABLE = 0x00, 0x01, 0x10
"""Register indexes: identification, version, first half of the first redirection entry."""


class IoApicOffset(IntEnum):
    """The memory-mapped registers."""

    IOREGSEL = 0x00
    IOWIN = 0x10
    EOI = 0x40


class RedirectionEntry(BitRecord, width=64):
    """A redirection table entry in compatibility format."""

    vector = Bits(7, 0)
    delivery_mode = Bits(10, 8)
    destination_mode = Bits(11)
    delivery_status = Bits(12, access=RO)
    polarity = Bits(13)  # 1: active low
    remote_irr = Bits(14, access=RO)  # a level interrupt waits for its EOI
    trigger = Bits(15)  # 1: level
    mask = Bits(16)
    extended_destination = Bits(55, 48)
    destination = Bits(63, 56)


class RemappableEntry(BitRecord, width=64):
    """The same entry in remappable format (VT-d 5.1.5.1)."""

    vector = Bits(7, 0)
    index_15 = Bits(11)
    delivery_status = Bits(12, access=RO)
    polarity = Bits(13)
    remote_irr = Bits(14, access=RO)
    trigger = Bits(15)
    mask = Bits(16)
    format = Bits(48)
    index_14_0 = Bits(63, 49)


def remappable_entry(index: int, vector: int, *, level: bool = False) -> RemappableEntry:
    """The unmasked entry that asks for interrupt remapping table entry ``index``."""
    return RemappableEntry.of(
        vector=vector, index_15=index >> 15, trigger=level, format=1, index_14_0=index & 0x7FFF
    )


def message(entry: int) -> tuple[int, int]:
    """Address and data of the interrupt request that a redirection entry stands for.

    Entry bits 63:48 become address bits 19:4 and bit 11 address bit 2, whatever the format calls
    them. Data bit 14 says that a level interrupt is asserted: there is no message for the other.
    """
    address = INTERRUPT_RANGE.start | (entry >> 48 & 0xFFFF) << 4 | (entry >> 11 & 1) << 2
    return address, entry & 0x87FF | (entry >> 15 & 1) << 14


_MASKED = RedirectionEntry.of(mask=1)
_WRITABLE = sum(bits.mask for bits in RedirectionEntry.FIELDS.values() if bits.access is Access.RW)


class IoApic:
    """An I/O APIC of 1 to 120 pins, sending through ``port`` as the source-id that port has."""

    def __init__(self, port: DmaPort, pins: int = 24, apic_id: int = 0) -> None:
        if not 1 <= pins <= 120:
            raise ValueError(f"pins: {pins} is not in 1..120")
        self.port = port
        self.apic_id = apic_id & 0xF
        self.entries = [_MASKED] * pins
        self._levels = [False] * pins
        self._select = 0

    def read(self, offset: int, size: int) -> int:
        """A memory-mapped read: 4 bytes; other sizes and offsets read 0."""
        if size != 4:
            return 0
        if offset == IoApicOffset.IOREGSEL:
            return self._select
        return self._read_register() if offset == IoApicOffset.IOWIN else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A memory-mapped write: 4 bytes; other sizes and offsets are dropped."""
        if size != 4:
            return
        if offset == IoApicOffset.IOREGSEL:
            self._select = value & 0xFF
        elif offset == IoApicOffset.IOWIN:
            self._write_register(value)
        elif offset == IoApicOffset.EOI:
            self.end_of_interrupt(value & 0xFF)

    def set_pin(self, pin: int, level: bool) -> None:
        """Drive an input: an edge entry sends on the rise, a level entry while it is asserted.

        ``level`` is the logical state: polarity is not looked at. An edge while masked is lost.
        """
        if not self._has(pin):
            raise ValueError(f"pin: {pin} is not in 0..{len(self.entries) - 1}")
        rose = level and not self._levels[pin]
        self._levels[pin] = level
        entry = self.entries[pin]
        if entry.mask:
            return
        if entry.trigger:
            self._send_level(pin)
        elif rose:
            self._send(pin)

    def end_of_interrupt(self, vector: int) -> None:
        """End level interrupts with this vector in their entry; a pin still high sends again."""
        for pin, entry in enumerate(self.entries):
            if entry.trigger and entry.remote_irr and entry.vector == vector:
                self.entries[pin] = entry.replace(remote_irr=0)
                self._send_level(pin)

    def _send_level(self, pin: int) -> None:
        entry = self.entries[pin]
        if self._levels[pin] and entry.trigger and not entry.mask and not entry.remote_irr:
            self.entries[pin] = entry.replace(remote_irr=1)
            self._send(pin)

    def _send(self, pin: int) -> None:
        address, data = message(self.entries[pin])
        self.port.write(address, data.to_bytes(4, "little"))

    def _read_register(self) -> int:
        if self._select == ID:
            return self.apic_id << 24
        if self._select == VERSION:
            return len(self.entries) - 1 << 16 | 0x20
        pin, upper = divmod(self._select - TABLE, 2)
        return self.entries[pin] >> 32 * upper & 0xFFFF_FFFF if self._has(pin) else 0

    def _write_register(self, value: int) -> None:
        if self._select == ID:
            self.apic_id = value >> 24 & 0xF
        pin, upper = divmod(self._select - TABLE, 2)
        if not self._has(pin):
            return
        enable = 0xFFFF_FFFF << 32 * upper & _WRITABLE
        before = self.entries[pin]
        after = RedirectionEntry(before & ~enable | value << 32 * upper & enable)
        self.entries[pin] = after if after.trigger else after.replace(remote_irr=0)
        self._send_level(pin)

    def _has(self, pin: int) -> bool:
        return 0 <= pin < len(self.entries)
