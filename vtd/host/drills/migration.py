"""Drills of what moves: a guest to another host, a virtual processor to another core."""

from __future__ import annotations

from collections.abc import Iterator

from vtd.guest.x86.posting import read_descriptor, resume_on, suppress
from vtd.host.drills.drill import Check, Drill
from vtd.host.drills.scene import DEVICE_TLB, IOTLB, PAGE, Scene
from vtd.host.running import VECTOR
from vtd.host.virtual_processor import NOTIFICATION
from vtd.layouts.interrupt_entries import (
    PostedInterruptDescriptor,
    PostedIrte,
    SourceValidationType,
)

SIZE = 0x10_0000
PAGES = (PAGE, PAGE + 0x1000, PAGE + 0x5000)


def _copied(scene: Scene, target: bytearray) -> None:
    """One round: what is dirty is copied, and its D cleared."""
    for address, size in scene.domain("a").read_and_clear_dirty(0, SIZE):
        target[address : address + size] = scene.memory("a", address, size)


def _moves(scene: Scene, device: str) -> Iterator[Check]:
    """A guest moves while a device writes the same pages again and again."""
    scene.domain("a").set_dirty_tracking(enabled=True)
    target = bytearray(scene.memory("a", 0, SIZE))
    for number in range(3):
        for address in PAGES:
            scene.write(device, address, f"round {number}".encode())
        _copied(scene, target)
    lost = [address for address in PAGES if target[address : address + 7] != b"round 2"]
    yield Check(f"no page is lost ({len(lost)} of {len(PAGES)} are)", not lost)


def dirty_tracking(guarded: bool) -> Iterator[Check]:
    """Without the IOTLB invalidation, D is not set again: the unit knows it as set."""
    yield from _moves(Scene(() if guarded else IOTLB), "disk")


def dirty_tracking_device_tlb(guarded: bool) -> Iterator[Check]:
    """Without the device-TLB invalidation, the device writes by its own translation."""
    yield from _moves(Scene(() if guarded else DEVICE_TLB), "accelerator")


def processor_moves(guarded: bool) -> Iterator[Check]:
    """A virtual processor stops here and goes on there; an interrupt is posted in between."""
    scene = Scene()
    address = scene.host.frames.allocate() << 12
    descriptor = PostedInterruptDescriptor.of(nv=NOTIFICATION, ndst=1 << 8)
    scene.physical.write(address, descriptor.pack())
    entry = PostedIrte.of(
        p=True, im=True, vv=VECTOR, pdal=address, sid=scene.source_id("disk"),
        svt=SourceValidationType.SOURCE_ID,
    )  # fmt: skip
    suppress(scene.physical, address)
    scene.passed("disk").send(scene.driver.interrupts.allocate(entry))
    waiting = read_descriptor(scene.physical, address)
    yield Check("it waits in the descriptor", bool(waiting.pir >> VECTOR & 1) and not waiting.on)
    if guarded:
        notified = resume_on(scene.physical, address, NOTIFICATION, 2 << 8)
    else:  # NDST and SN written, PIR not looked at
        moved = read_descriptor(scene.physical, address).replace(ndst=2 << 8, sn=False)
        scene.physical.write(address, moved.pack())
        notified = None
    yield Check("the processor is told of it where it goes on", notified is not None)


DRILLS = (
    Drill("migration", "a guest moves while a device writes its memory",
          "the IOTLB invalidation after D is cleared", "3.7.2, 6.5.3.3", dirty_tracking),
    Drill("migration-device-tlb", "the same with a device that keeps translations",
          "the device-TLB invalidation after D is cleared", "3.7.2, 6.5.3.3",
          dirty_tracking_device_tlb),
    Drill("processor-moves", "an interrupt is posted while a virtual processor moves",
          "PIR is looked at after SN is cleared", "9.11, SDM 29.6", processor_moves),
)  # fmt: skip
