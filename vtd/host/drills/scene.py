"""The stage of the drills: one machine, two guests, and what its host may forget."""

from __future__ import annotations

from collections.abc import Collection

from devices.clock import Clock
from devices.dma import Completion
from devices.function import PciFunction
from devices.models.edu import BUFFER_START, Edu, EduRegister
from pagetables.bits import BitRecord
from vtd.host.guests import Passed, RunningGuest
from vtd.host.plan import read_plan
from vtd.host.planner import judge
from vtd.host.running import RunningHost
from vtd.host.surroundings import Surroundings
from vtd.layouts.descriptors import DescriptorType
from vtd.machine.assembly import Assembly, assemble
from vtd.software.domain import Domain
from vtd.software.driver import Driver
from vtd.software.invalidation import Interface

PAGE = 0x3000
"""The page of guest memory that scenes are about."""
PLAN = """
[[memory]]
start = 0
size = "32 MiB"
[[unit]]
profile = "xeon"
base = 0xfed9_0000
include_all = true
[[region]]
start = 0x1f0_0000
size = 0x1000
devices = ["raid"]
[[bridge]]
name = "first"
at = "00:1c.0"
kind = "root_port"
acs = true
[[bridge]]
name = "second"
at = "00:1d.0"
kind = "root_port"
acs = true
[[function]]
name = "nic"
at = "first/00.0"
sriov = { total = 4, first_offset = 0x80, stride = 1 }
vfs = 2
[[function]]
name = "disk"
at = "second/00.0"
[[function]]
name = "engine"
at = "00:04.0"
model = "edu"
[[function]]
name = "accelerator"
at = "00:05.0"
ats = true
[[function]]
name = "raid"
at = "00:17.0"
parameters = { class_code = 0x010400 }
[[guest]]
name = "a"
cpus = 2
memory = [{ start = 0, size = "1 MiB" }]
[[guest]]
name = "b"
cpus = 2
memory = [{ start = 0, size = "1 MiB" }]
[policy]
page_size = "4K"
[[assign]]
guest = "a"
devices = ["nic.vf0", "engine", "disk"]
[[assign]]
guest = "a"
devices = ["accelerator"]
policy = { ats = true, dirty_tracking = true }
[[assign]]
guest = "a"
devices = ["raid"]
policy = { rmrr = "map" }
[[assign]]
guest = "b"
devices = ["nic.vf1"]
"""


IOTLB = DescriptorType.IOTLB_INV, DescriptorType.P_IOTLB_INV
DEVICE_TLB = DescriptorType.DEV_TLB_INV, DescriptorType.P_DEV_TLB_INV


class Scene:
    """The plan above, running; devices and guests by name.

    The host's driver leaves out the invalidations that are ``forgotten``.
    """

    def __init__(self, forgotten: Collection[DescriptorType] = ()) -> None:
        plan, machine = read_plan(PLAN)
        assert machine is not None  # it is in the text
        self.assembly: Assembly = assemble(machine)
        around = Surroundings.of(self.assembly)
        self.host = RunningHost(judge(plan, around), around, self.assembly)
        self.physical = self.host.physical
        self.topology = self.host.platform.topology
        (self.driver,) = self.host.drivers.values()
        (self.unit,) = self.host.platform.units.values()
        invalidator = self.driver.invalidator
        invalidator.interface = Forgetful(invalidator.interface, forgotten)

    @property
    def clock(self) -> Clock:
        """The time of all devices."""
        return self.assembly.clock

    def passed(self, name: str) -> Passed:
        """A device that a guest has."""
        return next(each for each in self.host.passed if each.name == name)

    def device(self, name: str) -> PciFunction:
        """A function by name."""
        return self.passed(name).function

    def guest(self, name: str) -> RunningGuest:
        """A guest by name."""
        return self.host.guests[name]

    def domain(self, guest: str) -> Domain:
        """The address space of a guest."""
        (domain,) = self.guest(guest).domains.values()
        return domain

    def source_id(self, name: str) -> int:
        """The requester id of a device, as it is now."""
        return int(self.topology.requester_id(self.device(name)))

    def write(self, name: str, address: int, data: bytes) -> Completion:
        """A device writes."""
        return self.device(name).dma.write(address, data)

    def memory(self, guest: str, address: int, length: int) -> bytes:
        """What is in a guest's memory."""
        host = self.guest(guest).host_address(address)
        assert host is not None  # scenes look at memory that is there
        return self.physical.read(host, length)

    def fill(self, guest: str, address: int, data: bytes) -> None:
        """A guest writes its own memory."""
        host = self.guest(guest).host_address(address)
        assert host is not None  # scenes write memory that is there
        self.physical.write(host, data)

    def second_driver(self) -> Driver:
        """The driver of another kernel, with tables of its own."""
        return Driver(self.unit, self.physical, self.host.frames)

    def start_transfer(self, address: int, data: bytes) -> None:
        """The engine is told to write; it does so once :meth:`land` lets the time pass."""
        engine = self.device("engine")
        assert isinstance(engine, Edu)  # as described
        engine.buffer[: len(data)] = data
        engine.write(EduRegister.DMA_SOURCE, 8, BUFFER_START)
        engine.write(EduRegister.DMA_DESTINATION, 8, address)
        engine.write(EduRegister.DMA_COUNT, 8, len(data))
        engine.write(EduRegister.DMA_COMMAND, 8, 0b11)

    def land(self) -> None:
        """Everything that is on its way arrives."""
        self.clock.advance(1_000_000_000)


class Forgetful:
    """Invalidations of some kinds never reach the unit."""

    def __init__(self, interface: Interface, kinds: Collection[DescriptorType]) -> None:
        self._interface = interface
        self._kinds = kinds

    def submit(self, *descriptors: BitRecord) -> None:
        """Pass on what is not forgotten."""
        kept = [each for each in descriptors if _kind(each) not in self._kinds]
        if kept:
            self._interface.submit(*kept)

    def wait(self, *, drain_page_requests: bool = False, fence: bool = False) -> bool:
        """Wait for the rest."""
        return self._interface.wait(drain_page_requests=drain_page_requests, fence=fence)

    @property
    def complete(self) -> bool:
        return self._interface.complete


def _kind(descriptor: BitRecord) -> object:
    return getattr(descriptor, "TYPE", None)
