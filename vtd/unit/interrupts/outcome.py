"""Interrupt messages as values: what a local APIC receives (VT-d 5.1.2, 5.1.6)."""

from __future__ import annotations

import functools
from typing import NamedTuple

from vtd.layouts.interrupt_entries import (
    CompatibilityAddress,
    CompatibilityData,
    DeliveryMode,
    DestinationMode,
    TriggerMode,
)


class Message(NamedTuple):
    """An interrupt message on its way to the processors."""

    address: int
    """64 bits, with the upper address register in the upper half."""
    data: int


class Interrupt(NamedTuple):
    """An interrupt on its way to the processors."""

    vector: int
    delivery_mode: DeliveryMode
    trigger_mode: TriggerMode
    destination_mode: DestinationMode
    redirection_hint: bool
    destination: int
    """APIC id: 8 bits in xAPIC mode, 32 in x2APIC mode."""

    def message(self) -> Message:
        """The message that has the processors take it.

        In compatibility format; bits 31:8 of the destination, of x2APIC mode, are where a unit's
        own messages have them (5.1.6).
        """
        destination = self.destination
        where = destination << _DST & _DST_MASK | self.redirection_hint << _RH
        where |= _FEE | self.destination_mode << _DM | (destination & ~0xFF) << 32
        what = self.vector | self.delivery_mode << _DLM
        if self.trigger_mode is TriggerMode.LEVEL:
            what |= _LEVEL
        return Message(where, what)


class Posted(NamedTuple):
    """An interrupt recorded in a posted-interrupt descriptor (5.2.3)."""

    descriptor: int
    """Physical address of the descriptor."""
    vector: int
    notification: Interrupt | None
    """What was sent to tell a processor of it, if anything."""


@functools.lru_cache(maxsize=256)
def compatibility_interrupt(address: int, data: int) -> Interrupt:
    """The interrupt that a compatibility-format message stands for (5.1.2.1)."""
    where = CompatibilityAddress(address & 0xFFFF_FFFF)
    what = CompatibilityData(data & 0xFFFF_FFFF)
    return Interrupt(what.v, what.dlm, what.tm, where.dm, where.rh, where.dst)


_DST, _RH, _DM = (CompatibilityAddress.FIELDS[name].low for name in ("dst", "rh", "dm"))
_DST_MASK = CompatibilityAddress.dst.mask
_FEE = CompatibilityAddress.fee.place(0xFEE)
_DLM = CompatibilityData.dlm.low
_LEVEL = CompatibilityData.level.mask | CompatibilityData.tm.mask
