"""SR-IOV: a physical function that brings up virtual functions with requester ids of their own.

PCI Express Base Specification, Single Root I/O Virtualization. A virtual function exists while VF
Enable is set and its number is below NumVFs. VF migration and VF resizable BARs are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from devices.capabilities import ExtendedCapabilityId
from devices.config_space import RO
from devices.function import Bar, Identity, PciFunction, memory_bar
from pagetables.bits import BitRecord, Bits

SRIOV_SIZE = 0x40


class SriovError(ValueError):
    """An SR-IOV capability that can't be."""


class SriovCapabilities(BitRecord, width=32):
    """SR-IOV capabilities, +4."""

    vf_migration = Bits(0, access=RO)
    ari_preserved = Bits(1, access=RO)
    interrupt_message = Bits(31, 21, access=RO)


class SriovControl(BitRecord, width=16):
    """SR-IOV control, +8."""

    vf_enable = Bits(0)
    vf_mse = Bits(3)  # memory space enable of all VFs
    ari_capable = Bits(4)


class SriovStatus(BitRecord, width=16):
    """SR-IOV status, +0Ah."""

    vf_migration = Bits(0, access=RO)


class VfCount(BitRecord, width=16):
    """InitialVFs, +0Ch, and TotalVFs, +0Eh."""

    count = Bits(15, 0, access=RO)


class NumVfs(BitRecord, width=16):
    """VFs that exist once VF Enable is set, +10h."""

    count = Bits(15, 0)


class RoutingIds(BitRecord, width=32):
    """First VF offset, +14h, and VF stride, +16h."""

    first_offset = Bits(15, 0, access=RO)
    stride = Bits(31, 16, access=RO)


class VfDeviceId(BitRecord, width=16):
    """Device id of the VFs, +1Ah."""

    device_id = Bits(15, 0, access=RO)


class SupportedPageSizes(BitRecord, width=32):
    """Bit n: pages of 2^(n+12) bytes, +1Ch."""

    sizes = Bits(31, 0, access=RO)


class SystemPageSize(BitRecord, width=32):
    """The page size in use, one bit as in the supported sizes, +20h."""

    size = Bits(31, 0)


class VirtualFunction(PciFunction):
    """A virtual function; models derive from it, or use it as a plain requester."""

    sriov: Sriov

    def __init__(self, sriov: Sriov, index: int, *, express_at: int | None = None) -> None:
        """``express_at`` is where the PCI Express capability lies."""
        super().__init__(
            Identity(0xFFFF, 0xFFFF, sriov.physical.identity.class_code), config_size=4096
        )
        self.sriov = sriov
        self.index = index
        self.add_pci_express(offset=express_at)
        self.bars = {number: self._share(bar) for number, bar in sriov.vf_bars.items()}

    @property
    def memory_enabled(self) -> bool:
        """The physical function decides for all its virtual functions."""
        return bool(self.sriov.control.value.vf_mse)

    @property
    def routing_offset(self) -> int:
        """Distance of its requester id from that of the physical function."""
        routing = self.sriov.routing.value
        return routing.first_offset + self.index * routing.stride

    def _share(self, bar: Bar) -> Bar:
        """This function's part of a VF BAR of the physical function."""
        return Bar(bar.size, partial(self._locate, bar))

    def _locate(self, bar: Bar) -> int:
        return bar.address + self.index * bar.size


class Sriov:
    """The SR-IOV capability of a physical function.

    ``vf_bars`` gives size and 64-bitness of each VF BAR; ``make`` builds VF ``index``.
    """

    def __init__(
        self,
        physical: PciFunction,
        *,
        total_vfs: int,
        first_offset: int,
        stride: int,
        vf_device_id: int,
        vf_bars: Mapping[int, tuple[int, bool]] | None = None,
        make: Callable[[Sriov, int], VirtualFunction] = VirtualFunction,
        offset: int | None = None,
    ) -> None:
        if not 0 < total_vfs <= 0xFFFF or not 0 < first_offset <= 0xFFFF:
            raise SriovError(f"{total_vfs} VFs from {first_offset:#x} on can't be numbered")
        if total_vfs > 1 and stride == 0:
            raise SriovError("stride: 0 gives all VFs one requester id")
        config = physical.config
        at = config.add_extended_capability(ExtendedCapabilityId.SRIOV, SRIOV_SIZE, offset)
        self.physical = physical
        self.functions: tuple[VirtualFunction, ...] = ()
        self.on_change: Callable[[], None] | None = None
        self.make = make
        config.add(at + 0x04, SriovCapabilities())
        self.control = config.add(at + 0x08, SriovControl())
        config.add(at + 0x0A, SriovStatus())
        config.add(at + 0x0C, VfCount(total_vfs))
        self.total = config.add(at + 0x0E, VfCount(total_vfs))
        self.count = config.add(at + 0x10, NumVfs())
        self.routing = config.add(
            at + 0x14, RoutingIds.of(first_offset=first_offset, stride=stride)
        )
        self.vf_device_id = config.add(at + 0x1A, VfDeviceId(vf_device_id))
        config.add(at + 0x1C, SupportedPageSizes(0x553))
        config.add(at + 0x20, SystemPageSize(1))
        self.control.on_write = self._controlled
        self.count.on_write = self._counted
        self.place = range(at, at + SRIOV_SIZE)
        """Where the capability is in configuration space."""
        self._bars_at = at + 0x24
        self.vf_bars = {
            number: memory_bar(config, at + 0x24 + 4 * number, size, wide=wide, prefetchable=wide)
            for number, (size, wide) in (vf_bars or {}).items()
        }
        physical.sriov = self
        physical.at_reset.append(self._reset)

    def bar_kind(self, number: int) -> int:
        """The low byte of a VF BAR: its type, without an address."""
        return self.physical.config.read(self._bars_at + 4 * number, 1) & 0xF

    @property
    def offsets(self) -> range:
        """Distances of the requester ids of all virtual functions there may be from its own."""
        routing, total = self.routing.value, self.total.value.count
        last = routing.first_offset + (total - 1) * routing.stride
        return range(routing.first_offset, last + 1, routing.stride or 1)

    def keep_enabled(self) -> None:
        """From now on a reset of the physical function leaves virtual ones there, reset too.

        So it is for who has a physical function whose virtual ones somebody else has switched on.
        """
        for register in (self.control, self.count):
            register.initial = register.value

    def _reset(self) -> None:
        if not self.control.value.vf_enable:
            self._become(())
        for function in self.functions:
            function.reset()

    def _become(self, functions: tuple[VirtualFunction, ...]) -> None:
        gone, self.functions = self.functions, functions
        for function in gone:
            function.bus_master.reconsider()
        self.physical.on_way_changed()
        if self.on_change is not None:
            self.on_change()

    def _counted(self, before: NumVfs, after: NumVfs) -> NumVfs:
        """NumVFs keeps its value while VFs are enabled and never exceeds TotalVFs."""
        allowed = not self.control.value.vf_enable and after.count <= self.total.value.count
        return after if allowed else before

    def _controlled(self, before: SriovControl, after: SriovControl) -> SriovControl:
        self.control.value = after
        if before.vf_enable != after.vf_enable:
            count = self.count.value.count if after.vf_enable else 0
            self._become(tuple(self.make(self, index) for index in range(count)))
        return after
