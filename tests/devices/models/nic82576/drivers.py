"""Small drivers of the 82576, in the order in which igb and igbvf do things.

They know the controller by register offsets and bit numbers alone, and import nothing of the model.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from devices.function import Bar, PciFunction
from pagetables.memory import PhysicalMemory

ENTRIES = 16
BUFFER = 2048
LINK_UP = 1 << 1


@dataclass
class Received:
    """A packet as a driver finds it in its ring."""

    data: bytes
    header: bytes
    status: int
    vlan: int
    rss_type: int
    rss_hash: int


class Rings:
    """A receive and a transmit ring of 16 descriptors each, at ``base``, for one queue."""

    def __init__(
        self, bar: Bar, ram: PhysicalMemory, base: int, receive: int, transmit: int, shift: int = 0
    ) -> None:
        """``receive`` and ``transmit`` are where the registers of the queue are."""
        self.bar, self.ram = bar, ram
        self.rx, self.tx = receive, transmit
        self.rx_ring, self.tx_ring = base, base + 0x800
        self.rx_buffers, self.tx_buffers = base + 0x1000, base + 0xA000
        self.shift = shift  # what has to be added to get bus addresses
        self.next = self.tail = self.reported = 0

    def start(self, srrctl: int = 0x0200_0402) -> None:
        bar = self.bar
        for at, ring in ((self.tx, self.tx_ring), (self.rx, self.rx_ring)):
            bar.write(at + 0x28, 4, 0)
            bar.write(at + 0x08, 4, 16 * ENTRIES)
            bar.write(at + 0x00, 4, ring + self.shift & 0xFFFF_FFFF)
            bar.write(at + 0x04, 4, ring + self.shift >> 32)
            bar.write(at + 0x10, 4, 0)
            bar.write(at + 0x18, 4, 0)
        bar.write(self.tx + 0x28, 4, 1 << 25 | 0x10108)
        bar.write(self.rx + 0x0C, 4, srrctl)
        bar.write(self.rx + 0x28, 4, 1 << 25 | 0x10108)
        for index in range(ENTRIES):
            self.post(index)
        bar.write(self.rx + 0x18, 4, ENTRIES - 1)

    def post(self, index: int) -> None:
        packet = self.rx_buffers + BUFFER * index + self.shift
        header = packet + BUFFER // 2
        self.ram.write(self.rx_ring + 16 * index, struct.pack("<QQ", packet, header))

    def descriptor(self, low: int, high: int) -> None:
        """Put any descriptor into the transmit ring, without telling."""
        self.ram.write(self.tx_ring + 16 * self.tail, struct.pack("<QQ", low, high))
        self.tail = (self.tail + 1) % ENTRIES

    def send(self, frame: bytes, *, command: int = 0, options: int = 0, parts: int = 1) -> int:
        """Send a frame with an advanced descriptor a part; the index of the last."""
        buffer = self.tx_buffers
        self.ram.write(buffer, frame)
        size = -(-len(frame) // parts)
        for at in range(0, len(frame), size):
            piece = min(size, len(frame) - at)
            last = at + piece == len(frame)
            flags = 0x2230_0000 | command | (0x0900_0000 if last else 0)
            high = flags | piece | (len(frame) << 14 | options) << 32
            self.descriptor(buffer + at + self.shift, high)
        self.ring_bell()
        return (self.tail - 1) % ENTRIES

    def ring_bell(self) -> None:
        self.bar.write(self.tx + 0x18, 4, self.tail)

    def done(self, index: int) -> bool:
        return bool(self.ram.read(self.tx_ring + 16 * index + 12, 1)[0] & 1)

    def receive(self) -> Received | None:
        """The next packet, from as many descriptors as it takes; they are posted again."""
        data = header = b""
        while True:
            raw = self.ram.read(self.rx_ring + 16 * self.next, 16)
            info, split, rss_hash, status, length, vlan = struct.unpack("<HHIIHH", raw)
            if not status & 1:
                return None
            at = self.rx_buffers + BUFFER * self.next
            data += self.ram.read(at, length)
            header += self.ram.read(at + BUFFER // 2, split >> 5 & 0x3FF)
            self.post(self.next)
            self.bar.write(self.rx + 0x18, 4, self.next)
            self.next = (self.next + 1) % ENTRIES
            if status & 2:
                return Received(data, header, status, vlan, info & 15, rss_hash)


class MiniIgb:
    """The physical function's driver: ``probe``, ``open``, then its rings of queue ``queue``."""

    def __init__(
        self, nic: PciFunction, ram: PhysicalMemory, base: int = 0x1_0000, shift: int = 0
    ) -> None:
        self.nic, self.bar, self.ram = nic, nic.bars[0], ram
        self.base, self.shift = base, shift
        self.mac = b""

    def read(self, offset: int) -> int:
        return self.bar.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.bar.write(offset, 4, value)

    def set(self, offset: int, bits: int) -> None:
        self.write(offset, self.read(offset) | bits)

    def acquire(self, mask: int) -> None:
        """The semaphores, then a bit of SW_FW_SYNC."""
        assert not self.read(0x5B50) & 1
        self.write(0x5B50, self.read(0x5B50) | 2)
        assert self.read(0x5B50) & 2
        assert not self.read(0x5B5C) & (mask | mask << 16)
        self.set(0x5B5C, mask)
        self.write(0x5B50, 0)

    def release(self, mask: int) -> None:
        assert not self.read(0x5B50) & 1
        self.write(0x5B5C, self.read(0x5B5C) & ~mask)
        self.write(0x5B50, 0)

    def nvm(self, word: int) -> int:
        self.write(0x0014, word << 2 | 1)
        answer = self.read(0x0014)
        assert answer & 2
        return answer >> 16

    def phy_read(self, register: int) -> int:
        self.acquire(2)
        self.write(0x0020, register << 16 | 1 << 21 | 1 << 27)
        answer = self.read(0x0020)
        assert answer & 1 << 28
        assert not answer & 1 << 30
        self.release(2)
        return answer & 0xFFFF

    def phy_write(self, register: int, value: int) -> None:
        self.acquire(2)
        self.write(0x0020, value | register << 16 | 1 << 21 | 1 << 26)
        assert self.read(0x0020) & 1 << 28
        self.release(2)

    def reset(self) -> None:
        self.set(0x0000, 1 << 2)
        assert not self.read(0x0008) & 1 << 19
        self.write(0x00D8, 0xFFFF_FFFF)
        self.write(0x0100, 0)
        self.write(0x0400, 8)
        self.set(0x0000, 1 << 26)
        assert not self.read(0x0000) & 1 << 26
        assert self.read(0x0008) & 1 << 19
        assert self.read(0x0010) & 1 << 9

    def probe(self) -> None:
        """What igb insists on before it has a network device."""
        self.nic.config.write(4, 2, 6)
        assert self.read(0x0018) >> 22 & 3 == 0
        assert not self.read(0x5B54) & 0xE
        assert self.read(0x0010) >> 11 & 15 == 2
        identification = self.phy_read(2) << 16 | self.phy_read(3)
        assert identification & 0xFFFF_FFF0 == 0x02A8_0390
        self.reset()
        assert sum(self.nvm(word) for word in range(0x40)) & 0xFFFF == 0xBABA
        high = self.read(0x5404)
        assert high & 1 << 31
        self.mac = self.read(0x5400).to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")
        assert self.mac == b"".join(self.nvm(word).to_bytes(2, "little") for word in range(3))
        assert self.read(0x2404) & 0x7F == 0x40
        self.set(0x0000, 1 << 31)
        self.write(0x0000, self.read(0x0000) & ~(1 << 31))
        assert self.read(0x1010) & 1 << 18

    def open(self, *, queue: int = 0, vmdq: bool = False, srrctl: int = 0x0200_0402) -> Rings:
        """The port with one queue of each direction on vector 1, everything else on vector 0."""
        self.set(0x0000, 1 << 6)
        self.set(0x0018, 1 << 28)
        for word in range(10):
            self.write(0x5C80 + 4 * word, 0x0101_0101 * word)
        self.write(0x5000, 0x2B00)
        self.write(0x5818, 0x003F_0000 | (3 if vmdq else 2))
        self.write(0x0400, self.read(0x0400) | 1 << 1)
        self.write(0x0100, 1 << 1 | 1 << 5 | 1 << 15 | 1 << 26)
        rings = Rings(
            self.bar,
            self.ram,
            self.base,
            0xC000 + 0x40 * queue,
            0xE000 + 0x40 * queue,
            self.shift,
        )
        rings.start(srrctl)
        self.write(0x1514, 0xC000_0011)
        self.write(0x1740, 0x8000)
        shift = 16 * (queue >> 3)
        self.set(0x1700 + 4 * (queue & 7), 0x8181 << shift)
        self.enable_interrupts()
        return rings

    def enable_interrupts(self) -> None:
        self.read(0x00C0)
        self.set(0x152C, 3)
        self.set(0x1530, 3)
        self.write(0x1524, 3)
        self.write(0x00D0, 0x5000_0104)

    def vectors(self, count: int = 10) -> None:
        """Vector v is a write of 0x40 + v to FEE00000h."""
        enable_msix(self.nic, self.nic.bars[3], count)

    def enable_vfs(self, count: int, *, macs: bool = True) -> None:
        """SR-IOV on, pool ``count`` the physical function's."""
        self.nic.config.write(0x170, 2, count)
        self.nic.config.write(0x168, 2, 9)
        self.write(0x5818, 3)
        self.write(0x581C, count << 7 | 1 << 30)
        self.write(0x0C84, 0xFF)
        for pool in range(8):
            self.write(0x5AD0 + 4 * pool, 0x8800_2600 | 1 << 24)
        self.write(0x5404, self.read(0x5404) & ~(0xFF << 18) | 1 << 18 + count)
        self.set(0x0018, 1 << 14)


