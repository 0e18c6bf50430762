"""The iommu-testdev device of QEMU: one write through the remapping, checked behind its back.

Register-compatible: a read of the trigger writes a pattern to the DMA address, reads the expected
physical address directly, and leaves a result code. It has no interrupt, and no reads of its own.
Lengths above 16 MiB are reported as bad, which QEMU does not do.
"""

from __future__ import annotations

from enum import IntEnum

from devices.dma import Memory
from devices.function import Identity, PciFunction
from pagetables.bits import BitRecord, Bits
from pagetables.memory import BusError

IDENTITY = Identity(
    vendor_id=0x1B36,
    device_id=0x0005,
    class_code=0x00FF00,
    subsystem_vendor_id=0x1AF4,
    subsystem_id=0x1100,
)
BAR_SIZE = 0x1000
PATTERN = bytes.fromhex("78563412")
MAX_LENGTH = 1 << 24


class Register(IntEnum):
    """Offsets in BAR0."""

    TRIGGER = 0x00
    ADDRESS_LOW = 0x04
    ADDRESS_HIGH = 0x08
    LENGTH = 0x0C
    RESULT = 0x10
    DOORBELL = 0x14
    ATTRIBUTES = 0x18
    EXPECTED_LOW = 0x1C
    EXPECTED_HIGH = 0x20


class Result(IntEnum):
    """Values of the result register."""

    SUCCESS = 0
    BAD_LENGTH = 0xDEAD_0001
    WRITE_FAILED = 0xDEAD_0002
    READ_FAILED = 0xDEAD_0003
    MISMATCH = 0xDEAD_0004
    NOT_ARMED = 0xDEAD_0005
    BAD_ATTRIBUTES = 0xDEAD_0006
    ARMED = 0xFFFF_FFFE
    IDLE = 0xFFFF_FFFF


class Attributes(BitRecord, width=32):
    """The attributes register; without a meaning on this architecture but its consistency."""

    secure = Bits(0)
    space = Bits(2, 1)  # 0 secure, 1 non-secure, others not checked
    space_valid = Bits(3)

    @property
    def consistent(self) -> bool:
        """Whether ``secure`` agrees with a space that is valid and known."""
        return not self.space_valid or self.space > 1 or self.secure == (self.space == 0)


class IommuTestdev(PciFunction):
    """The test device; ``memory`` is what it reads without remapping."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(IDENTITY, config_size=256)
        self.memory = memory
        self.add_bar(0, BAR_SIZE).place(0, BAR_SIZE, self)
        self.at_reset.append(self._power_on)
        self._power_on()

    def read(self, offset: int, size: int) -> int:
        """A read in BAR0, 4 bytes; others read all ones. Reading the trigger runs the DMA."""
        if size != 4:
            return (1 << 8 * size) - 1
        if offset == Register.TRIGGER:
            self._registers[Register.RESULT] = self._trigger()
            return 0
        return self._registers.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """A write in BAR0, 4 bytes; others are dropped."""
        if size != 4:
            return
        if offset == Register.DOORBELL:
            self._armed = bool(value & 1)
            result = Result.ARMED if self._armed else Result.IDLE
            self._registers[Register.RESULT] = result
        elif offset in self._registers:
            self._registers[offset] = value

    @property
    def result(self) -> int:
        """The result register, a :class:`Result` unless software wrote it."""
        return self._registers[Register.RESULT]

    def _power_on(self) -> None:
        self._armed = False
        self._registers: dict[int, int] = {
            Register.ADDRESS_LOW: 0,
            Register.ADDRESS_HIGH: 0,
            Register.LENGTH: 0,
            Register.RESULT: Result.IDLE,
            Register.ATTRIBUTES: Attributes.of(space=1),
            Register.EXPECTED_LOW: 0,
            Register.EXPECTED_HIGH: 0,
        }

    def _trigger(self) -> Result:
        if not self._armed:
            return Result.NOT_ARMED
        self._armed = False
        length = self._registers[Register.LENGTH]
        if not 0 < length <= MAX_LENGTH:
            return Result.BAD_LENGTH
        if not Attributes(self._registers[Register.ATTRIBUTES]).consistent:
            return Result.BAD_ATTRIBUTES
        pattern = (PATTERN * (length // 4 + 1))[:length]
        if not self.dma.write(self._wide(Register.ADDRESS_LOW), pattern).ok:
            return Result.WRITE_FAILED
        try:
            found = self.memory.read(self._wide(Register.EXPECTED_LOW), length)
        except BusError:
            return Result.READ_FAILED
        return Result.SUCCESS if found == pattern else Result.MISMATCH

    def _wide(self, low: Register) -> int:
        """The 64-bit value of a pair of registers."""
        return self._registers[low] | self._registers[low + 4] << 32
