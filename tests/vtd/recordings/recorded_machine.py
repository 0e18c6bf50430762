"""Machines whose units are recorded: the driver and requests go through, lines come out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from devices.dma import READ, WRITE, Completion, Request
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.dmar.description import build
from vtd.recordings.live_recorder import LiveRecorder
from vtd.software.driver import Driver
from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.unit import RemappingUnit

FIRST, SECOND = 0x0010, 0x0018
"""Source-ids of a function of the first unit and of one of the second."""
TABLE = """
[header]
address_bits = 46

[[structure]]
type = "DRHD"
register_base = 0xfd000000
[[structure.scope]]
type = 1
path = ["2.0"]

[[structure]]
type = "DRHD"
register_base = 0xfd010000
flags = ["include_pci_all"]
"""
DATA = 0x40_0000


class RecordedMachine:
    """Two units behind a table, one function at each, and a driver for each unit."""

    def __init__(
        self,
        has: Capabilities | None = None,
        caches: CachePolicy = KEEPS_STALE,
        **driver: Any,
    ) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 0x80_0000)
        made = has or capabilities()
        options = Options(caches=caches)
        self.units = [RemappingUnit(made, self.memory, options) for _ in range(2)]
        self.lines: list[str] = []
        table = build(TABLE)
        self.recorder = LiveRecorder(self.lines.append, table, self.units, cell="test")
        self.drivers = []
        for number, unit in enumerate(self.units):
            frames = FramePool(0x10_0000 * (number + 1), 0x10_0000 * (number + 2))
            width = made.host_address_width
            self.drivers.append(
                Driver(unit, self.memory, frames, host_address_width=width, **driver)
            )

    def request(self, source_id: int, address: int, access: int = READ) -> int | None:
        """Where a request leads, None if it is refused."""
        unit = self.units[source_id == SECOND]
        payload = None if access == READ else b"\0"
        answer = unit.admit(Request(source_id, address, access, 1, payload=payload))
        return answer if isinstance(answer, int) else None

    def interrupt(self, source_id: int, address: int, data: int) -> bool:
        """Whether an interrupt request is delivered."""
        unit = self.units[source_id == SECOND]
        payload = data.to_bytes(4, "little")
        answer = unit.admit(Request(source_id, address, WRITE, 4, payload=payload))
        return isinstance(answer, Completion) and answer.ok

    def write(self, path: Path) -> Path:
        """The recording as a file."""
        path.write_bytes(gzip.compress("".join(self.lines).encode()))
        return path


def work(machine: RecordedMachine) -> None:
    """Both drivers map, requests are made and refused, interrupts sent, all is unmapped again."""
    for driver, source_id in zip(machine.drivers, (FIRST, SECOND), strict=True):
        driver.start()
        domain = driver.domain()
        driver.attach(source_id, domain)
        for page in range(6):
            domain.map(0x7000_3000 + page * 0x1000, DATA + page * 0x1000, 0x1000)
        for page in range(8):
            machine.request(source_id, 0x7000_2000 + page * 0x1000, READ if page % 2 else WRITE)
        machine.interrupt(source_id, 0xFEE0_1004, 0x31)
        machine.request(source_id, 0xFEE0_0000)
        domain.unmap(0x7000_3000, 0x4000)
        for page in range(8):
            machine.request(source_id, 0x7000_2000 + page * 0x1000)
        driver.stop()


def parsed(machine: RecordedMachine) -> list[Any]:
    """The lines as values."""
    return [json.loads(line) for line in machine.lines]