def enable_msix(function: PciFunction, bar: Bar, count: int, base: int = 0x40) -> None:
    for vector in range(count):
        for at, value in ((0, 0xFEE0_0000), (4, 0), (8, base + vector), (12, 0)):
            bar.write(16 * vector + at, 4, value)
    function.config.write(0x72, 2, 0x8000)


class PfAgent:
    """The physical function's side of the mailbox: what igb answers to a virtual function."""

    def __init__(self, driver: MiniIgb) -> None:
        self.driver = driver
        self.macs: dict[int, bytes] = {}
        self.ready: set[int] = set()
        self.seen: list[tuple[int, int]] = []

    def service(self) -> None:
        """Resets first, then requests, then acknowledgements, each acknowledged by its bit."""
        driver = self.driver
        for vf in range(8):
            if driver.read(0x0C88) >> vf & 1:
                driver.write(0x0C88, 1 << vf)
                self.ready.discard(vf)
            if driver.read(0x0C80) >> vf & 1:
                driver.write(0x0C80, 1 << vf)
                self.answer(vf)
            if driver.read(0x0C80) >> 16 + vf & 1:
                driver.write(0x0C80, 0x1_0000 << vf)

    def answer(self, vf: int) -> None:
        driver, memory = self.driver, 0x0800 + 64 * vf
        mailbox = 0x0C00 + 4 * vf
        driver.write(mailbox, 8)
        assert driver.read(mailbox) & 8
        words = [driver.read(memory + 4 * word) for word in range(16)]
        driver.write(mailbox, 2)
        self.seen.append((vf, words[0]))
        reply = [words[0] | 0x4000_0000]
        kind = words[0] & 0xFFFF
        if kind == 1:
            reply = self.reset(vf)
        elif vf in self.ready:
            reply = [words[0] | (0xA000_0000 if self.perform(vf, kind, words) else 0x6000_0000)]
        driver.write(mailbox, 8)
        for number, word in enumerate(reply):
            driver.write(memory + 4 * number, word)
        driver.write(mailbox, 1)

    def reset(self, vf: int) -> list[int]:
        driver = self.driver
        driver.set(0x0C8C, 1 << vf)
        driver.set(0x0C90, 1 << vf)
        self.ready.add(vf)
        mac = self.macs.get(vf)
        if mac is None:
            return [0x4000_0001]
        self.set_mac(vf, mac)
        return [
            0x8000_0001,
            int.from_bytes(mac[:4], "little"),
            int.from_bytes(mac[4:], "little"),
        ]

    def set_mac(self, vf: int, mac: bytes) -> None:
        """Addresses of virtual functions are filled in from the end of the table."""
        at = 0x54E0 + 8 * (7 - vf)
        self.driver.write(at, int.from_bytes(mac[:4], "little"))
        self.driver.write(at + 4, int.from_bytes(mac[4:], "little") | 1 << 31 | 1 << 18 + vf)

    def perform(self, vf: int, kind: int, words: list[int]) -> bool:
        driver = self.driver
        if kind == 2:
            self.set_mac(vf, struct.pack("<II", words[1], words[2])[:6])
        elif kind == 4:
            self.vlan(vf, words[1] & 0xFFF, bool(words[0] >> 16 & 1))
        elif kind == 5:
            at = 0x5AD0 + 4 * vf
            driver.write(at, driver.read(at) & ~0x3FFF | words[1] & 0x3FFF | 1 << 16)
        elif kind == 6:
            driver.set(0x5AD0 + 4 * vf, 1 << 28)
        else:
            return False
        return True

    def vlan(self, vf: int, vlan: int, add: bool) -> None:
        driver = self.driver
        at = 0x5D00 + 4 * (1 + vf)
        driver.write(at, 1 << 31 | 1 << 12 + vf | vlan if add else 0)
        table = 0x5600 + 4 * (vlan >> 5)
        bit = 1 << (vlan & 31)
        driver.write(table, driver.read(table) | bit if add else driver.read(table) & ~bit)


