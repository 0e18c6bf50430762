"""Drills of functions that are reset, pulled out, plugged in, and given to somebody else."""

from __future__ import annotations

from collections.abc import Iterator

from devices.capabilities import AcsCapabilities, PortType
from devices.function import BME, Identity
from devices.models.inert import Inert
from devices.sriov import NumVfs, SriovControl
from devices.topology import Bridge
from vtd.host.drills.drill import Check, Drill
from vtd.host.drills.scene import PAGE, Scene
from vtd.host.running import COMMAND

LATE = b"written too late"


def function_level_reset(guarded: bool) -> Iterator[Check]:
    """A function goes from one guest to the next with a transfer on its way."""
    scene = Scene()
    scene.start_transfer(PAGE, LATE)
    source_id = scene.source_id("engine")
    scene.driver.detach(source_id)
    if guarded:
        scene.device("engine").reset()
    scene.driver.attach(source_id, scene.domain("b"))
    scene.device("engine").config.write(COMMAND, 2, BME)
    scene.land()
    late = scene.memory("b", PAGE, len(LATE))
    yield Check("nothing of the guest before arrives in the next one", late != LATE)


def guest_reset(guarded: bool) -> Iterator[Check]:
    """A guest starts anew while a transfer of its last life is on its way."""
    scene = Scene()
    scene.start_transfer(PAGE, LATE)
    if guarded:
        scene.device("engine").reset()
    scene.fill("a", PAGE, b"a new kernel ...")
    scene.device("engine").config.write(COMMAND, 2, BME)
    scene.land()
    kernel = scene.memory("a", PAGE, 16)
    yield Check("what the guest loads stays as it loads it", kernel == b"a new kernel ...")


def surprise_removal(guarded: bool) -> Iterator[Check]:
    """A device is pulled out; another is plugged into its slot."""
    scene = Scene()
    disk, source_id = scene.device("disk"), scene.source_id("disk")
    bus = scene.topology.bus_behind(_port(scene, "second"))
    scene.topology.remove(disk)
    gone = disk.dma.write(PAGE, LATE)
    yield Check("what was pulled out reaches nothing", not gone.ok)
    if guarded:
        scene.driver.detach(source_id)
    new = Inert()
    scene.topology.add(new, bus, device=0)
    new.config.write(COMMAND, 2, BME)
    new.dma.write(PAGE, LATE)
    late = scene.memory("a", PAGE, len(LATE))
    yield Check("what is plugged in does not inherit its address space", late != LATE)


def physical_function_reset(guarded: bool) -> Iterator[Check]:
    """The physical function is reset under its virtual ones, which are made again for others."""
    scene = Scene()
    nic = scene.assembly.functions["nic"]
    sriov = nic.sriov
    assert sriov is not None  # as described
    ids = [scene.source_id("nic.vf0"), scene.source_id("nic.vf1")]
    old = scene.device("nic.vf0")
    nic.reset()
    yield Check("virtual functions are gone with it", not old.dma.write(PAGE, LATE).ok)
    if guarded:
        for source_id in ids:
            scene.driver.detach(source_id)
    nic.config.write(sriov.count.offset, 2, NumVfs.of(count=1))
    nic.config.write(sriov.control.offset, 2, SriovControl.of(vf_enable=1, vf_mse=1))
    (new,) = sriov.functions
    new.config.write(COMMAND, 2, BME)
    new.dma.write(PAGE, LATE)
    late = scene.memory("a", PAGE, len(LATE))
    yield Check("a new virtual function does not inherit an address space", late != LATE)


def bridge_hotplug(guarded: bool) -> Iterator[Check]:
    """A bridge is plugged in before another one; buses get new numbers, and ids new owners."""
    scene = Scene()
    names = ("nic.vf0", "nic.vf1", "disk")
    before = {name: scene.source_id(name) for name in names}
    guests = {"nic.vf0": "a", "nic.vf1": "b", "disk": "a"}
    if guarded:
        for source_id in before.values():
            scene.driver.detach(source_id)
    port = Bridge(Identity(0x1B36, 0x000C, 0x060400), PortType.ROOT_PORT)
    port.add_acs(AcsCapabilities.of(sv=1, rr=1, cr=1, uf=1))
    scene.topology.add(port, scene.topology.roots[0], device=0x1B)
    new = Inert()
    scene.topology.add(new, scene.topology.bus_behind(port), device=0)
    scene.topology.assign_bus_numbers()
    if guarded:
        for name, guest in guests.items():
            scene.driver.attach(scene.source_id(name), scene.domain(guest))
    port.config.write(COMMAND, 2, BME)
    new.config.write(COMMAND, 2, BME)
    answers = [scene.write(name, PAGE, name.encode()) for name in names]
    yield Check("devices work under their new ids", all(each.ok for each in answers))
    at = [scene.memory(guests[name], PAGE, len(name)) for name in ("nic.vf1", "disk")]
    yield Check("each in the memory of its own guest", at == [b"nic.vf1", b"disk"])
    yield Check("the new device reaches nothing", not new.dma.write(PAGE, LATE).ok)


def reserved_region(guarded: bool) -> Iterator[Check]:
    """A device with a reserved region is given away and taken back."""
    scene = Scene()
    start = 0x1F0_0000
    source_id = scene.source_id("raid")
    scene.driver.detach(source_id)
    host = scene.driver.domain(largest=12)
    if guarded:
        host.map(start, start, 0x1000)
    scene.driver.attach(source_id, host)
    answer = scene.write("raid", start, b"of the firmware")
    yield Check("firmware's DMA works when the host has the device again", answer.ok)
    yield Check("and reaches no guest", not scene.write("raid", PAGE, LATE).ok)


def _port(scene: Scene, name: str) -> Bridge:
    port = scene.assembly.functions[name]
    assert isinstance(port, Bridge)  # as described
    return port


DRILLS = (
    Drill("flr", "a function goes from guest to guest with a transfer on its way",
          "a function level reset between them", "PCIe 6.6.2", function_level_reset),
    Drill("guest-reset", "a guest starts anew with a transfer on its way",
          "a reset of its devices", "PCIe 6.6.2", guest_reset),
    Drill("surprise-removal", "a device is pulled out, another is plugged into its slot",
          "its address space is taken away when it goes", "6.5.3.3", surprise_removal),
    Drill("pf-reset", "a physical function is reset under its virtual functions",
          "their address spaces are taken away before new ones appear", "PCIe 9.2",
          physical_function_reset),
    Drill("bridge-hotplug", "a bridge is plugged in, and requester ids change owners",
          "address spaces follow the devices, not the ids", "3.4.1", bridge_hotplug),
    Drill("reserved-region", "a device with a reserved region is given away and taken back",
          "the region is mapped for it again first", "8.4", reserved_region),
)  # fmt: skip
