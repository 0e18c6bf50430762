"""A PCI function as a vfio-user device: regions, reset, and a configuration space with two faces.

Before it starts a machine, QEMU looks for capabilities that it would emulate itself: MSI, MSI-X.
They are hidden until the first reset, which comes after that, and so they stay with the model:
messages of its own pass through interrupt remapping.
"""

from __future__ import annotations

import errno

from devices.config_space import Status
from devices.function import Bar, PciFunction
from vtd.live.messages import CONFIG_REGION, REGIONS
from vtd.live.requests import RequestError

SIZES = (1, 2, 4, 8)
"""Bytes of an access to a BAR."""
CAPABILITIES_BIT = Status.capabilities.mask << 8 * 6
"""In the first 8 bytes of configuration space."""
FIRST_CAPABILITY, POINTER = 0x40, 0x34


class ServedFunction:
    """What a client sees of ``function``."""

    def __init__(self, function: PciFunction) -> None:
        self.function = function
        self.capabilities_hidden = True

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
        if region == CONFIG_REGION:
            return self._read_config(offset, count)
        return self._bar(region, offset, count).read(offset, count).to_bytes(count, "little")

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Change bytes of a region; a BAR takes 1, 2, 4 or 8 at a time."""
        count, value = len(data), int.from_bytes(data, "little")
        if region == CONFIG_REGION:
            self._check_config(offset, count)
            self.function.config.write_bytes(offset, data)
        else:
            self._bar(region, offset, count).write(offset, value, count)

    def reset(self) -> None:
        """Reset the function, and show what it has."""
        self.function.reset()
        self.capabilities_hidden = False

    def disconnected(self) -> None:
        """The client is gone: the next one looks for capabilities too."""
        self.capabilities_hidden = True

    def _bar(self, region: int, offset: int, count: int) -> Bar:
        bar = self.function.bars.get(region)
        if bar is None or count not in SIZES or offset + count > bar.size:
            raise RequestError(errno.EINVAL)
        return bar

    def _check_config(self, offset: int, count: int) -> None:
        if not count or offset + count > self.function.config.size:
            raise RequestError(errno.EINVAL)

    def _read_config(self, offset: int, count: int) -> bytes:
        self._check_config(offset, count)
        data = self.function.config.read_bytes(offset, count)
        if not self.capabilities_hidden:
            return data
        return bytes(self._hidden(offset + at, value) for at, value in enumerate(data))

    def _hidden(self, offset: int, value: int) -> int:
        if offset >= FIRST_CAPABILITY or offset == POINTER:
            return 0
        return value & ~(CAPABILITIES_BIT >> 8 * offset & 0xFF) if offset < 8 else value
