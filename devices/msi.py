"""MSI and MSI-X: the capability, mask and pending bits, and the message as a DMA write.

PCI Express Base Specification, Message Signaled Interrupts. A message is one 4-byte write without
PASID through the function's own port; where its address leads is decided behind that port. Steering
tags and TLP processing hints are left out.
"""

from __future__ import annotations

from collections.abc import Callable

from devices.capabilities import CapabilityId
from devices.config_space import RO, ConfigRegister, ConfigSpace
from pagetables.bits import BitRecord, Bits

SendMessage = Callable[[int, int], None]
"""Sends the 4-byte message: address, data."""
Signal = Callable[[int], None]
"""Signals a vector by other means than a message, as the host of a virtual machine does."""

MSIX_ENTRY_SIZE = 16


class MsiControl(BitRecord, width=16):
    """MSI message control, +2."""

    enable = Bits(0)
    capable = Bits(3, 1, access=RO)  # log2 of the vectors the function asks for
    enabled = Bits(6, 4)  # log2 of the vectors software allows
    address64 = Bits(7, access=RO)
    maskable = Bits(8, access=RO)


class MessageAddress(BitRecord, width=64):
    """Message address; the upper half exists only with 64-bit addressing."""

    address = Bits(63, 2, shift=2)


class MessageAddress32(BitRecord, width=32):
    """Message address of a function limited to 32 bits."""

    address = Bits(31, 2, shift=2)


class MessageData(BitRecord, width=16):
    """Message data; the function replaces the low bits by the vector number."""

    data = Bits(15, 0)


class MaskBits(BitRecord, width=32):
    """One mask bit per vector."""

    mask = Bits(31, 0)


class PendingBits(BitRecord, width=32):
    """One pending bit per vector."""

    pending = Bits(31, 0, access=RO)


class MsixControl(BitRecord, width=16):
    """MSI-X message control, +2."""

    table_size = Bits(10, 0, access=RO)  # vectors minus one
    function_mask = Bits(14)
    enable = Bits(15)


class MsixLocation(BitRecord, width=32):
    """Where the table (+4) or the pending bits (+8) are."""

    bir = Bits(2, 0, access=RO)
    offset = Bits(31, 3, shift=3, access=RO)


class MsixEntry(BitRecord, width=128):
    """One entry of the MSI-X table."""

    address = Bits(63, 2, shift=2)
    data = Bits(95, 64)
    mask = Bits(96)


_MASKED = MsixEntry.of(mask=1)


class Msi:
    """The MSI capability of a function, with 1 to 32 vectors."""

    def __init__(
        self,
        config: ConfigSpace,
        send: SendMessage,
        *,
        vectors: int = 1,
        address64: bool = True,
        maskable: bool = False,
        offset: int | None = None,
    ) -> None:
        if vectors not in {1, 2, 4, 8, 16, 32}:
            raise ValueError(f"vectors: {vectors} is not one of 1, 2, 4, 8, 16, 32")
        self._send = send
        self.host: Signal | None = None
        """Who signals the vectors instead of the function, whatever software wrote here."""
        data = 0xC if address64 else 8
        size = data + 2 + (10 if maskable else 0)
        at = config.add_capability(CapabilityId.MSI, size, offset)
        capable = vectors.bit_length() - 1
        self.control = config.add(
            at + 2, MsiControl.of(capable=capable, address64=address64, maskable=maskable)
        )
        self.address: ConfigRegister[MessageAddress] | ConfigRegister[MessageAddress32] = (
            config.add(at + 4, MessageAddress())
            if address64
            else config.add(at + 4, MessageAddress32())
        )
        self.data = config.add(at + data, MessageData())
        self._mask = ConfigRegister(at + data + 4, MaskBits())
        self._pending = ConfigRegister(at + data + 8, PendingBits())
        if maskable:
            self._mask = config.add(at + data + 4, MaskBits(), writable=(1 << vectors) - 1)
            self._mask.on_write = self._unmask
            self._pending = config.add(at + data + 8, PendingBits())

    @property
    def enabled(self) -> bool:
        """Whether software, or the host, turned MSI on."""
        return self.host is not None or bool(self.control.value.enable)

    @property
    def vectors(self) -> int:
        """Vectors in use: what software allows, at most what the function can have."""
        control = self.control.value
        if self.host is not None:
            return int(1 << control.capable)
        return int(1 << min(control.enabled, control.capable))

    def notify(self, vector: int) -> None:
        """Send the message of a vector, or note it as pending while it is masked.

        Vectors that software did not allow share the ones it did. Nothing happens while disabled.
        """
        if not self.enabled:
            return
        vector %= self.vectors
        if self.host is not None:
            self.host(vector)
            return
        if self._mask.value >> vector & 1:
            self._pending.value = PendingBits(self._pending.value | 1 << vector)
            return
        data = self.data.value & ~(self.vectors - 1) | vector
        self._send(self.address.value.address, data)

    def _unmask(self, before: MaskBits, after: MaskBits) -> MaskBits:
        self._mask.value = after
        released = self._pending.value & ~after
        self._pending.value = PendingBits(self._pending.value & after)
        for vector in range(self.vectors):
            if released >> vector & 1:
                self.notify(vector)
        return after


