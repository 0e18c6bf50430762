"""A virtio block device, 1af4:1042, by the PCI transport of virtio 1.2: one queue, a split ring.

It offers VIRTIO_F_ACCESS_PLATFORM, by which a driver maps what it hands over as for any other
device, and refuses drivers that do not take it. Rings, lists and data are requests of their own:
one that is refused ends a command with an I/O error where it is about data, and stops the device
(DEVICE_NEEDS_RESET) where it is about the ring. Left out: packed rings, event indices, access to
BARs through configuration space.
"""

from __future__ import annotations

from collections.abc import Iterable

from devices.capabilities import CapabilityId
from devices.config_space import ConfigRegister, RegisterSpace
from devices.function import Identity, PciFunction, Region
from devices.models.block_storage import BLOCK, BLOCK_SHIFT, BlockStorage
from devices.models.virtio_structures import (
    ACCESS_PLATFORM,
    FEATURES,
    NO_VECTOR,
    QUEUE_FIELDS,
    VERSION_1,
    BlockConfiguration,
    CommandHeader,
    CommandKind,
    CommandStatus,
    CommonConfiguration,
    Descriptor,
    DeviceStatus,
    NotifyMultiplier,
    StructureKind,
    StructureLength,
    StructureOffset,
    StructureType,
    StructureWhere,
)

IDENTITY = Identity(
    vendor_id=0x1AF4,
    device_id=0x1042,
    class_code=0x010000,
    revision=1,
    subsystem_vendor_id=0x1AF4,
    subsystem_id=0x1100,
    interrupt_pin=1,
)
STRUCTURES = {
    StructureKind.COMMON: 0x0000,
    StructureKind.INTERRUPT_STATUS: 0x1000,
    StructureKind.DEVICE: 0x2000,
    StructureKind.NOTIFY: 0x3000,
}
"""Where each is in BAR0, with a page of its own."""
PAGE = 0x1000
VECTORS = 2
QUEUE_SIZE = 256
MOST_SEGMENTS = 126
LONGEST = 1 << 26
"""Bytes of one command; a driver that asks for more is broken."""
SERIAL = b"vtd-virtio-blk".ljust(20, b"\0")
QUEUE_INTERRUPT, CONFIGURATION_INTERRUPT = 1, 2
"""Bits of the interrupt status."""

Piece = tuple[int, int]
"""Address and length of a buffer."""


class QueueError(Exception):
    """A ring or a list that makes no sense, or can't be reached: the device stops."""


class TransferError(Exception):
    """Data that can't be reached."""


