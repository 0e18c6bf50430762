"""Causes, masks, vectors and moderation: from ICR and EICR to messages.

With GPIE.Multiple_MSIX, a cause goes through IVAR to a bit of EICR, and each bit has a vector of
its own, of a virtual function if it exists, of the physical function otherwise. Without it ICR
alone decides, and everything is vector 0, MSI or the pin. EITR makes messages wait; simulated time
ends the wait.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from devices.clock import Clock
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    ALL,
    EIAC,
    EIAM,
    EICR,
    EICS,
    EIMC,
    EIMS,
    EITR,
    GPIE,
    GPIE_AUTO_MASK,
    GPIE_MSIX,
    GPIE_NSICR,
    IAM,
    ICR,
    ICR_ASSERTED,
    ICR_RECEIVED,
    ICR_RESET,
    ICR_TRANSMITTED,
    ICS,
    IMC,
    IMS,
    IMS_BITS,
    IVAR,
    IVAR_MISC,
    VECTORS,
    VTIVAR,
    VTIVAR_MISC,
)
from devices.sriov import Sriov

VF_VECTORS = 3
_VALID = 0x80
_MSIX_BITS = (1 << VECTORS) - 1
_LEGACY_BITS = 0xC000_FFFF


class Signals(Protocol):
    """What carries interrupts out: of the physical function, and of virtual functions."""

    clock: Clock

    def send(self, vector: int) -> None:
        """A vector of the physical function."""
        ...

    def send_virtual(self, vf: int, vector: int) -> None:
        """A vector of a virtual function."""
        ...

    def drive_pin(self, level: bool) -> None:
        """The pin, where there are no messages."""
        ...


def vf_cause(vf: int, vector: int = 0) -> int:
    """The bit of EICR that vector ``vector`` of a virtual function is."""
    return 22 - VF_VECTORS * vf + vector


class CauseRegisters:
    """The interrupt registers; ``cause`` and ``queue`` are what the rest of the model calls."""

    def __init__(self, bank: RegisterBank, signals: Signals, sriov: Sriov) -> None:
        self._values = bank.values
        self._signals = signals
        self._sriov = sriov
        self._generation = 0
        self.reset()
        bank.on_read[ICR] = self._read_icr
        bank.on_read[EICR] = self._read_eicr
        bank.on_write[ICR] = self._clear_icr
        bank.on_write[ICS] = self._raise
        bank.on_write[IMS] = self._unmask
        bank.on_write[IMC] = self._mask
        bank.on_read[IMC] = self._read_mask
        bank.on_write[EICR] = self._clear_eicr
        bank.on_write[EICS] = self._raise_extended
        bank.on_write[EIMS] = self._unmask_extended
        bank.on_write[EIMC] = self._mask_extended
        bank.on_read[EIMC] = self._read_extended_mask

    def reset(self) -> None:
        """No message is waiting any more."""
        self._generation += 1
        self._next = [0] * VECTORS
        self._waiting = 0
        self._pin = False

    @property
    def msix_mode(self) -> bool:
        """GPIE.Multiple_MSIX."""
        return bool(self._values[GPIE] & GPIE_MSIX)

    def cause(self, bits: int) -> None:
        """Causes of ICR came up."""
        values = self._values
        before = values[ICR]
        values[ICR] = before | bits & ALL
        if not self.msix_mode:
            self._legacy()
            return
        self._other(bits & ~before & values[IMS])

    def queue(self, number: int, *, transmit: bool) -> None:
        """A queue has written descriptors back."""
        values = self._values
        pool, shift = number & 7, 16 * (number >> 3) + 8 * transmit
        if pool < len(self._sriov.functions):
            self._virtual(pool, values[VTIVAR + pool] >> shift)
            return
        causes, cause = values[ICR], ICR_TRANSMITTED if transmit else ICR_RECEIVED
        values[ICR] = causes | cause
        if not values[GPIE] & GPIE_MSIX:
            if not causes & cause:
                self._legacy()
            return
        entry = values[IVAR + pool] >> shift
        if entry & _VALID:
            self.extended(1 << (entry & 0x1F))

    def mailbox(self, vf: int) -> None:
        """The physical function wrote to a virtual function, or took what it wrote."""
        self._virtual(vf, self._values[VTIVAR_MISC + vf])

    def extended(self, bits: int) -> None:
        """Bits of EICR came up."""
        values = self._values
        new = bits & ~values[EICR] & self._known
        values[EICR] |= new
        self._signal(new & values[EIMS])

    def unmask_extended(self, bits: int) -> None:
        """Set bits of EIMS; those that are in EICR already are signalled."""
        values = self._values
        new = bits & ~values[EIMS] & self._known
        values[EIMS] |= new
        self._signal(new & values[EICR])

    def mask_extended(self, bits: int) -> None:
        """Clear bits of EIMS."""
        self._values[EIMS] &= ~bits

    def clear_extended(self, bits: int) -> None:
        """Clear bits of EICR."""
        self._values[EICR] &= ~bits

    def take_extended(self, mask: int) -> int:
        """What is in these bits of EICR, which a read clears."""
        values = self._values
        value = values[EICR] & mask
        values[EICR] &= ~mask
        return value

    @property
    def _known(self) -> int:
        """The bits that EICR and EIMS have."""
        return _MSIX_BITS if self.msix_mode else _LEGACY_BITS | self._own

    @property
    def _own(self) -> int:
        """The bits of virtual functions, which have MSI-X only."""
        return _MSIX_BITS & -1 << vf_cause(len(self._sriov.functions) - 1)

    def _virtual(self, vf: int, entry: int) -> None:
        """The cause that an entry of a virtual function's IVAR leads to."""
        if vf < len(self._sriov.functions) and entry & _VALID and entry & 3 < VF_VECTORS:
            self.extended(1 << vf_cause(vf, entry & 3))

    def _other(self, new: int) -> None:
        """Causes without a queue: byte 1 of IVAR_MISC, or byte 0 for a reset."""
        entries = self._values[IVAR_MISC]
        for wanted, entry in ((new & ~ICR_RESET, entries >> 8), (new & ICR_RESET, entries)):
            if wanted and entry & _VALID:
                self.extended(1 << (entry & 0x1F))

    def _signal(self, bits: int) -> None:
        """Send the vector of each bit now, or when its interval has passed."""
        if not self.msix_mode:
            bits &= self._own
        while bits:
            bit = bits.bit_length() - 1
            bits ^= 1 << bit
            wait = self._next[bit] - self._signals.clock.now
            if wait <= 0:
                self._send(bit)
            elif not self._waiting >> bit & 1:
                self._waiting |= 1 << bit
                self._signals.clock.after(wait, partial(self._wait_over, bit, self._generation))

    def _wait_over(self, bit: int, generation: int) -> None:
        if generation != self._generation:
            return
        self._waiting &= ~(1 << bit)
        if self._values[EICR] & self._values[EIMS] & 1 << bit:
            self._send(bit)

    def _send(self, bit: int) -> None:
        values = self._values
        interval = values[EITR + bit] >> 2 & 0x1FFF
        self._next[bit] = self._signals.clock.now + 1000 * interval
        mask = 1 << bit
        values[EICR] &= ~(values[EIAC] & mask)
        if values[GPIE] & GPIE_AUTO_MASK:
            values[EIMS] &= ~(values[EIAM] & mask)
        vf = (24 - bit) // VF_VECTORS
        if vf < len(self._sriov.functions):
            self._signals.send_virtual(vf, (bit + 2) % VF_VECTORS)
        else:
            self._signals.send(bit)

    def _legacy(self) -> None:
        """ICR and IMS alone: assert if a cause that is not masked is there."""
        values = self._values
        asserted = bool(values[ICR] & values[IMS] & ~ICR_ASSERTED)
        if asserted and not values[ICR] & ICR_ASSERTED:
            values[ICR] |= ICR_ASSERTED
            self._signals.send(0)
        if asserted != self._pin:
            self._pin = asserted
            self._signals.drive_pin(asserted)

    def _read_icr(self, _: int) -> int:
        values = self._values
        value = values[ICR]
        asserted = value & ICR_ASSERTED
        if asserted or values[GPIE] & GPIE_NSICR or not values[IMS] or not self.msix_mode:
            values[ICR] = 0
            if asserted:
                values[IMS] &= ~values[IAM]
            self._settle()
        return value

    def _clear_icr(self, _: int, value: int) -> None:
        self._values[ICR] &= ~value
        self._settle()

    def _settle(self) -> None:
        if not self.msix_mode:
            if not self._values[ICR] & self._values[IMS] & ~ICR_ASSERTED:
                self._values[ICR] &= ~ICR_ASSERTED
            self._legacy()

    def _unmask(self, _: int, value: int) -> None:
        values = self._values
        new = value & ~values[IMS] & IMS_BITS
        values[IMS] |= value & IMS_BITS
        if self.msix_mode:
            self._other(new & values[ICR])
        else:
            self._legacy()

    def _mask(self, _: int, value: int) -> None:
        self._values[IMS] &= ~value
        self._settle()

    def _read_eicr(self, _: int) -> int:
        return self.take_extended(ALL)

    def _clear_eicr(self, _: int, value: int) -> None:
        self.clear_extended(value)

    def _raise(self, _: int, value: int) -> None:
        self.cause(value)

    def _raise_extended(self, _: int, value: int) -> None:
        self.extended(value)

    def _unmask_extended(self, _: int, value: int) -> None:
        self.unmask_extended(value)

    def _mask_extended(self, _: int, value: int) -> None:
        self.mask_extended(value)

    def _read_mask(self, _: int) -> int:
        return self._values[IMS]

    def _read_extended_mask(self, _: int) -> int:
        return self._values[EIMS]
