"""A PCI function: configuration space, BARs, interrupts, and the port its requests leave through.

PCI Express Base Specification, chapter 7. Bus master enable is checked here, before anything that
remaps: with it clear neither a memory request nor a message leaves the function. Power states and
I/O port decoding are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from devices.capabilities import (
    Acs,
    AcsCapabilities,
    DeviceCapabilities,
    DeviceCapabilities2,
    DeviceControl,
    PciExpress,
    PortType,
    add_acs,
    add_pci_express,
)
from devices.clock import Clock
from devices.config_space import (
    RO,
    ClassCode,
    Command,
    ConfigRegister,
    ConfigSpace,
    HeaderType,
    Identification,
    Interrupt,
    Status,
    Subsystem,
)
from devices.dma import AtsClient, ClosedPort, Completion, DmaPort, Request
from devices.msi import MSIX_ENTRY_SIZE, Msi, Msix
from pagetables.bits import BitRecord, Bits

if TYPE_CHECKING:
    from devices.sriov import Sriov

_ENDPOINT = DeviceCapabilities.of(role_based_error_reporting=1, flr=1)
BME = Command.bme.mask
CLOSED = ClosedPort()


class BarError(ValueError):
    """A BAR that can't be: its size, its number, or what is placed in it."""


class MemoryBar(BitRecord, width=32):
    """A 32-bit memory BAR."""

    io = Bits(0, access=RO)
    type = Bits(2, 1, access=RO)
    prefetchable = Bits(3, access=RO)
    address = Bits(31, 4, shift=4)


class MemoryBar64(BitRecord, width=64):
    """A 64-bit memory BAR, two registers wide."""

    io = Bits(0, access=RO)
    type = Bits(2, 1, access=RO)
    prefetchable = Bits(3, access=RO)
    address = Bits(63, 4, shift=4)


class Region(Protocol):
    """Something that lies in a BAR; offsets are from its own start."""

    def read(self, offset: int, size: int) -> int:
        """The little-endian value of ``size`` bytes."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a little-endian value of ``size`` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What a function says it is."""

    vendor_id: int
    device_id: int
    class_code: int
    """Base class, sub-class and programming interface: 24 bits."""
    revision: int = 0
    subsystem_vendor_id: int = 0
    subsystem_id: int = 0
    interrupt_pin: int = 0


