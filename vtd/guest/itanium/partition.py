"""What each virtual processor gets of a machine: regions, keys, memory, time.

Region identifiers and protection keys are cut into blocks of 2^18: block 0 is the monitor's, the
others are a guest's each, so two guests with the same addresses, identifiers and keys never meet in
the translations of the logical processor that they share.
"""

from __future__ import annotations

from typing import NamedTuple

from vtd.guest.itanium.registers import KeyRegister, RegionRegister

BLOCK_BITS = 18


class Partition(NamedTuple):
    """The part of one virtual processor."""

    block: int
    """Of region identifiers and keys, from 1 on."""
    memory: int
    """Machine address of its physical address 0."""
    size: int
    itc_offset: int = 0
    """What it adds to the interval timer counter."""

    @property
    def rids(self) -> range:
        """Region identifiers of the machine."""
        return range(self.block << BLOCK_BITS, self.block + 1 << BLOCK_BITS)

    def region(self, value: int) -> RegionRegister | None:
        """The machine's region register for the guest's; None if its identifier is too large."""
        register = RegionRegister(value & ~RegionRegister.RESERVED)
        if value & RegionRegister.RESERVED or register.rid >> BLOCK_BITS:
            return None
        return register.replace(rid=self.rids.start | register.rid)

    def key(self, value: int) -> KeyRegister | None:
        """The machine's protection key register for the guest's."""
        register = KeyRegister(value & ~KeyRegister.RESERVED)
        if value & KeyRegister.RESERVED or register.key >> BLOCK_BITS:
            return None
        return register.replace(key=self.rids.start | register.key)

    def machine(self, address: int) -> int | None:
        """The machine address of a physical address of the guest; None if it has none."""
        return self.memory + address if address < self.size else None
