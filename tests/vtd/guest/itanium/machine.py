"""A machine with two virtual processors on one logical one, for tests."""

from __future__ import annotations

from collections.abc import Collection

from pagetables.memory import PhysicalMemory
from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.monitor import D_VMSW, Monitor
from vtd.guest.itanium.outcomes import GuestInstruction
from vtd.guest.itanium.pal import Pal
from vtd.guest.itanium.partition import Partition
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.services import PalService
from vtd.guest.itanium.state import Features

BUFFER, HOST_IVA = 0x10_0000, 0x20_0000
VPDS = (0x30_0000, 0x31_0000)
GUEST_MEMORY, GUEST_SIZE = (0x40_0000, 0x80_0000), 0x40_0000
MEMORY_SIZE = 1 << 24


class Itanium:
    """Memory, firmware, a logical processor, a monitor, two guests."""

    def __init__(
        self,
        vac: int = 0,
        vdc: int = D_VMSW,
        *,
        features: Features | None = None,
        leave_out: Collection[PalService] = (),
        options: int = 1 << 8 | 1 << 9,
    ) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, MEMORY_SIZE)
        self.pal = Pal(self.memory)
        self.cpu = ItaniumProcessor(self.memory, features=features)
        self.monitor = Monitor(
            self.pal,
            self.cpu,
            buffer=BUFFER,
            host_iva=HOST_IVA,
            leave_out=leave_out,
            options=options,
        )
        self.guests = tuple(
            self.monitor.create(address, Partition(1 + number, start, GUEST_SIZE), vac=vac, vdc=vdc)
            for number, (address, start) in enumerate(zip(VPDS, GUEST_MEMORY, strict=True))
        )

    def run(self, cause: InterceptCause, register: int = 0, value: int = 0) -> int:
        """An instruction of the guest that runs."""
        return self.monitor.run(GuestInstruction(cause, register, value))