class Bar:
    """A memory BAR and the regions in it; ``locate`` tells where software put it."""

    def __init__(self, size: int, locate: Callable[[], int]) -> None:
        self.size = size
        self._locate = locate
        self._regions: list[tuple[int, int, Region]] = []

    @property
    def address(self) -> int:
        """Where software put it."""
        return self._locate()

    def place(self, start: int, length: int, region: Region) -> None:
        """Put a region at ``start``; the first one placed wins where they overlap."""
        if start < 0 or start + length > self.size:
            raise BarError(f"{start:#x}+{length:#x} is outside a BAR of {self.size:#x} bytes")
        self._regions.append((start, start + length, region))

    def read(self, offset: int, size: int) -> int:
        """All ones where nothing lies."""
        for start, end, region in self._regions:
            if start <= offset and offset + size <= end:
                return region.read(offset - start, size)
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Dropped where nothing lies."""
        for start, end, region in self._regions:
            if start <= offset and offset + size <= end:
                region.write(offset - start, size, value & (1 << 8 * size) - 1)
                return


def memory_bar(
    config: ConfigSpace, offset: int, size: int, *, wide: bool, prefetchable: bool
) -> Bar:
    """A memory BAR and its register: address bits below the size are read-only 0."""
    if size < 16 or size & size - 1 or size >> (64 if wide else 32):
        raise BarError(f"size: {size:#x} is no BAR size")
    if wide:
        register64 = config.add(
            offset,
            MemoryBar64.of(type=2, prefetchable=prefetchable),
            writable=(1 << 64) - size,
        )
        return Bar(size, partial(_address, register64))
    register = config.add(
        offset, MemoryBar.of(prefetchable=prefetchable), writable=(1 << 32) - size
    )
    return Bar(size, partial(_address, register))


def _address(register: ConfigRegister[MemoryBar] | ConfigRegister[MemoryBar64]) -> int:
    return register.value.address


class BusMaster(DmaPort):
    """Where requests leave a function: its port, if it may use it.

    The way is found with the first request and kept until bus mastering, or whatever is above the
    function, changes.
    """

    __slots__ = ("request",)
    request: Callable[[Request], Completion]  # type: ignore[assignment]
    """Sends by the way, once it is found."""

    def __init__(self, function: PciFunction) -> None:
        self._function = function
        self.reconsider()

    def _find_way(self, request: Request) -> Completion:
        """Find the way and send; from then on requests take it without coming here."""
        function = self._function
        way = function.port.way() if function.command.value & BME else CLOSED
        self.source_id = way.source_id
        self.request = way.request
        return way.request(request._replace(source_id=way.source_id))

    def reconsider(self) -> None:
        """Something on the way changed: look for it again."""
        self.request = self._find_way

    def __getstate__(self) -> dict[str, object]:
        return vars(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self.reconsider()


class PciFunction:
    """A function with a type 0 header; models derive from it."""

    header_type = 0

    def __init__(self, identity: Identity, *, config_size: int = 4096) -> None:
        self.identity = identity
        self.config = config = ConfigSpace(config_size)
        self.port: DmaPort = CLOSED
        self.bus_master = BusMaster(self)
        self.dma: DmaPort = self.bus_master
        """What models send their transfers through; a device-TLB may be in between."""
        self.on_way_changed: Callable[[], None] = self.bus_master.reconsider
        """Called when bus mastering or a register that routes requests has changed."""
        self.bars: dict[int, Bar] = {}
        self.msi: Msi | None = None
        self.msix: Msix | None = None
        self.pcie: PciExpress | None = None
        self.acs: Acs | None = None
        self.client: AtsClient | None = None
        self.boundary: DmaPort | None = None
        """Of an integrated device: the way out for its device-TLB alone (VT-d 4.4)."""
        self.driven = False
        """Whether the model has its driver too, so that no guest may have the function."""
        self.sriov: Sriov | None = None
        """Its SR-IOV capability; of a virtual function that of the physical one."""
        self.clock = Clock()
        """The time by which it works: its own, or that of the machine it is in."""
        self.at_reset: list[Callable[[], None]] = []
        self.intx = False
        self.on_intx: Callable[[bool], None] | None = None
        config.add(
            0x00,
            Identification.of(vendor_id=identity.vendor_id, device_id=identity.device_id),
        )
        config.on_routing = self._way_changed
        self.command = config.add(0x04, Command(), routing=True)
        self.command.on_write = self._commanded
        self.status = config.add(0x06, Status.of(capabilities=1))
        config.add(0x08, ClassCode.of(revision=identity.revision, class_code=identity.class_code))
        self.header = config.add(0x0C, HeaderType.of(header_type=self.header_type))
        if self.header_type == 0:
            config.add(
                0x2C,
                Subsystem.of(
                    subsystem_vendor_id=identity.subsystem_vendor_id,
                    subsystem_id=identity.subsystem_id,
                ),
            )
        config.add(0x3C, Interrupt.of(pin=identity.interrupt_pin))

    def connect(self, port: DmaPort) -> None:
        """Plug the function in: from now on its requests go through ``port``."""
        self.port = port
        self.bus_master.reconsider()

    def _way_changed(self) -> None:
        self.on_way_changed()

    def reset(self) -> None:
        """Conventional or function level reset: everything as after power-on, but plugged in."""
        self.config.reset()
        self.set_intx(False)
        for react in self.at_reset:
            react()

    def add_bar(
        self, index: int, size: int, *, wide: bool = False, prefetchable: bool = False
    ) -> Bar:
        """A memory BAR of ``size`` bytes (a power of two, 16 or more); ``wide`` is 64-bit."""
        if not 0 <= index <= (4 if wide else 5):
            raise BarError(f"index: there is no room for BAR{index}")
        bar = self.bars[index] = memory_bar(
            self.config, 0x10 + 4 * index, size, wide=wide, prefetchable=prefetchable
        )
        return bar

    def add_msi(
        self,
        vectors: int = 1,
        *,
        address64: bool = True,
        maskable: bool = False,
        offset: int | None = None,
    ) -> Msi:
        """An MSI capability."""
        self.msi = Msi(
            self.config,
            self.send_message,
            vectors=vectors,
            address64=address64,
            maskable=maskable,
            offset=offset,
        )
        return self.msi

    def add_msix(
        self,
        vectors: int,
        *,
        table: tuple[int, int],
        pending: tuple[int, int],
        offset: int | None = None,
    ) -> Msix:
        """An MSI-X capability; ``table`` and ``pending`` are (BAR number, offset) in known BARs."""
        self.msix = msix = Msix(
            self.config,
            self.send_message,
            vectors=vectors,
            table=table,
            pending=pending,
            offset=offset,
        )
        self.at_reset.append(msix.reset)
        for (index, start), length, region in (
            (table, vectors * MSIX_ENTRY_SIZE, msix.table),
            (pending, (vectors + 63) // 64 * 8, msix.pending_bits),
        ):
            if index not in self.bars:
                raise BarError(f"MSI-X structure in BAR{index}, which does not exist")
            self.bars[index].place(start, length, region)
        return msix

    def add_pci_express(
        self,
        port_type: PortType = PortType.ENDPOINT,
        capabilities: DeviceCapabilities = _ENDPOINT,
        *,
        capabilities2: DeviceCapabilities2 | None = None,
        offset: int | None = None,
    ) -> PciExpress:
        """A PCI Express capability; by default with function level reset."""
        self.pcie = add_pci_express(
            self.config,
            port_type,
            capabilities=capabilities,
            capabilities2=capabilities2 or DeviceCapabilities2(),
            offset=offset,
        )
        self.pcie.control.on_write = self._device_control
        return self.pcie

    def add_acs(self, capabilities: AcsCapabilities, *, offset: int | None = None) -> Acs:
        """An ACS capability."""
        self.acs = add_acs(self.config, capabilities, offset)
        return self.acs

    def send_message(self, address: int, data: int) -> None:
        """Send an interrupt message: a write of one doubleword, whose address has no bits 1:0."""
        self.bus_master.write(address & ~3, data.to_bytes(4, "little"))

    def set_intx(self, level: bool) -> None:
        """Drive the interrupt pin; ``on_intx`` hears of changes unless software disabled it."""
        if self.status.value.intx != level:
            self.status.value = self.status.value.replace(intx=level)
        driven = level and not self.command.value.intx_disable
        if driven != self.intx:
            self.intx = driven
            if self.on_intx is not None:
                self.on_intx(driven)

    @property
    def memory_enabled(self) -> bool:
        """Whether the BARs are decoded."""
        return bool(self.command.value.mse)

    def bar_at(self, address: int) -> tuple[Bar, int] | None:
        """The BAR that claims a memory address, and the offset in it, or None."""
        if not self.memory_enabled:
            return None
        for bar in self.bars.values():
            if bar.address <= address < bar.address + bar.size:
                return bar, address - bar.address
        return None

    def _commanded(self, before: Command, after: Command) -> Command:
        self.command.value = after
        self.set_intx(bool(self.status.value.intx))
        return after

    def _device_control(self, before: DeviceControl, after: DeviceControl) -> DeviceControl:
        if not after.initiate_flr:
            return after
        if self.pcie is not None and self.pcie.capabilities.value.flr:
            self.reset()
            return self.pcie.control.initial
        return after.replace(initiate_flr=0)
