"""A PCI function as a vfio-user device: regions, reset, and a configuration space with two faces.

Before it starts a machine, QEMU looks for capabilities that it would emulate itself: MSI, MSI-X.
They are hidden until the first reset, which comes after that, and so they stay with the model,
whose messages pass through interrupt remapping. Otherwise QEMU keeps the MSI-X table, and signals.

A virtual function has no vendor, device id and BARs in its own configuration space; they are shown
there all the same, as for any function that a client has by itself.
"""

from __future__ import annotations

import errno
from functools import partial

from devices.config_space import Status
from devices.function import PciFunction
from devices.sriov import VirtualFunction
from vtd.live.interrupts import Interrupts
from vtd.live.messages import CONFIG_REGION, REGIONS, Irq
from vtd.live.requests import RequestError

SIZES = (1, 2, 4, 8)
"""Bytes of an access to a BAR."""
CAPABILITIES_BIT = Status.capabilities.mask << 8 * 6
"""In the first 8 bytes of configuration space."""
BARS, POINTER, FIRST_CAPABILITY = 0x10, 0x34, 0x40
NEXT = 2
"""Where in the header of an extended capability the place of the next one is, up to its end."""
HEADER_SIZE = 4


class ServedFunction:
    """What a client sees of ``function``; ``eventfds``: MSI and MSI-X are the client's."""

    def __init__(self, function: PciFunction, *, eventfds: bool = False) -> None:
        self.function = function
        self._bars = function.bars
        self._eventfds = eventfds
        self._hidden = not eventfds
        sriov = function.sriov
        own = sriov is not None and not isinstance(function, VirtualFunction)
        self._taken = sriov.place if sriov is not None and own else range(0)
        """The SR-IOV capability, a null one to clients: virtual functions have their own
        connections."""

    def interrupts(self) -> Interrupts:
        """The interrupts of a new connection, to which those of the function go."""
        function = self.function
        counts: dict[int, int] = {Irq.INTX: int(bool(function.identity.interrupt_pin))}
        if self._eventfds and function.msi is not None:
            counts[Irq.MSI] = 1 << function.msi.control.value.capable
        if self._eventfds and function.msix is not None:
            counts[Irq.MSIX] = len(function.msix.entries)
        interrupts = Interrupts(counts, lambda irq, taken: self._take(irq, interrupts, taken))
        function.on_intx = interrupts.set_level
        return interrupts

    def _take(self, irq: int, interrupts: Interrupts, taken: bool) -> None:
        """Have the client signal a kind of vectors, or the function send its messages again."""
        owner = {Irq.MSI: self.function.msi, Irq.MSIX: self.function.msix}.get(Irq(irq))
        if owner is not None:
            owner.host = partial(interrupts.trigger, irq) if taken else None

    def region_size(self, index: int) -> int:
        """Bytes of a region, 0 if the function does not have it."""
        if not 0 <= index < REGIONS:
            raise RequestError(errno.EINVAL)
        if index == CONFIG_REGION:
            return self.function.config.size
        bar = self.function.bars.get(index)
        return 0 if bar is None else bar.size

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Bytes of a region; a BAR gives 1, 2, 4 or 8 at a time."""
        bar = self._bars.get(region)
        if bar is not None and count in SIZES and offset + count <= bar.size:
            return bar.read(offset, count).to_bytes(count, "little")
        if region == CONFIG_REGION:
            return self._read_config(offset, count)
        raise RequestError(errno.EINVAL)

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Change bytes of a region; a BAR takes 1, 2, 4 or 8 at a time."""
        bar, count = self._bars.get(region), len(data)
        if bar is not None and count in SIZES and offset + count <= bar.size:
            bar.write(offset, count, int.from_bytes(data, "little"))
        elif region == CONFIG_REGION:
            self._check_config(offset, count)
            if offset >= self._taken.stop or offset + count <= self._taken.start:
                self.function.config.write_bytes(offset, data)
        else:
            raise RequestError(errno.EINVAL)

    def reset(self) -> None:
        """Reset the function, and show what it has."""
        self.function.reset()
        self._hidden = False

    def disconnected(self) -> None:
        """The client is gone: the next one looks for capabilities too."""
        self.function.on_intx = None
        self._hidden = not self._eventfds

    def _check_config(self, offset: int, count: int) -> None:
        if not count or offset + count > self.function.config.size:
            raise RequestError(errno.EINVAL)

    def _read_config(self, offset: int, count: int) -> bytes:
        self._check_config(offset, count)
        data = self.function.config.read_bytes(offset, count)
        if isinstance(self.function, VirtualFunction):
            shown = _own_header(self.function)
            data = bytes(shown.get(offset + at, value) for at, value in enumerate(data))
        if self._taken:
            data = bytes(self._without_taken(offset + at, value) for at, value in enumerate(data))
        if not self._hidden:
            return data
        return bytes(_without_capabilities(offset + at, value) for at, value in enumerate(data))

    def _without_taken(self, offset: int, value: int) -> int:
        header = NEXT <= offset - self._taken.start < HEADER_SIZE
        return value if header or offset not in self._taken else 0


def _own_header(function: VirtualFunction) -> dict[int, int]:
    """Bytes of a header that the physical function has for a virtual one: ids, kinds of BARs."""
    sriov = function.sriov
    ids = (sriov.physical.identity.vendor_id, sriov.vf_device_id.value)
    shown = dict(enumerate(b"".join(int(each).to_bytes(2, "little") for each in ids)))
    return shown | {BARS + 4 * index: sriov.bar_kind(index) for index in function.bars}


def _without_capabilities(offset: int, value: int) -> int:
    if offset >= FIRST_CAPABILITY or offset == POINTER:
        return 0
    return value & ~(CAPABILITIES_BIT >> 8 * offset & 0xFF) if offset < 8 else value
