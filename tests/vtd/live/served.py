"""A served machine for tests: an edu and an NVMe function, one unit for all of them."""

from __future__ import annotations

from collections.abc import Callable

from devices.clock import Clock
from devices.function import PciFunction
from devices.models.edu import Edu
from devices.models.nvme.function import Nvme
from devices.topology import Topology
from pagetables.memory import PhysicalMemory
from vtd.dmar.records import Drhd, DrhdFlags, Header
from vtd.dmar.table import Table
from vtd.live.machine import LiveMachine
from vtd.platform import Platform
from vtd.unit.registers.capabilities import PROFILES

BASE = 0xFD00_0000
EDU, NVME = "0000:00:06.0", "0000:00:05.0"


def served_machine(note: Callable[[str], None] = lambda _: None) -> LiveMachine:
    """What the tests connect to."""
    topology = Topology()
    bus = topology.add_root_bus()
    functions: list[tuple[PciFunction, int]] = [(Nvme(), 5), (Edu(), 6)]
    for function, device in functions:
        topology.add(function, bus, device)
    drhd = Drhd(flags=DrhdFlags.of(include_pci_all=True), register_base=BASE)
    table = Table(Header(host_address_width=47), (drhd,)).sealed()
    platform = Platform.build(PhysicalMemory(), topology, table, PROFILES["qemu"])
    return LiveMachine(platform, Clock(), note=note)