class MsixTable:
    """The MSI-X table as it lies in a BAR."""

    def __init__(self, msix: Msix) -> None:
        self._msix = msix

    def read(self, offset: int, size: int) -> int:
        """4 or 8 bytes, aligned; anything else, or outside the table, reads all ones."""
        index, at = divmod(offset, MSIX_ENTRY_SIZE)
        if not _msix_access(offset, size) or index >= len(self._msix.entries):
            return (1 << 8 * size) - 1
        return self._msix.entries[index] >> 8 * at & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """4 or 8 bytes, aligned; anything else, or outside the table, is dropped."""
        index, at = divmod(offset, MSIX_ENTRY_SIZE)
        if not _msix_access(offset, size) or index >= len(self._msix.entries):
            return
        enable = (1 << 8 * size) - 1 << 8 * at & ~MsixEntry.RESERVED
        before = self._msix.entries[index]
        self._msix.entries[index] = MsixEntry(before & ~enable | value << 8 * at & enable)
        self._msix.release()


class MsixPendingBits:
    """The MSI-X pending bit array as it lies in a BAR; writes are dropped."""

    def __init__(self, msix: Msix) -> None:
        self._msix = msix

    def read(self, offset: int, size: int) -> int:
        """4 or 8 bytes, aligned; anything else reads all ones."""
        if not _msix_access(offset, size):
            return (1 << 8 * size) - 1
        return self._msix.pending >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Pending bits belong to hardware."""


class Msix:
    """The MSI-X capability of a function, with 1 to 2048 vectors."""

    def __init__(
        self,
        config: ConfigSpace,
        send: SendMessage,
        *,
        vectors: int,
        table: tuple[int, int],
        pending: tuple[int, int],
        offset: int | None = None,
    ) -> None:
        """``table`` and ``pending`` are BAR number and offset of the two structures."""
        if not 1 <= vectors <= 2048:
            raise ValueError(f"vectors: {vectors} is not in 1..2048")
        self._send = send
        self.host: Signal | None = None
        """Who signals the vectors instead of the function, whatever software wrote here."""
        at = config.add_capability(CapabilityId.MSIX, 12, offset)
        self.control = config.add(at + 2, MsixControl.of(table_size=vectors - 1))
        config.add(at + 4, MsixLocation.of(bir=table[0], offset=table[1]))
        config.add(at + 8, MsixLocation.of(bir=pending[0], offset=pending[1]))
        self.control.on_write = self._controlled
        self.when_controlled: list[Callable[[], None]] = []
        """Called when software has switched it on or off: the pin is used while it is off."""
        self.entries = [_MASKED] * vectors
        self.pending = 0
        self.table = MsixTable(self)
        self.pending_bits = MsixPendingBits(self)

    @property
    def enabled(self) -> bool:
        """Whether software, or the host, turned MSI-X on."""
        return self.host is not None or bool(self.control.value.enable)

    def notify(self, vector: int) -> None:
        """Send the message of a vector, or note it as pending while it is masked.

        Nothing happens while MSI-X is disabled or for a vector that does not exist.
        """
        if not self.enabled or not 0 <= vector < len(self.entries):
            return
        entry = self.entries[vector]
        if self.host is not None:
            self.host(vector)
        elif entry.mask or self.control.value.function_mask:
            self.pending |= 1 << vector
        else:
            self._send(entry.address, entry.data)

    def release(self) -> None:
        """Send every pending message that is not masked any more."""
        control = self.control.value
        if not self.pending or not control.enable or control.function_mask:
            return
        for vector, entry in enumerate(self.entries):
            if self.pending >> vector & 1 and not entry.mask:
                self.pending &= ~(1 << vector)
                self._send(entry.address, entry.data)

    def reset(self) -> None:
        """Mask every vector and forget what is pending."""
        self.entries = [_MASKED] * len(self.entries)
        self.pending = 0

    def _controlled(self, before: MsixControl, after: MsixControl) -> MsixControl:
        self.control.value = after
        self.release()
        for react in self.when_controlled:
            react()
        return after


def _msix_access(offset: int, size: int) -> bool:
    return size in {4, 8} and offset % size == 0
