"""The NVM behind EERD and EECD, and its image: 256 words of 16 bits with a checksum."""

from __future__ import annotations

from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import EECD, EECD_GRANT, EECD_REQUEST, EERD

WORDS = 256
CHECKSUM_WORD = 0x3F
CHECKSUM = 0xBABA
"""What the words 00h to 3Fh add up to."""
BLANK = 0xFFFF

_DONE = 1 << 1


def nvm_image(mac: bytes, *, vendor_id: int = 0x8086, device_id: int = 0x10C9) -> tuple[int, ...]:
    """The words of a board with this address: 82576 with copper PHY, no alternate address."""
    words = [BLANK] * WORDS
    for index in range(3):
        words[index] = int.from_bytes(mac[2 * index : 2 * index + 2], "little")
    words[0x03] = 0x0000  # compatibility
    words[0x04] = BLANK  # LEDs as after reset
    words[0x05] = 0x1000  # version of the image, 1.0
    words[0x08], words[0x09] = 0x1234, 0x0001  # board number, as 4 and 2 digits
    words[0x0B], words[0x0C] = 0x0000, vendor_id  # subsystem
    words[0x0D], words[0x0E] = device_id, vendor_id
    words[0x0F] = 0x3000  # initialization control 2: pause in both directions
    words[0x14] = words[0x24] = 0x0000  # initialization control 3: no wake-up
    words[0x37] = BLANK  # no alternate address
    words[0x42] = words[0x43] = 0x0000
    words[CHECKSUM_WORD] = 0
    words[CHECKSUM_WORD] = (CHECKSUM - sum(words[: CHECKSUM_WORD + 1])) & 0xFFFF
    return tuple(words)


class Nvm:
    """Answers EERD at once; an address outside the image never gets done."""

    def __init__(self, bank: RegisterBank, words: tuple[int, ...]) -> None:
        self.words = words
        self._bank = bank
        bank.on_write[EERD] = self._read
        bank.on_write[EECD] = self._control

    @property
    def mac(self) -> bytes:
        """The address of the port, in words 0 to 2."""
        return b"".join(word.to_bytes(2, "little") for word in self.words[:3])

    def _read(self, _: int, value: int) -> None:
        word = value >> 2 & 0x3FFF
        if value & 1 and word < len(self.words):
            self._bank.values[EERD] = self.words[word] << 16 | value & 0xFFFC | _DONE
        else:
            self._bank.values[EERD] = value & 0xFFFD

    def _control(self, _: int, value: int) -> None:
        """Software that asks for the serial interface gets it; there is nobody else."""
        granted = EECD_GRANT if value & EECD_REQUEST else 0
        self._bank.values[EECD] = self._bank.values[EECD] & ~EECD_GRANT | granted
