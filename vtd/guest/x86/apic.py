"""APIC virtualization: the virtual-APIC page, RVI and SVI, and what accesses come to (SDM 29).

Pure steps on the page and the two vectors; the guest that calls them is
:mod:`vtd.guest.x86.apic_accesses`, which turns their outcomes into exits.
"""

from __future__ import annotations

import struct
from enum import Enum

from vtd.guest.bus import Memory, get, get_number, put_number
from vtd.guest.x86.entry_rules import Entry

TPR, PPR, EOI, ISR, TMR, IRR = 0x80, 0xA0, 0xB0, 0x100, 0x180, 0x200
ICR_LOW, ICR_HIGH, SELF_IPI = 0x300, 0x310, 0x3F0
VERSION, LDR, DFR, SPURIOUS, ESR = 0x30, 0xD0, 0xE0, 0xF0, 0x280
ID = 0x20
LVT = range(0x320, 0x380, 0x10)
INITIAL_COUNT, DIVIDE = 0x380, 0x3E0
REGISTERS_END = 0x400

STORED = frozenset({ID, LDR, DFR, SPURIOUS, ESR, *LVT, INITIAL_COUNT, DIVIDE})
"""Registers whose writes are stored and exit, with APIC-register virtualization (29.4.3.1)."""
READABLE = STORED | {VERSION, TPR, EOI, ICR_LOW, ICR_HIGH} | frozenset(range(ISR, IRR + 0x80, 0x10))
"""Registers that are read from the page, with APIC-register virtualization (29.4.2)."""
SELF_IPI_RESERVED = 0xFFF3_B700
"""Bits of ICR low that must be 0 for self-IPI virtualization, but for the shorthand (29.1.5)."""
_WORDS = struct.Struct("4s12x" * 8)
"""The low 4 bytes of eight registers: VISR, VTMR or VIRR."""
SHORTHAND_SELF = 0x4_0000


class ApicAccess(Enum):
    """What an access to the APIC-access page comes to."""

    EXIT = "APIC-access exit"
    VIRTUALIZED = "virtualized"
    WRITE_EXIT = "virtualized, then APIC-write exit"


