"""The function that holds the registers of the remapping units, 64 KiB each, in its one BAR.

Firmware places the BAR where the DMAR table says that the units are. An operating system that saw
the function would take the BAR for a conflict and move it, so from its first look at CAP_REG on,
with 8 bytes, nobody is there. The class is that of a USB controller, for which firmware turns bus
mastering on: the units' own interrupts leave through this function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from devices.config_space import CONVENTIONAL_SIZE, Command
from devices.function import Identity, PciFunction
from vtd.live.function import ServedFunction
from vtd.unit.unit import RemappingUnit

IDENTITY = Identity(vendor_id=0x8086, device_id=0x7D7D, class_code=0x0C0330)
BAR_SIZE = 1 << 24
CAP_OFFSET = 0x08


class Chipset(PciFunction):
    """The function; ``units`` by the address of their registers, which decides where they are."""

    def __init__(self, units: Mapping[int, RemappingUnit]) -> None:
        super().__init__(IDENTITY, config_size=CONVENTIONAL_SIZE)
        self.base = min(units) & -BAR_SIZE
        """Where its BAR has to be."""
        self.found = False
        """Whether an operating system has found the units."""
        self.on_placed: Callable[[int], None] = lambda _: None
        """Told where the BAR is when firmware switches it on."""
        self.on_probed: Callable[[], None] = lambda: None
        """Called when firmware first looks into the BAR."""
        self._units = list(units.values())
        self._probed = False
        self._windows: list[RegisterWindow] = []
        bar = self.add_bar(0, BAR_SIZE)
        for address, unit in units.items():
            if address + unit.registers.size > self.base + BAR_SIZE:
                raise ValueError(
                    f"unit {address:#x}: its registers are not in the {BAR_SIZE >> 20} MiB from "
                    f"{self.base:#x} on, as those of {min(units):#x}"
                )
            window = RegisterWindow(unit, self._looked_at)
            self._windows.append(window)
            bar.place(address - self.base, unit.registers.size, window)
        self.at_reset.append(self._power_on)

    def _commanded(self, before: Command, after: Command) -> Command:
        if after.mse and not before.mse:
            self.on_placed(self.bars[0].address)
        return super()._commanded(before, after)

    def _looked_at(self, offset: int, size: int) -> None:
        if not self._probed:
            self._probed = True
            self.on_probed()
        if offset == CAP_OFFSET and size == 8:
            self.found = True
            for window in self._windows:
                window.watched = False

    def _power_on(self) -> None:
        """A reset of the machine is one of its units."""
        self.found = self._probed = False
        for window in self._windows:
            window.watched = True
        for unit in self._units:
            unit.reset(power_good=False)


class RegisterWindow:
    """The registers of one unit as a region; ``looked_at`` is told of reads while ``watched``."""

    def __init__(self, unit: RemappingUnit, looked_at: Callable[[int, int], None]) -> None:
        self.watched = True
        self._looked_at = looked_at
        self._unit = unit

    def read(self, offset: int, size: int) -> int:
        """A register."""
        if self.watched:
            self._looked_at(offset, size)
        return self._unit.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """A register."""
        self._unit.write(offset, size, value)


class ServedChipset(ServedFunction):
    """The function as a client sees it: gone once an operating system has found the units."""

    def __init__(self, chipset: Chipset) -> None:
        super().__init__(chipset)
        self._chipset = chipset

    def _read_config(self, offset: int, count: int) -> bytes:
        data = super()._read_config(offset, count)
        return b"\xff" * count if self._chipset.found else data
