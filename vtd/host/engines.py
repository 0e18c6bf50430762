"""Work that a device's own engine does in a plan: NVMe commands, I/OAT copies, Ethernet frames.

A guest's driver, as small as it can be: its queues are in the first pages that the device may
reach, and it does one operation at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from devices.function import PciFunction
from devices.models.ioat import IoatEngine
from devices.models.ioat_structures import (
    CHANNEL_SIZE,
    ChannelCommand,
    ChannelControl,
    ChannelState,
    Descriptor,
)
from devices.models.nic82576.controller import Nic82576
from devices.models.nic82576.physical_driver import PhysicalDriver
from devices.models.nic82576.registers import (
    MRQC,
    QUEUE_ENABLE,
    RCTL,
    RCTL_BROADCAST,
    RCTL_ENABLE,
    RCTL_LONG,
    RCTL_STRIP_CRC,
    RCTL_UNICAST_PROMISCUOUS,
    RDBAL,
    SRRCTL,
    TCTL,
    TCTL_ENABLE,
    TDBAL,
    TXDCTL,
    offset_of,
)
from devices.models.nic82576.virtual_function import Nic82576Vf
from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import Admin, CompletionEntry, Io, Submission
from devices.network.link import Sink
from pagetables.memory import FRAME_SIZE, PhysicalMemory
from vtd.host.guests import Passed
from vtd.host.running import HostError

PAGES = 16
"""Pages that the queues of an engine may take."""
ACCEPTED = RCTL_ENABLE | RCTL_LONG | RCTL_STRIP_CRC | RCTL_UNICAST_PROMISCUOUS | RCTL_BROADCAST
"""RCTL of a physical function: every frame to one station or to all."""


class Engine(ABC):
    """What moves data between a device and its guest's memory."""

    operation: str
    """What it does, in the plural."""
    sizes: range
    """How many bytes an operation may have, and in which steps."""
    first = 0
    """Where in the device's first range its queues end."""

    @abstractmethod
    def move(self, address: int, size: int, *, writes: bool) -> bool:
        """Fill ``size`` bytes at a device address with something, or have them read.

        Whether the device says that it was done: a network controller does of frames it dropped.
        """

    def size_of(self, wanted: int) -> int:
        """The size of an operation that comes next to a wanted one."""
        place = (wanted - self.sizes.start) // self.sizes.step
        return self.sizes[max(0, min(len(self.sizes) - 1, place))]


class SingleRequests(Engine):
    """Requests that any function can be made to send."""

    operation = "requests"
    sizes = range(1, FRAME_SIZE + 1)

    def __init__(self, passed: Passed) -> None:
        self._dma = passed.function.dma

    def move(self, address: int, size: int, *, writes: bool) -> bool:
        """One request, in parts where it crosses pages."""
        answer = self._dma.write(address, bytes(size)) if writes else self._dma.read(address, size)
        return answer.ok


class QueueEngine(Engine):
    """An engine that is driven by queues in memory, as a guest's driver does."""

    first = PAGES * FRAME_SIZE

    def __init__(self, passed: Passed, memory: PhysicalMemory) -> None:
        self._guest = passed.guest
        self._memory = memory
        self.base, size, _ = next(passed.guest.reached(), (0, 0, 0))
        if size <= self.first:
            raise HostError(f"{passed.name}: its guest has no room for the queues of its engine")

    def _store(self, address: int, data: bytes) -> None:
        """The guest's processor stores at what is this device address."""
        host = self._guest.reached_at(address)
        if host is not None:
            self._memory.write(host, data)

    def _load(self, address: int, size: int) -> bytes:
        """What the guest's processor loads from there."""
        host = self._guest.reached_at(address)
        return bytes(size) if host is None else self._memory.read(host, size)