class VirtioBlk(PciFunction):
    """The device, of ``blocks`` of 512 bytes, in memory or in a ``file``.

    ``access_platform``: whether it offers, and insists on, VIRTIO_F_ACCESS_PLATFORM.
    """

    def __init__(self, blocks: int = 2048, file: str = "", access_platform: bool = True) -> None:
        super().__init__(IDENTITY)
        self.disk = BlockStorage.made(blocks, file)
        self.features = FEATURES | (ACCESS_PLATFORM if access_platform else 0)
        bar = self.add_bar(0, PAGE * len(STRUCTURES))
        self.add_bar(1, PAGE)
        self.add_pci_express()
        self.add_msix(VECTORS, table=(1, 0), pending=(1, 0x800))
        common = RegisterSpace(CommonConfiguration.WIDTH // 8)
        initial = CommonConfiguration.of(num_queues=1, msix_config=NO_VECTOR)
        self._common = common.place(ConfigRegister(0, initial))
        self._common.on_write = self._configured
        device = RegisterSpace(BlockConfiguration.WIDTH // 8)
        device.add(0, BlockConfiguration.of(capacity=blocks, seg_max=MOST_SEGMENTS, blk_size=BLOCK))
        regions: dict[StructureKind, Region] = {
            StructureKind.COMMON: common,
            StructureKind.INTERRUPT_STATUS: _InterruptStatus(self),
            StructureKind.DEVICE: device,
            StructureKind.NOTIFY: _Notify(self),
        }
        for kind, offset in STRUCTURES.items():
            bar.place(offset, PAGE, regions[kind])
            self._tell(kind, offset)
        self.at_reset.append(self._power_on)
        self._power_on()

    def _tell(self, kind: StructureKind, offset: int) -> None:
        """A capability that says where a structure is."""
        size = 20 if kind is StructureKind.NOTIFY else 16
        at = self.config.add_capability(CapabilityId.VENDOR, size)
        self.config.add(at + 2, StructureType.of(cap_len=size, cfg_type=kind))
        self.config.add(at + 4, StructureWhere())
        self.config.add(at + 8, StructureOffset(offset))
        self.config.add(at + 12, StructureLength(PAGE))
        if kind is StructureKind.NOTIFY:
            self.config.add(at + 16, NotifyMultiplier(4))

    def _power_on(self) -> None:
        self._common.value = self._blank()

    def _blank(self) -> CommonConfiguration:
        """The state after a reset of the device, which its driver can ask for too."""
        self._accepted: dict[int, int] = {}
        """The features that the driver takes, 32 at a time."""
        self._queue = dict.fromkeys(QUEUE_FIELDS, 0)
        self._queue |= {"queue_size": QUEUE_SIZE, "queue_msix_vector": NO_VECTOR}
        self._taken = self._used = 0
        self.interrupt_status = 0
        self.set_intx(False)
        return self._common.initial.replace(
            device_feature=self.features & 0xFFFF_FFFF, **self._queue
        )

    @property
    def progress(self) -> DeviceStatus:
        """How far its driver has come, and whether it has to be reset."""
        return DeviceStatus(self._common.value.device_status)

    def take_interrupt_status(self) -> int:
        """What the pin is asserted for; reading it takes the pin back."""
        found, self.interrupt_status = self.interrupt_status, 0
        self.set_intx(False)
        return found

    def _configured(
        self, before: CommonConfiguration, after: CommonConfiguration
    ) -> CommonConfiguration:
        if after.device_status != before.device_status:
            if not after.device_status:
                return self._blank()
            after = after.replace(device_status=self._progress(before, after))
        select = after.device_feature_select
        offered = self.features >> 32 * select & 0xFFFF_FFFF if select < 2 else 0
        after = after.replace(device_feature=offered)
        if after.driver_feature_select != before.driver_feature_select:
            known = self._accepted.get(after.driver_feature_select, 0)
            after = after.replace(driver_feature=known)
        elif not DeviceStatus(before.device_status) & DeviceStatus.FEATURES_OK:
            self._accepted[after.driver_feature_select] = after.driver_feature
        if after.msix_config >= VECTORS:
            after = after.replace(msix_config=NO_VECTOR)
        if after.queue_select:
            return after.replace(**dict.fromkeys(QUEUE_FIELDS, 0))
        if not before.queue_select:
            self._set_queue({name: int(getattr(after, name)) for name in QUEUE_FIELDS})
        return after.replace(**self._queue)

    def _progress(self, before: CommonConfiguration, after: CommonConfiguration) -> int:
        """The status that a driver has written, as far as the device goes along."""
        status = DeviceStatus(after.device_status)
        if DeviceStatus(before.device_status) & DeviceStatus.NEEDS_RESET:
            status |= DeviceStatus.NEEDS_RESET
        accepted = sum(bits << 32 * select for select, bits in self._accepted.items())
        needed = VERSION_1 | self.features & ACCESS_PLATFORM
        if accepted & ~self.features or needed & ~accepted:
            status &= ~DeviceStatus.FEATURES_OK
        return int(status)

    def _set_queue(self, wanted: dict[str, int]) -> None:
        """Take what a driver sets up; once the queue is enabled only its vector can change."""
        if wanted["queue_msix_vector"] >= VECTORS:
            wanted["queue_msix_vector"] = NO_VECTOR
        if self._queue["queue_enable"]:
            self._queue["queue_msix_vector"] = wanted["queue_msix_vector"]
            return
        size = wanted["queue_size"]
        if not 0 < size <= QUEUE_SIZE or size & size - 1:
            wanted["queue_size"] = self._queue["queue_size"]
        self._queue = wanted

    def run(self) -> None:
        """Carry out what the driver has put into the ring."""
        status = self.progress
        ready = status & DeviceStatus.DRIVER_OK and not status & DeviceStatus.NEEDS_RESET
        if not ready or not self._queue["queue_enable"]:
            return
        ring, size = self._queue["queue_driver"], self._queue["queue_size"]
        before = self._used
        try:
            while (index := self._number(ring + 2)) != self._taken:
                if index - self._taken & 0xFFFF > size:
                    raise QueueError
                head = self._number(ring + 4 + 2 * (self._taken % size))
                self._taken = self._taken + 1 & 0xFFFF
                self._complete(head, self._carry_out(*self._buffers(head)))
            if self._used != before and not self._number(ring) & 1:
                self._interrupt(QUEUE_INTERRUPT, self._queue["queue_msix_vector"])
        except QueueError:
            status = self.progress | DeviceStatus.NEEDS_RESET
            self._common.value = self._common.value.replace(device_status=int(status))
            self._interrupt(CONFIGURATION_INTERRUPT, self._common.value.msix_config)

    def _buffers(self, head: int) -> tuple[list[Piece], list[Piece]]:
        """The buffers of a command, those to be read and those to be written."""
        table, count, index, steps = self._queue["queue_desc"], self._queue["queue_size"], head, 0
        indirect, readable, writable = False, list[Piece](), list[Piece]()
        while True:
            if index >= count or steps >= count:
                raise QueueError
            found = Descriptor.unpack(self._reach(table + 16 * index, 16))
            if found.indirect:
                if indirect or found.next or found.length % 16 or found.length > 16 * QUEUE_SIZE:
                    raise QueueError
                indirect, table, count = True, found.address, found.length // 16
                index = steps = 0
                continue
            if writable and not found.write:
                raise QueueError
            (writable if found.write else readable).append((found.address, found.length))
            if not found.next:
                break
            index, steps = found.next_index, steps + 1
        if sum(length for _, length in (*readable, *writable)) > LONGEST:
            raise QueueError
        return readable, writable

    def _carry_out(self, readable: list[Piece], writable: list[Piece]) -> int:
        """Carry out a command; how many bytes were written, its status among them."""
        if sum(length for _, length in readable) < CommandHeader.WIDTH // 8:
            raise QueueError
        if not writable or not writable[-1][1]:
            raise QueueError
        address, length = writable.pop()
        writable.append((address, length - 1))
        written = 0
        try:
            data = b"".join(self._read(*piece) for piece in readable)
            size = CommandHeader.WIDTH // 8
            answer = self._answer(CommandHeader.unpack(data[:size]), data[size:], writable)
            if answer is None:
                status = CommandStatus.UNSUPPORTED
            else:
                status, written = CommandStatus.OK, len(answer)
                self._scatter(writable, answer)
        except TransferError:
            status = CommandStatus.IO_ERROR
        self._store(address + length - 1, bytes([status]))
        return written + 1

    def _answer(self, header: CommandHeader, data: bytes, room: list[Piece]) -> bytes | None:
        """What a command gives back, None if it is unknown; TransferError for wrong places."""
        start, wanted = header.sector << BLOCK_SHIFT, sum(length for _, length in room)
        match header.kind:
            case CommandKind.READ:
                self._check(start, wanted)
                return self.disk.read(start, start + wanted)
            case CommandKind.WRITE:
                self._check(start, len(data))
                self.disk.write(start, data)
            case CommandKind.FLUSH:
                self.disk.flush()
            case CommandKind.SERIAL:
                return SERIAL[:wanted]
            case _:
                return None
        return b""

    def _check(self, start: int, length: int) -> None:
        if length % BLOCK or start + length > self.disk.blocks << BLOCK_SHIFT:
            raise TransferError

    def _complete(self, head: int, written: int) -> None:
        """Tell the driver that a command is done."""
        ring, size = self._queue["queue_device"], self._queue["queue_size"]
        entry = head.to_bytes(4, "little") + written.to_bytes(4, "little")
        self._store(ring + 4 + 8 * (self._used % size), entry)
        self._used = self._used + 1 & 0xFFFF
        self._store(ring + 2, self._used.to_bytes(2, "little"))

    def _interrupt(self, reason: int, vector: int) -> None:
        if self.msix is not None and self.msix.enabled:
            self.msix.notify(vector)  # none for NO_VECTOR
        else:
            self.interrupt_status |= reason
            self.set_intx(True)

    def _number(self, address: int) -> int:
        return int.from_bytes(self._reach(address, 2), "little")

    def _reach(self, address: int, length: int) -> bytes:
        """Bytes of a ring or list; QueueError where there are none."""
        try:
            return self._read(address, length)
        except TransferError as error:
            raise QueueError from error

    def _read(self, address: int, length: int) -> bytes:
        if not length:
            return b""
        read = self.dma.read(address, length) if address + length <= 1 << 64 else None
        if read is None or not read.ok:
            raise TransferError
        return read.data

    def _scatter(self, pieces: Iterable[Piece], data: bytes) -> None:
        for address, length in pieces:
            part, data = data[:length], data[length:]
            reachable = address + len(part) <= 1 << 64
            if part and not (reachable and self.dma.write(address, part).ok):
                raise TransferError

    def _store(self, address: int, data: bytes) -> None:
        """Bytes of a ring, or a status; QueueError where they can't be."""
        if address + len(data) > 1 << 64 or not self.dma.write(address, data).ok:
            raise QueueError


class _InterruptStatus:
    """The interrupt status as it lies in the BAR."""

    def __init__(self, device: VirtioBlk) -> None:
        self._device = device

    def read(self, offset: int, size: int) -> int:
        """Why the pin is asserted, which it is no more then."""
        return 0 if offset else self._device.take_interrupt_status()

    def write(self, offset: int, size: int, value: int) -> None:
        """It is the device's."""


class _Notify:
    """Where the driver says that there is something in the queue."""

    def __init__(self, device: VirtioBlk) -> None:
        self._device = device

    def read(self, offset: int, size: int) -> int:
        """Nothing."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """The queue is the first one; there are no others."""
        if not offset:
            self._device.run()
