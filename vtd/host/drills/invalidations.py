"""Drills of unmapping: each invalidation is left out in turn, and somebody uses the old page."""

from __future__ import annotations

from collections.abc import Iterator

from devices.dma import READ
from vtd.host.drills.drill import Check, Drill
from vtd.host.drills.scene import DEVICE_TLB, IOTLB, PAGE, Scene
from vtd.host.guest_machine import PAGE as SHARED
from vtd.host.guest_machine import GuestMachine
from vtd.layouts.descriptors import DescriptorType

NEW = b"belongs to somebody else now"


def _page_changes_hands(scene: Scene, device: str) -> Iterator[Check]:
    """The host takes a page from guest a and gives it to another; then a device acts."""
    host = scene.guest("a").host_address(PAGE)
    assert host is not None  # the page is in the memory of the guest
    yield Check("the device reaches the page before", scene.write(device, PAGE, b"before").ok)
    scene.domain("a").unmap(PAGE, 0x1000)
    scene.physical.write(host, NEW)
    scene.write(device, PAGE, b"after")
    yield Check("the page keeps what its new owner wrote", scene.physical.read(host, 28) == NEW)


def unmap_iotlb(guarded: bool) -> Iterator[Check]:
    """Without the IOTLB invalidation the unit goes on with what it keeps."""
    yield from _page_changes_hands(Scene(() if guarded else IOTLB), "disk")


def unmap_device_tlb(guarded: bool) -> Iterator[Check]:
    """Without the device-TLB invalidation the device sends the old translated address."""
    yield from _page_changes_hands(Scene(() if guarded else DEVICE_TLB), "accelerator")


def unmap_invept(guarded: bool) -> Iterator[Check]:
    """Without INVEPT the processor goes on with the mapping that it keeps."""
    machine = GuestMachine()
    machine.guest.store(SHARED, b"before")
    machine.domain.protect(SHARED, 0x1000, READ)
    if guarded:
        machine.virtual.invept()
    machine.guest.store(SHARED, b"after!")
    kept = machine.device.dma.read(SHARED, 6).data
    yield Check("the guest no longer writes to the page", kept == b"before")


def interrupt_entry(guarded: bool) -> Iterator[Check]:
    """Without the interrupt entry cache invalidation an entry lives on after it was taken away."""
    scene = Scene(() if guarded else (DescriptorType.IEC_INV,))
    disk = scene.passed("disk")
    assert disk.handle is not None  # its interrupts are remapped
    yield Check("its interrupt is delivered before", disk.send(disk.handle) is not None)
    scene.driver.interrupts.free(disk.handle)
    late = disk.send(disk.handle)
    yield Check("no interrupt comes by an entry that was taken away", late is None)


DRILLS = (
    Drill("unmap-iotlb", "a page is unmapped and given to somebody else while a device uses it",
          "the IOTLB invalidation", "6.5.3.3", unmap_iotlb),
    Drill("unmap-device-tlb", "the same with a device that keeps translations",
          "the device-TLB invalidation", "6.5.2.5, 6.5.3.3", unmap_device_tlb),
    Drill("unmap-invept", "a page becomes read-only while a processor keeps its mapping", "INVEPT",
          "SDM 28.3.3", unmap_invept),
    Drill("interrupt-entry", "an interrupt entry is taken away from a device",
          "the interrupt entry cache invalidation", "6.5.2.8", interrupt_entry),
)  # fmt: skip