class VirtualApic:
    """The virtual-APIC page of a running guest, with the vectors of the guest interrupt status."""

    def __init__(self, memory: Memory, entry: Entry) -> None:
        self._memory = memory
        self.page = entry.state.virtual_apic_address
        self.delivery = entry.secondary.virtual_interrupt_delivery
        self.registers = entry.secondary.apic_register_virtualization
        self.shadow = entry.primary.tpr_shadow
        self._window = entry.primary.interrupt_window_exiting
        self._eoi_exits = 0
        for number in range(4):
            self._eoi_exits |= entry.state[f"eoi_exit_bitmap_{number}"] << 64 * number
        self.threshold = entry.state.tpr_threshold
        self.rvi = entry.state.guest_interrupt_status & 0xFF
        self.svi = entry.state.guest_interrupt_status >> 8
        self.pending = False
        """A virtual interrupt is pending: recognized, and not yet delivered."""

    @property
    def status(self) -> int:
        """Guest interrupt status."""
        return self.svi << 8 | self.rvi

    def read(self, offset: int, size: int = 4) -> int:
        """Bytes of the page as a number."""
        return get_number(self._memory, self.page + offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Store a number in the page."""
        put_number(self._memory, self.page + offset, value, size)

    def _bit(self, base: int, vector: int, value: bool) -> None:
        """Change a bit of VISR or VIRR."""
        offset = base + 16 * (vector >> 5)
        word = self.read(offset) & ~(1 << (vector & 31))
        self.write(offset, word | int(value) << (vector & 31))

    def bits(self, base: int) -> int:
        """VISR, VTMR or VIRR as one number of 256 bits."""
        words = _WORDS.unpack(get(self._memory, self.page + base, _WORDS.size))
        return int.from_bytes(b"".join(words), "little")

    def highest(self, base: int) -> int:
        """The highest vector of VISR or VIRR, 0 if there is none."""
        return max(self.bits(base).bit_length() - 1, 0)

    def virtualize_ppr(self) -> None:
        """PPR virtualization (29.1.3)."""
        vtpr = self.read(TPR, 1)
        self.write(PPR, vtpr if vtpr >> 4 >= self.svi >> 4 else self.svi & 0xF0)

    def evaluate(self) -> None:
        """Evaluation of pending virtual interrupts (29.2.1)."""
        self.pending = not self._window and self.rvi >> 4 > self.read(PPR, 1) >> 4

    def enter(self) -> None:
        """What VM entry does with virtual-interrupt delivery (26.3.2.5)."""
        self.virtualize_ppr()
        self.evaluate()

    def below_threshold(self) -> bool:
        """Whether VTPR 7:4 is below the TPR threshold."""
        return self.read(TPR, 1) >> 4 < self.threshold & 0xF

    def virtualize_tpr(self) -> bool:
        """TPR virtualization (29.1.2); True for an exit because of the threshold."""
        if not self.delivery:
            return self.below_threshold()
        self.virtualize_ppr()
        self.evaluate()
        return False

    def virtualize_eoi(self) -> int | None:
        """EOI virtualization (29.1.4); the vector if it exits."""
        vector = self.svi
        self._bit(ISR, vector, value=False)
        self.svi = self.highest(ISR)
        self.virtualize_ppr()
        if self._eoi_exits >> vector & 1:
            return vector
        self.evaluate()
        return None

    def virtualize_self_ipi(self, vector: int) -> None:
        """Self-IPI virtualization (29.1.5)."""
        self._bit(IRR, vector, value=True)
        self.rvi = max(self.rvi, vector)
        self.evaluate()

    def request(self, vectors: int) -> None:
        """Merge posted interrupts, a number of 256 bits (29.6, steps 5 to 7)."""
        for number in range(8):
            word = vectors >> 32 * number & 0xFFFF_FFFF
            if word:
                offset = IRR + 16 * number
                self.write(offset, self.read(offset) | word)
        if vectors:
            self.rvi = max(self.rvi, vectors.bit_length() - 1)
        self.evaluate()

    def deliver(self) -> int:
        """Virtual-interrupt delivery (29.2.2): the vector to be delivered through the IDT."""
        vector = self.rvi
        self._bit(ISR, vector, value=True)
        self.svi = vector
        self.write(PPR, vector & 0xF0)
        self._bit(IRR, vector, value=False)
        self.rvi = self.highest(IRR)
        self.pending = False
        return vector

    def reads(self, offset: int, size: int) -> ApicAccess:
        """What a read of the APIC-access page comes to (29.4.2)."""
        if not self.shadow or not _in_register(offset, size):
            return ApicAccess.EXIT
        register = offset & 0xFF0
        known = register in READABLE if self.registers else register == TPR
        return ApicAccess.VIRTUALIZED if known else ApicAccess.EXIT

    def writes(self, offset: int, size: int) -> ApicAccess:
        """What a write to the APIC-access page comes to (29.4.3); the data are not yet stored."""
        if not self.shadow or not _in_register(offset, size):
            return ApicAccess.EXIT
        register = offset & 0xFF0
        if register == TPR:
            return ApicAccess.VIRTUALIZED
        if register in (EOI, ICR_LOW):
            if self.delivery:
                return ApicAccess.VIRTUALIZED
            return ApicAccess.WRITE_EXIT if self.registers else ApicAccess.EXIT
        if register == ICR_HIGH and self.registers:
            return ApicAccess.VIRTUALIZED
        return ApicAccess.WRITE_EXIT if self.registers and register in STORED else ApicAccess.EXIT


def _in_register(offset: int, size: int) -> bool:
    """Whether an access is to the low 4 bytes of a 16-byte register below 400h (29.4.1)."""
    return size <= 4 and offset < REGISTERS_END and (offset & 0xF) + size <= 4


def self_ipi_vector(command: int) -> int | None:
    """The vector of an ICR value that is virtualized as a self-IPI, or None (29.4.3.2)."""
    if command & SELF_IPI_RESERVED or command & 0xC_0000 != SHORTHAND_SELF:
        return None
    vector = command & 0xFF
    return vector if vector >= 16 else None
