"""Posting into a posted-interrupt descriptor, and taking from it (SDM 29.6; VT-d 5.2.3).

One descriptor, three parties: the remapping unit posts for devices, IPI virtualization for other
processors, software for itself; the processor that runs the guest takes. Every step is one atomic
update of the 64 bytes, so no interrupt is lost or doubled between them. The unit's own posting is
:mod:`vtd.unit.interrupts.interrupt_remapping`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from vtd.layouts.interrupt_entries import PostedInterruptDescriptor

DESCRIPTOR_SIZE = 64
PIR, ON, SN = (
    bits.mask
    for bits in (
        PostedInterruptDescriptor.pir,
        PostedInterruptDescriptor.on,
        PostedInterruptDescriptor.sn,
    )
)


class DescriptorMemory(Protocol):
    """Memory with atomic updates."""

    def read_record(self, address: int, size: int) -> int: ...

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool: ...


class Notification(NamedTuple):
    """An interrupt that tells a processor to look into its descriptor."""

    vector: int
    destination: int
    """NDST as stored."""


def read_descriptor(memory: DescriptorMemory, address: int) -> PostedInterruptDescriptor:
    """The descriptor at an address."""
    return PostedInterruptDescriptor(memory.read_record(address, DESCRIPTOR_SIZE))


def post(
    memory: DescriptorMemory, address: int, vector: int, *, urgent: bool = False
) -> Notification | None:
    """Post a vector; the notification that has to be sent, if any."""
    while True:
        before = memory.read_record(address, DESCRIPTOR_SIZE)
        notify = not before & (ON if urgent else ON | SN)
        after = before | 1 << vector | (ON if notify else 0)
        if memory.compare_exchange(address, DESCRIPTOR_SIZE, before, after):
            if not notify:
                return None
            told = PostedInterruptDescriptor(before)
            return Notification(told.nv, told.ndst)


def take(memory: DescriptorMemory, address: int) -> int:
    """Clear ON and take all of PIR: steps 3 and 5 of posted-interrupt processing (29.6)."""
    while True:
        before = memory.read_record(address, DESCRIPTOR_SIZE)
        if memory.compare_exchange(address, DESCRIPTOR_SIZE, before, before & ~(PIR | ON)):
            return before & PIR


def suppress(memory: DescriptorMemory, address: int) -> None:
    """What software does when a virtual processor stops running: set SN."""
    _change(memory, address, sn=True)


def wake_with(
    memory: DescriptorMemory, address: int, vector: int, destination: int
) -> Notification | None:
    """What software does when a virtual processor halts: notify with a vector that wakes it.

    What was posted before is told of with the new vector: its own notification came too late.
    """
    return resume_on(memory, address, vector, destination)


def resume_on(
    memory: DescriptorMemory, address: int, vector: int, destination: int
) -> Notification | None:
    """What software does when a virtual processor runs again, perhaps on another processor.

    NV and NDST are those of the processor, SN is cleared, and what was posted meanwhile without a
    notification gets one now: the notification to be sent to the processor itself.
    """
    while True:
        before = read_descriptor(memory, address)
        after = before.replace(nv=vector, ndst=destination, sn=False, on=bool(before.pir))
        if memory.compare_exchange(address, DESCRIPTOR_SIZE, before, after):
            return Notification(vector, destination) if before.pir else None


def _change(memory: DescriptorMemory, address: int, **values: int) -> None:
    while True:
        before = read_descriptor(memory, address)
        after = before.replace(**values)
        if memory.compare_exchange(address, DESCRIPTOR_SIZE, before, after):
            return