class MiniIgbvf:
    """A virtual function's driver; ``agent`` is who services the other end of the mailbox."""

    def __init__(
        self,
        function: PciFunction,
        ram: PhysicalMemory,
        base: int,
        agent: PfAgent | None,
        shift: int = 0,
    ) -> None:
        self.function, self.bar, self.ram, self.base = function, function.bars[0], ram, base
        self.agent, self.shift = agent, shift
        self.mac = b""

    def read(self, offset: int) -> int:
        return self.bar.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.bar.write(offset, 4, value)

    def ask(self, *words: int) -> list[int]:
        """A message to the physical function, and its answer."""
        self.write(0x0C40, 4)
        assert self.read(0x0C40) & 4
        for number, word in enumerate(words):
            self.write(0x0800 + 4 * number, word)
        self.write(0x0C40, 1)
        assert self.agent is not None
        self.agent.service()
        news = self.read(0x0C40)
        assert news & 1 << 5, "no acknowledgement"
        assert news & 1 << 4, "no answer"
        self.write(0x0C40, 4)
        answer = [self.read(0x0800 + 4 * number) for number in range(3)]
        self.write(0x0C40, 2)
        self.agent.service()
        return answer

    def reset(self) -> bool:
        """Whether the physical function answered, and with an address."""
        self.function.config.write(4, 2, 4)
        self.write(0x0000, 1 << 26)
        for _ in range(200):
            if not self.read(0x0C40) & (1 << 6 | 1 << 7):
                break
        else:
            return False
        answer = self.ask(1)
        if answer[0] != 0x8000_0001:
            return False
        self.mac = struct.pack("<II", answer[1], answer[2])[:6]
        return True

    def open(self, srrctl: int = 0x0200_0402) -> Rings:
        rings = Rings(self.bar, self.ram, self.base, 0x2800, 0x3800, self.shift)
        rings.start(srrctl)
        self.write(0x1700, 0x8081)
        self.write(0x1740, 0x82)
        self.read(0x1580)
        for register in (0x152C, 0x1530, 0x1524):
            self.write(register, 7)
        return rings

    def vectors(self, base: int) -> None:
        enable_msix(self.function, self.function.bars[3], 3, base)