class NvmeEngine(QueueEngine):
    """Reads and writes of blocks, by one queue pair."""

    operation = "NVMe commands"
    sizes = range(512, FRAME_SIZE + 1, 512)
    ENTRIES = 16

    def __init__(self, passed: Passed, memory: PhysicalMemory, device: Nvme) -> None:
        super().__init__(passed, memory)
        self._bar = device.bars[0]
        self._tails = [0, 0]
        self._queues = [self.base, self.base + 2 * FRAME_SIZE]
        write, last = self._bar.write, self.ENTRIES - 1
        write(0x14, 4, 0)  # CC: off
        write(0x24, 4, last << 16 | last)
        write(0x28, 8, self.base)
        write(0x30, 8, self.base + FRAME_SIZE)
        write(0x14, 4, 1 | 6 << 16 | 4 << 20)  # CC: on, entries of 64 and 16 bytes
        if self._bar.read(0x1C, 4) != 1:
            raise HostError(f"{passed.name}: the controller does not start")
        completions = self._queues[1] + FRAME_SIZE
        pair = {"cdw10": last << 16 | 1}
        self._submit(0, Admin.CREATE_CQ, prp1=completions, cdw11=1, **pair)
        self._submit(0, Admin.CREATE_SQ, prp1=self._queues[1], cdw11=1 << 16 | 1, **pair)

    def move(self, address: int, size: int, *, writes: bool) -> bool:
        """A read command writes memory, a write command reads it."""
        address &= ~3
        following = (address & -FRAME_SIZE) + FRAME_SIZE
        return self._submit(
            1,
            Io.READ if writes else Io.WRITE,
            nsid=1,
            prp1=address,
            prp2=following if address + size > following else 0,
            cdw12=size // 512 - 1,
        )

    def _submit(self, queue: int, opcode: int, **fields: int) -> bool:
        """Have one command carried out; whether it was without an error."""
        tail = self._tails[queue]
        command = Submission.of(opcode=opcode, cid=tail, **fields)
        self._store(self._queues[queue] + 64 * tail, command.pack())
        completion = self._queues[queue] + FRAME_SIZE + 16 * tail
        self._store(completion, bytes(16))
        self._tails[queue] = (tail + 1) % self.ENTRIES
        self._bar.write(0x1000 + 8 * queue, 4, self._tails[queue])
        self._bar.write(0x1004 + 8 * queue, 4, self._tails[queue])
        entry = CompletionEntry.unpack(self._load(completion, 16))
        return bool(entry) and not entry.status


class IoatCopies(QueueEngine):
    """Copies, by channel 0, between memory and a page of the driver."""

    operation = "copies"
    sizes = range(1, FRAME_SIZE + 1)
    ENTRIES = FRAME_SIZE // 64

    def __init__(self, passed: Passed, memory: PhysicalMemory, device: IoatEngine) -> None:
        super().__init__(passed, memory)
        self._device = device
        self._bar = device.bars[0]
        self._count = 0
        self._start()

    def _start(self) -> None:
        self._count = 0
        for offset, value, size in (
            (0x04, ChannelCommand.of(reset=1), 1),
            (0x00, ChannelControl.of(rearm=1, abort_on_error=1), 2),
            (0x10, self.base, 8),
        ):
            self._bar.write(CHANNEL_SIZE + offset, size, value)

    def move(self, address: int, size: int, *, writes: bool) -> bool:
        """A descriptor behind the last one."""
        own = self.base + FRAME_SIZE
        source, destination = (own, address) if writes else (address, own)
        place = self._count % self.ENTRIES
        following = self.base + (place + 1) % self.ENTRIES * 64
        descriptor = Descriptor.of(
            size=size, source=source, destination=destination, next=following
        )
        self._store(self.base + 64 * place, descriptor.pack())
        self._count = self._count + 1 & 0xFFFF
        self._bar.write(CHANNEL_SIZE + 0x06, 2, self._count)
        self._device.clock.advance(self._device.descriptor_nanoseconds)
        done = self._bar.read(CHANNEL_SIZE + 0x08, 8) & 3 == ChannelState.DONE
        if not done:  # halted, as something was refused
            self._start()
        return done


