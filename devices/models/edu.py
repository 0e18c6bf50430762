"""The edu device: the smallest useful DMA device, register-compatible with the one of QEMU.

A transfer takes 100 ms by the function's clock. What makes QEMU's device abort is recorded in
``errors`` instead. The device does not look at how a transfer ends: a refused read leaves all ones
in its buffer, a refused write is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from devices.clock import Alarm
from devices.function import Identity, PciFunction
from pagetables.bits import BitRecord, Bits

IDENTITY = Identity(
    vendor_id=0x1234,
    device_id=0x11E8,
    class_code=0x00FF00,
    revision=0x10,
    subsystem_vendor_id=0x1AF4,
    subsystem_id=0x1100,
    interrupt_pin=1,
)
BAR_SIZE = 0x10_0000
BUFFER_START = 0x4_0000
BUFFER_SIZE = 0x1000
DMA_NANOSECONDS = 100_000_000
FACTORIAL_INTERRUPT = 0x001
DMA_INTERRUPT = 0x100

_U32 = 0xFFFF_FFFF
_FACTORIAL_ZERO_FROM = 34
"""34! is a multiple of 2^32, and so is every factorial after it."""


class EduRegister(IntEnum):
    """Offsets in BAR0."""

    IDENTIFICATION = 0x00
    LIVENESS = 0x04
    FACTORIAL = 0x08
    STATUS = 0x20
    INTERRUPT_STATUS = 0x24
    RAISE = 0x60
    ACKNOWLEDGE = 0x64
    DMA_SOURCE = 0x80
    DMA_DESTINATION = 0x88
    DMA_COUNT = 0x90
    DMA_COMMAND = 0x98


class DmaCommand(BitRecord, width=64):
    """The DMA command register."""

    run = Bits(0)
    to_memory = Bits(1)  # 0: memory to device
    interrupt = Bits(2)


_RUN = DmaCommand.run.mask


@dataclass(frozen=True, slots=True)
class EduError:
    """A transfer that does not fit the device's buffer."""

    device_address: int
    count: int


class Edu(PciFunction):
    """The edu device; ``dma_mask`` cuts the bus addresses it can send (28 bits by default).

    ``transfer_time`` is how many nanoseconds a transfer takes; with 0 it ends with its command.
    """

    def __init__(self, dma_mask: int = (1 << 28) - 1, transfer_time: int = DMA_NANOSECONDS) -> None:
        if transfer_time < 0:
            raise ValueError(f"transfer_time: {transfer_time} is negative")
        super().__init__(IDENTITY, config_size=256)
        self.dma_mask = dma_mask
        self.transfer_time = transfer_time
        self.buffer = bytearray(BUFFER_SIZE)
        self.errors: list[EduError] = []
        self._transfer: Alarm | None = None
        self._msi = self.add_msi(offset=0x40)
        self.add_bar(0, BAR_SIZE).place(0, BAR_SIZE, self)
        self.at_reset.append(self._power_on)
        self._power_on()

    def read(self, offset: int, size: int) -> int:
        """A read in BAR0: 4 bytes, from 80h on also 8; others read all ones."""
        ones = (1 << 8 * size) - 1
        if not _allowed(offset, size):
            return ones
        if offset in self._dma:
            return self._dma[offset] & ones
        registers: dict[int, int] = {
            EduRegister.IDENTIFICATION: 0x0100_00ED,
            EduRegister.LIVENESS: ~self._liveness & _U32,
            EduRegister.FACTORIAL: self._factorial,
            EduRegister.STATUS: self._status,
            EduRegister.INTERRUPT_STATUS: self.interrupt_status,
        }
        return registers.get(offset, ones) & ones

    def write(self, offset: int, size: int, value: int) -> None:
        """A write in BAR0: 4 bytes, from 80h on also 8; others vanish."""
        if not _allowed(offset, size):
            return
        if offset in self._dma:
            if offset == EduRegister.DMA_COMMAND:
                self._command(DmaCommand(value))
            elif not self.busy:
                self._dma[offset] = value
        elif offset == EduRegister.LIVENESS:
            self._liveness = value
        elif offset == EduRegister.FACTORIAL:
            self._compute(value)
        elif offset == EduRegister.STATUS:
            self._status = value & 0x80
        elif offset == EduRegister.RAISE:
            self._raise(value)
        elif offset == EduRegister.ACKNOWLEDGE:
            self.interrupt_status &= ~value
            if not self.interrupt_status and not self._msi.enabled:
                self.set_intx(False)

    @property
    def busy(self) -> bool:
        """Whether a transfer is on its way."""
        return bool(self._dma[EduRegister.DMA_COMMAND] & _RUN)

    def _power_on(self) -> None:
        self.interrupt_status = 0
        self._liveness = 0
        self._factorial = 0
        self._status = 0
        if self._transfer is not None:
            self._transfer.cancel()
            self._transfer = None
        self._dma: dict[int, int] = dict.fromkeys(
            (
                EduRegister.DMA_SOURCE,
                EduRegister.DMA_DESTINATION,
                EduRegister.DMA_COUNT,
                EduRegister.DMA_COMMAND,
            ),
            0,
        )

    def _compute(self, number: int) -> None:
        product = 0 if number >= _FACTORIAL_ZERO_FROM else math.factorial(number)
        self._factorial = product & _U32
        if self._status & 0x80:
            self._raise(FACTORIAL_INTERRUPT)

    def _command(self, command: DmaCommand) -> None:
        if command.run and not self.busy:
            self._dma[EduRegister.DMA_COMMAND] = command
            if self.transfer_time:
                self._transfer = self.clock.after(self.transfer_time, self._finish)
            else:
                self._finish()

    def _finish(self) -> None:
        source, destination, count, number = self._dma.values()
        command = DmaCommand(number)
        device_address = source if command.to_memory else destination
        start = device_address - BUFFER_START
        if start < 0 or start + count > BUFFER_SIZE:
            self.errors.append(EduError(device_address, count))
        elif command.to_memory:
            data = bytes(self.buffer[start : start + count])
            self.dma.write(destination & self.dma_mask, data)
        else:
            completion = self.dma.read(source & self.dma_mask, count)
            data = completion.data if completion.ok else b"\xff" * count
            self.buffer[start : start + count] = data
        self._dma[EduRegister.DMA_COMMAND] = command & ~_RUN
        if command.interrupt:
            self._raise(DMA_INTERRUPT)

    def _raise(self, bits: int) -> None:
        self.interrupt_status |= bits
        if not self.interrupt_status:
            return
        if self._msi.enabled:
            self._msi.notify(0)
        else:
            self.set_intx(True)


def _allowed(offset: int, size: int) -> bool:
    return size == 4 or (size == 8 and offset >= EduRegister.DMA_SOURCE)