class Frames(QueueEngine):
    """Frames sent from memory and received into it, by queue 0 of a function of the 82576."""

    operation = "frames"
    sizes = range(60, 1515)
    ENTRIES = 16
    TYPE = b"\x88\xb5"
    OUTSIDE = bytes.fromhex("020000000009")
    SEND = 0x2B30_0000
    """Advanced data descriptor: end of packet, insert FCS, report status."""
    ONE_BUFFER = 1 << 25 | 2
    """SRRCTL: advanced descriptors with one buffer of 2 KiB."""

    def __init__(
        self, passed: Passed, memory: PhysicalMemory, nic: Nic82576, function: PciFunction
    ) -> None:
        super().__init__(passed, memory)
        self._nic = nic
        self._bar = function.bars[0]
        self._sent = self._received = 0
        nic.attach(Sink())
        nic.clock.advance(1_000_000_000)  # until the link is up
        if function is nic:
            self._mac = b"\xff" * 6
            self._receive, self._transmit = offset_of(RDBAL), offset_of(TDBAL)
            nic.bars[0].write(offset_of(RCTL), 4, ACCEPTED)
            nic.bars[0].write(offset_of(TCTL), 4, TCTL_ENABLE)
            nic.bars[0].write(offset_of(MRQC), 4, 0)
        else:
            self._mac = self._ask(nic)
            self._receive, self._transmit = 0x2800, 0x3800
        for at, ring in ((self._receive, self.base), (self._transmit, self.base + FRAME_SIZE)):
            self._start_ring(at, ring)

    def _ask(self, nic: Nic82576) -> bytes:
        """Reset the virtual function; the address that the physical function grants it."""
        owner = None if nic.driven else PhysicalDriver(nic.bars[0], nic.nvm.mac)
        if owner is not None:
            owner.start()
        write, mailbox = self._bar.write, 0x0C40
        write(0x0000, 4, 1 << 26)
        write(mailbox, 4, 4)
        write(0x0800, 4, 1)
        write(mailbox, 4, 1)
        if owner is not None:
            owner.service()
        low, high = self._bar.read(0x0804, 4), self._bar.read(0x0808, 4)
        return (low | high << 32).to_bytes(8, "little")[:6]

    def _start_ring(self, at: int, ring: int) -> None:
        control = at + offset_of(TXDCTL) - offset_of(TDBAL)
        self._bar.write(control, 4, 0)
        for offset, value in ((0, ring & 0xFFFF_FFFF), (4, ring >> 32), (8, 16 * self.ENTRIES)):
            self._bar.write(at + offset, 4, value)
        if at == self._receive:
            self._bar.write(at + offset_of(SRRCTL) - offset_of(RDBAL), 4, self.ONE_BUFFER)
        self._bar.write(at + 0x10, 4, 0)
        self._bar.write(at + 0x18, 4, 0)
        self._bar.write(control, 4, QUEUE_ENABLE)

    def move(self, address: int, size: int, *, writes: bool) -> bool:
        """Receive a frame into memory, or send one from there."""
        return self._take(address, size) if writes else self._send(address, size)

    def _take(self, address: int, size: int) -> bool:
        place = self._received % self.ENTRIES
        self._received += 1
        self._store(self.base + 16 * place, address.to_bytes(8, "little") + bytes(8))
        self._bar.write(self._receive + 0x18, 4, self._received % self.ENTRIES)
        header = self._mac + self.OUTSIDE + self.TYPE
        self._nic.receive(header + bytes(size - len(header)))
        return bool(self._load(self.base + 16 * place + 8, 1)[0] & 1)  # DD

    def _send(self, address: int, size: int) -> bool:
        place = self._sent % self.ENTRIES
        self._sent += 1
        descriptor = size << 14 << 32 | self.SEND | size
        data = address.to_bytes(8, "little") + descriptor.to_bytes(8, "little")
        self._store(self.base + FRAME_SIZE + 16 * place, data)
        self._bar.write(self._transmit + 0x18, 4, self._sent % self.ENTRIES)
        return bool(self._load(self.base + FRAME_SIZE + 16 * place + 12, 1)[0] & 1)  # DD


def engine_of(passed: Passed, memory: PhysicalMemory) -> Engine:
    """The engine of a device, started; HostError if its model has none that is driven here."""
    match passed.function:
        case Nvme() as disk:
            return NvmeEngine(passed, memory, disk)
        case IoatEngine() as copier:
            return IoatCopies(passed, memory, copier)
        case Nic82576() as nic:
            return Frames(passed, memory, nic, nic)
        case Nic82576Vf() as virtual:
            owner = virtual.sriov.physical
            assert isinstance(owner, Nic82576)
            return Frames(passed, memory, owner, virtual)
    raise HostError(f"{passed.name}: its model has no engine that a plan can use")
