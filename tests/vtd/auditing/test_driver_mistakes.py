"""Mistakes of drivers by what a finding has to name, and legal sequences that look like mistakes.

Of the kinds that Linux, Xen, KVM, FreeBSD, seL4 and EDK II had. Each mistake has its mended form,
of which nothing may be said. ``test_field_bugs.py`` has single bugs as they were.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devices.dma import InvalidationRequest, PageGroupResponse, PageRequest
from pagetables.build import TableBuilder
from tests.vtd.auditing.rig import (
    CONTEXTS,
    DATA,
    DEVICE,
    DIRECTORY,
    EVERYTHING,
    FIRST,
    INTERRUPTS,
    LEGACY,
    NEIGHBOUR,
    NESTED,
    OTHER,
    PASIDS,
    PERMISSIONS,
    QUEUE,
    ROOT,
    SECOND,
    Rig,
    leaf,
    legacy,
)
from tests.vtd.auditing.test_field_bugs import (
    entry_of,
    first_stage,
    interrupts,
    nested,
    said,
    send,
)
from tests.vtd.auditing.test_invalidation_rules import with_permissions
from vtd.layouts.descriptors import (
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.entries import (
    AddressWidth,
    HostPermissionL2Entry,
    PasidEntry,
    PasidTranslationType,
    TranslationType,
)
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor, PostedIrte, RemappedIrte
from vtd.layouts.registers import InterruptRemappingTableAddress, IotlbGranularity

Story = Callable[[bool], Rig]
MISTAKES: dict[str, tuple[Story, str]] = {}
LEGAL: dict[str, Callable[[], Rig]] = {}


def mistake(name: str, named: str) -> Callable[[Story], Story]:
    """What a driver did, or would have done if ``mended``; ``named`` is in one of the findings."""

    def declare(function: Story) -> Story:
        MISTAKES[name] = function, named
        return function

    return declare


def legal(name: str) -> Callable[[Callable[[], Rig]], Callable[[], Rig]]:
    """What a driver may do."""

    def declare(function: Callable[[], Rig]) -> Callable[[], Rig]:
        LEGAL[name] = function
        return function

    return declare


DESCRIPTOR, ANOTHER = 0xC000, 0xD000
INDEX = 4
ENTRY = INTERRUPTS + INDEX * 16
POINTERS = {"esrtps": False, "esirtps": False}


def second_stage(length: int = 0x1000, *, ssade: bool = False) -> tuple[Rig, TableBuilder]:
    """A second stage for requests without PASID, of which nothing has been used."""
    rig = Rig()
    table = rig.second()
    table.map(0, DATA, length)
    rig.context()
    rig.pasid(0, SECOND, table=table, ssade=ssade)
    rig.start()
    return rig, table


def with_device_tlbs(*functions: int) -> tuple[Rig, TableBuilder]:
    """Functions in legacy mode that share a domain and may ask for translations."""
    rig = Rig(LEGACY, ecap={"dt": True})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    for source_id in functions:
        rig.context(source_id, ssptptr=table.root << 12, tt=TranslationType.DEVICE_TLB)
    rig.start()
    return rig, table


def posted(descriptor: int = DESCRIPTOR, **fields: int) -> PostedIrte:
    return PostedIrte.of(p=True, im=True, vv=0x40, svt=1, sid=DEVICE, pdal=descriptor, **fields)


def remapped(vector: int = 0x41, source_id: int = DEVICE) -> RemappedIrte:
    return RemappedIrte.of(p=True, v=vector, svt=1, sid=source_id)


def with_posted() -> Rig:
    """An interrupt that has been posted once."""
    rig = Rig(cap={"pi": True})
    rig.context()
    rig.put(ENTRY, posted())
    rig.put(DESCRIPTOR, PostedInterruptDescriptor.of(nv=0xF2, ndst=0x100))
    rig.start(interrupts=True)
    send(rig, INDEX)
    return rig


def store(rig: Rig, address: int, value: int) -> None:
    rig.memory.write(address, value.to_bytes(8, "little"))


# Interrupts


@mistake("a posted entry was made a remapped one", "iec_inv of index 4")
def _(mended: bool) -> Rig:
    rig = with_posted()
    rig.put(ENTRY, remapped())
    if mended:
        rig.iec(INDEX)
        rig.wait()
    send(rig, INDEX)
    return rig


@mistake("a posted entry led to another virtual processor", "iec_inv of index 4")
def _(mended: bool) -> Rig:
    rig = with_posted()
    rig.put(ANOTHER, PostedInterruptDescriptor.of(nv=0xF2, ndst=0x200))
    rig.put(ENTRY, posted(ANOTHER))
    if mended:
        rig.iec(INDEX)
        rig.wait()
    send(rig, INDEX)
    return rig


@mistake("the descriptor of a virtual processor was freed before iec_inv", "descriptor at 0xc000")
def _(mended: bool) -> Rig:
    rig = with_posted()
    rig.put(ENTRY, remapped())
    if mended:
        rig.iec(INDEX)
        rig.wait()
    rig.memory.load(DESCRIPTOR, b"\x55" * 4096)
    if not mended:
        rig.iec(INDEX)
        rig.wait()
    return rig


@mistake("the descriptor of a virtual processor was freed before the wait", "descriptor at 0xc000")
def _(mended: bool) -> Rig:
    rig = with_posted()
    rig.clear(ENTRY, 16)
    rig.iec(INDEX)
    if mended:
        rig.wait()
    rig.put(DESCRIPTOR, PostedInterruptDescriptor.of(nv=0x11))
    rig.wait()
    return rig


@mistake(
    "an interrupt went to another device: the verified requester changed", "iec_inv of index 4"
)
def _(mended: bool) -> Rig:
    rig = interrupts(1)
    rig.put(ENTRY, remapped(0x44, NEIGHBOUR))
    if mended:
        rig.iec(INDEX)
        rig.wait()
    send(rig, INDEX, NEIGHBOUR)
    return rig


@mistake("multi-message MSI: the index mask was one too small", "iec_inv of index 6")
def _(mended: bool) -> Rig:
    rig = interrupts(4)
    for index in range(4, 8):
        rig.put(INTERRUPTS + index * 16, remapped(0x90 + index))
    rig.iec(4, im=2 if mended else 1)
    rig.wait()
    for index in range(4, 8):
        send(rig, index)
    return rig


def moved_interrupts() -> Rig:
    """The interrupt-remapping table is copied and set anew, as when a kernel takes over."""
    rig = Rig(cap=POINTERS)
    rig.context()
    rig.put(ENTRY, remapped())
    rig.start(interrupts=True)
    send(rig, INDEX)
    rig.memory.load(ANOTHER, rig.memory.read(INTERRUPTS, 0x1000))
    rig.unit.write_register(0xB8, 8, InterruptRemappingTableAddress.of(irta=ANOTHER, s=7))
    rig.unit.write_register(0x18, 4, rig.command.replace(sirtp=True))
    return rig


@mistake("another interrupt-remapping table was set", "global iec_inv")
def _(mended: bool) -> Rig:
    rig = moved_interrupts()
    if mended:
        rig.iec()
        rig.wait()
    send(rig, INDEX)
    return rig


@mistake("the old interrupt-remapping table was freed before the wait", "the table at 0xa000")
def _(mended: bool) -> Rig:
    rig = moved_interrupts()
    rig.iec()
    if mended:
        rig.wait()
    rig.memory.load(INTERRUPTS, b"\x77" * 4096)
    rig.wait()
    return rig


@mistake("CM = 1: an entry became present", "iec_inv of index 9")
def _(mended: bool) -> Rig:
    rig = Rig(cap={"cm": True})
    rig.context()
    rig.start(interrupts=True)
    send(rig, 9)
    rig.put(INTERRUPTS + 9 * 16, remapped())
    if mended:
        rig.iec(9)
        rig.wait()
    send(rig, 9)
    return rig


@legal("a virtual processor moves: its descriptor says so, and no entry changes")
def _() -> Rig:
    rig = with_posted()
    rig.put(DESCRIPTOR, PostedInterruptDescriptor.of(nv=0xF2, ndst=0x300, sn=True))
    send(rig, INDEX)
    store(rig, DESCRIPTOR + 32, 0)
    send(rig, INDEX)
    return rig


@legal("one of two entries of a virtual processor goes, and its descriptor stays in use")
def _() -> Rig:
    rig = with_posted()
    rig.put(ENTRY + 16, posted())
    send(rig, INDEX + 1)
    rig.clear(ENTRY, 16)
    rig.iec(INDEX)
    rig.put(DESCRIPTOR, PostedInterruptDescriptor.of(nv=0xF2, ndst=0x300))
    rig.wait()
    send(rig, INDEX + 1)
    return rig


@legal("beside a descriptor that is given up another one is made")
def _() -> Rig:
    rig = with_posted()
    rig.clear(ENTRY, 16)
    rig.iec(INDEX)
    rig.put(DESCRIPTOR + 64, PostedInterruptDescriptor.of(nv=0xF2))
    rig.wait()
    return rig


@legal("an interrupt entry becomes present, its upper half first")
def _() -> Rig:
    rig = interrupts(1)
    send(rig, 9)
    entry = remapped().pack()
    rig.memory.write(INTERRUPTS + 9 * 16 + 8, entry[8:])
    rig.memory.write(INTERRUPTS + 9 * 16, entry[:8])
    send(rig, 9)
    return rig


# Root and context entries


def legacy_context(source_id: int = DEVICE) -> int:
    return CONTEXTS + source_id * 16


@mistake("cc_inv had the domain-id that was read after the entry was cleared", "cc_inv of 00:02.0")
def _(mended: bool) -> Rig:
    rig, _ = legacy(did=7)
    rig.clear(legacy_context(), 16)
    rig.cc(did=7 if mended else 0)
    rig.iotlb(7)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake("cc_inv had bus and function swapped", "cc_inv of 00:02.0")
def _(mended: bool) -> Rig:
    rig, _ = legacy(did=7)
    rig.clear(legacy_context(), 16)
    rig.cc(DEVICE if mended else DEVICE << 8, did=7)
    rig.iotlb(7)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake("tables got a level less, and only the context cache was flushed", "iotlb_inv of domain 1")
def _(mended: bool) -> Rig:
    rig = Rig(LEGACY, cap={"sagaw": 6})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    rig.port().read(0, 4)
    lower = rig.memory.read_record(table.root << 12, 8) & (1 << 52) - 0x1000
    rig.context(ssptptr=lower, aw=AddressWidth.AGAW_39)
    rig.cc()
    if mended:
        rig.iotlb(1)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake("iotlb_inv was of the new domain", "domain-selective iotlb_inv of domain 7")
def _(mended: bool) -> Rig:
    rig, _ = legacy(did=7)
    other_domain(rig)
    rig.cc(did=7)
    rig.iotlb(7 if mended else 9)
    rig.wait()
    rig.port().read(0, 4)
    return rig


def other_domain(rig: Rig) -> None:
    other = rig.second()
    other.map(0, DATA + 0x8000, 0x1000)
    rig.context(ssptptr=other.root << 12, did=9)


@mistake("ATS was enabled in a present context entry", "cc_inv of 00:02.0")
def _(mended: bool) -> Rig:
    rig = Rig(LEGACY, ecap={"dt": True})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    rig.port().read(0, 4)
    rig.context(ssptptr=table.root << 12, tt=TranslationType.DEVICE_TLB)
    if mended:
        rig.cc()
        rig.iotlb(1)
        rig.device_tlb()
    rig.wait()
    rig.port().translate(0, 1)
    return rig


@mistake("a bus went: its root entry was cleared, and only the IOTLB flushed", "global cc_inv")
def _(mended: bool) -> Rig:
    rig, _ = legacy()
    rig.clear(ROOT, 16)
    if mended:
        rig.cc(None)
    rig.iotlb(None)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake("a function under another number kept its context entry cached", "cc_inv of 00:03.0")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    rig.context(NEIGHBOUR, ssptptr=table.root << 12)
    rig.port(NEIGHBOUR).read(0, 4)
    for source_id in (DEVICE, NEIGHBOUR):
        rig.clear(legacy_context(source_id), 16)
    rig.cc()
    if mended:
        rig.cc(NEIGHBOUR)
    rig.iotlb(1)
    rig.wait()
    rig.port(NEIGHBOUR).read(0, 4)
    return rig


@mistake(
    "tables changed while translation was off, on a unit that remembers", "iotlb_inv of domain 1"
)
def _(mended: bool) -> Rig:
    rig, table = legacy()
    rig.unit.write_register(0x18, 4, rig.command.replace(te=False))
    table.unmap(0, 0x1000)
    table.map(0, DATA + 0x8000, 0x1000)
    if mended:
        rig.iotlb(1)
        rig.wait()
    rig.unit.write_register(0x18, 4, rig.command)
    rig.port().read(0, 4)
    return rig


def absent_context(**cap: bool) -> tuple[Rig, TableBuilder]:
    """A device that was refused, and has a context entry now."""
    rig = Rig(LEGACY, cap=cap)
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.start()
    rig.port().read(0, 4)
    rig.context(ssptptr=table.root << 12, did=7)
    return rig, table


@mistake("CM = 1: a context entry became present", "cc_inv of 00:02.0")
def _(mended: bool) -> Rig:
    rig, _ = absent_context(cm=True)
    if mended:  # what is absent has domain-id 0 (6.2.2.1)
        rig.cc(did=0)
        rig.iotlb(7)
        rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake("CM = 1: a device had domain-id 0", "domain-id 0 stands for what is kept of faults")
def _(mended: bool) -> Rig:
    """6.2.2.1: absent entries are tagged with it."""
    return legacy(cm=True, did=1 if mended else 0)[0]


@mistake("CM = 1: a PASID had domain-id 0", "domain-id 0 stands for what is kept of faults")
def _(mended: bool) -> Rig:
    rig = Rig(cap={"cm": True})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(0, SECOND, table=table, did=1 if mended else 0)
    rig.start()
    for address in (0, 0x10):
        rig.port().read(address, 4)
    return rig


@legal("CM = 0: a device has domain-id 0")
def _() -> Rig:
    return legacy(did=0)[0]


@legal("CM = 0: a context entry becomes present")
def _() -> Rig:
    rig, _ = absent_context()
    rig.port().read(0, 4)
    return rig


# PASID entries


@mistake("the IOTLB was flushed before the PASID cache", "p_iotlb_inv came before")
def _(mended: bool) -> Rig:
    rig, _ = without_pasid()
    for give in (0, 1) if mended else (1, 0):
        if give:
            rig.pasid_iotlb(5)
        else:
            rig.pc(1, 5)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


def without_pasid() -> tuple[Rig, TableBuilder]:
    """The entry of PASID 5, which has been used, is not present any more."""
    rig, table = first_stage()
    rig.port().read(0, 4, pasid=5)
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    return rig, table


@mistake("the device-TLB was flushed before the IOTLB", "p_dev_tlb_inv of 00:02.0, PASID 0x5")
def _(mended: bool) -> Rig:
    rig, _ = first_stage()
    rig.port().translate(0, 1, pasid=5)
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    rig.pc(1, 5)
    if not mended:
        rig.device_tlb(5)
    rig.pasid_iotlb(5)
    if mended:
        rig.device_tlb(5)
    rig.wait()
    return rig


@mistake(
    "RID_PASID was flushed from the device-TLB as if it were a PASID", "dev_tlb_inv of 00:02.0"
)
def _(mended: bool) -> Rig:
    rig, _ = first_stage(pasid=0)
    rig.port().translate(0, 1)
    rig.memory.write(PASIDS, bytes(8))
    rig.pc(1, 0)
    rig.pasid_iotlb(0)
    rig.device_tlb(None if mended else 0)
    rig.wait()
    return rig


@mistake("pc_inv was of another PASID", "pc_inv of domain 1, PASID 0x5")
def _(mended: bool) -> Rig:
    rig, _ = without_pasid()
    rig.pc(1, 5 if mended else 4)
    rig.pasid_iotlb(5)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@mistake("pc_inv was of another domain", "pc_inv of domain 1, PASID 0x5")
def _(mended: bool) -> Rig:
    rig, _ = without_pasid()
    rig.pc(1 if mended else 2, 5)
    rig.pasid_iotlb(5)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@mistake(
    "another process got a PASID, which was only flushed from the PASID cache", "p_iotlb_inv of"
)
def _(mended: bool) -> Rig:
    rig, _ = first_stage()
    rig.port().read(0, 4, pasid=5)
    other = rig.first()
    other.map(0, DATA + 0x5000, 0x1000)
    rig.put(PASIDS + 5 * 64, rig.pasid_record(5).replace(fsptptr=other.root << 12))
    rig.pc(1, 5)
    if mended:
        rig.pasid_iotlb(5)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@mistake("CM = 1: a PASID entry became present", "pc_inv")
def _(mended: bool) -> Rig:
    rig = Rig(cap={"cm": True})
    table = rig.first()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.start()
    rig.port().read(0, 4, pasid=5)
    rig.pasid(5, FIRST, table=table)
    if mended:
        rig.pc(0, 5)
        rig.pasid_iotlb(5)
        rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@mistake("the pointer of a host permission table changed before its domain-id", "several stores")
def _(mended: bool) -> Rig:
    """6.2.6.2: in one write of 16 bytes."""
    rig, _ = with_permissions()
    entry = rig.pasid_record(0).replace(hptptr=ANOTHER, hptdid=10).pack()
    if mended:
        rig.memory.write(PASIDS + 32, entry[32:48])
    else:
        rig.memory.write(PASIDS + 32, entry[32:40])
        rig.memory.write(PASIDS + 40, entry[40:48])
    rig.pc(1, 0)
    rig.pasid_iotlb(0)
    rig.device_tlb()
    rig.permissions(9)
    rig.wait()
    return rig


@legal("all invalidations are coarser than owed")
def _() -> Rig:
    rig, _ = first_stage()
    rig.port().translate(0, 1, pasid=5)
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    rig.cc(None)
    rig.pc(None)
    rig.iotlb(None)
    rig.queue.submit(
        PasidDeviceTlbInvalidateDescriptor.of(
            sid=DEVICE, gi=True, s=True, addr=EVERYTHING, pfsid_15_4=DEVICE & 0xFFF0
        )
    )
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


def other_device(rig: Rig, entry: PasidEntry, pasid: int = 0) -> None:
    """A neighbour with a PASID table of its own."""
    rig.context(NEIGHBOUR, directory=OTHER)
    rig.directory(ANOTHER, at=OTHER)
    rig.put(ANOTHER + pasid * 64, entry)


@mistake(
    "two first stages had one domain-id and PASID", "domain-id 1 stands for two sets of tables"
)
def _(mended: bool) -> Rig:
    """6.2.3.1: paging-structure caches know them apart by nothing else (Table 17)."""
    rig, _ = first_stage(pasid=0)
    other = rig.first()
    other.map(0, DATA + 0x1000, 0x1000)
    did = 2 if mended else 1
    other_device(rig, rig.pasid_record(0).replace(fsptptr=other.root << 12, did=did))
    for source_id in (DEVICE, NEIGHBOUR):
        rig.port(source_id).read(0, 4)
    return rig


@mistake("pass-through had the domain-id of a second stage", "with a second stage and others")
def _(mended: bool) -> Rig:
    rig, _ = second_stage()
    through = PasidTranslationType.PASS_THROUGH
    entry = PasidEntry.of(p=True, pgtt=through, did=2 if mended else 1)
    rig.put(PASIDS + 5 * 64, entry)
    rig.port().read(0, 4)
    rig.port().read(DATA, 4, pasid=5)
    return rig


@mistake("dirty tracking began for one of two users of a table", "SSADE is 0 and 1")
def _(mended: bool) -> Rig:
    """6.2.3.1: SSADE is a property of the table. While it changes, one entry has it first."""
    rig, table = second_stage()
    rig.pasid(5, SECOND, table=table)
    for pasid in (None, 5):
        rig.port().write(0, b"x", pasid=pasid)
    for pasid in (0, 5) if mended else (0,):
        rig.put(PASIDS + pasid * 64, rig.pasid_record(pasid).replace(ssade=True))
        rig.pc(1, pasid)
        rig.iotlb(1)
        rig.device_tlb(pasid or None)
        rig.wait()
        for other in (None, 5):
            rig.port().write(0, b"y", pasid=other)
    return rig


@mistake("extended-accessed flags were for one of two users of a table", "two FSPM or EAFE")
def _(mended: bool) -> Rig:
    rig = Rig(ecap={"eafs": True})
    table = rig.first()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(5, FIRST, table=table, eafe=True)
    rig.pasid(6, FIRST, table=table, eafe=mended)
    rig.start()
    for pasid in (5, 6):
        rig.port().read(0, 4, pasid=pasid)
    return rig


@legal("first stages and pass-through of a device have one domain-id")
def _() -> Rig:
    """6.2.3.1 recommends it."""
    rig, _ = first_stage()
    for pasid in (6, 7):
        table = rig.first()
        table.map(0, DATA + (pasid << 12), 0x1000)
        rig.pasid(pasid, FIRST, table=table)
    through = PasidEntry.of(p=True, pgtt=PasidTranslationType.PASS_THROUGH, did=1)
    rig.put(PASIDS + 8 * 64, through)
    for pasid in (5, 6, 7, 8):
        rig.port().read(DATA if pasid == 8 else 0, 4, pasid=pasid)
    return rig


@legal("one process has one PASID on two devices, each with a PASID table of its own")
def _() -> Rig:
    rig, _ = first_stage()
    other_device(rig, rig.pasid_record(5), pasid=5)
    for source_id in (DEVICE, NEIGHBOUR):
        rig.port(source_id).read(0, 4, pasid=5)
    return rig


@legal("a device is gone by its context entry, and another one gets its domain-id")
def _() -> Rig:
    """What no entry leads to any more counts for nothing, though it is in memory as it was."""
    rig, _ = second_stage()
    rig.port().read(0, 4)
    rig.clear(CONTEXTS + DEVICE * 32, 32)
    rig.cc(did=0)
    rig.pc(1)
    rig.iotlb(1)
    rig.device_tlb()
    rig.wait()
    other = rig.second()
    other.map(0, DATA + 0x1000, 0x1000)
    other_device(rig, rig.pasid_record(0).replace(ssptptr=other.root << 12, ssade=True))
    rig.port(NEIGHBOUR).read(0, 4)
    return rig


@mistake("the kind of translation changed after its table", "several stores")
def _(mended: bool) -> Rig:
    """6.2.3.1: each state in between is to be consistent; a table in use is no longer one."""
    rig, _ = first_stage(pasid=0)
    rig.port().read(0, 4)
    table = rig.second()
    table.map(0, DATA + 0x8000, 0x1000)
    rig.pasid(6, SECOND, table=table)
    entry = rig.pasid_record(6).pack()
    for number in range(8) if mended else reversed(range(8)):
        rig.memory.write(PASIDS + 8 * number, entry[8 * number :][:8])
    rig.pc(1, 0)
    rig.pasid_iotlb(0)
    rig.device_tlb()
    rig.wait()
    rig.port().read(0, 4)
    return rig


@legal("the pointer of a stage that an entry does not have yet is stored before it gets it")
def _() -> Rig:
    rig, _ = second_stage()
    rig.port().read(0, 4)
    table = rig.first()
    table.map(0, DATA + 0x8000, 0x1000)
    rig.pasid(6, FIRST, table=table, did=2)
    entry = rig.pasid_record(6).pack()
    for at in (48, 32, 16, 0):
        rig.memory.write(PASIDS + at, entry[at:][:16])
    rig.pc(1, 0)
    rig.iotlb(1)
    rig.device_tlb()
    rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake(
    "a second stage of a PASID went, and p_iotlb_inv was given", "iotlb_inv of domain 1 was not"
)
def _(mended: bool) -> Rig:
    """Table 24: that leaves what is kept of second-stage tables, so Table 28 has the domain."""
    rig, _ = second_stage()
    rig.port().read(0, 4)
    rig.memory.write(PASIDS, bytes(8))
    rig.pc(1, 0)
    if mended:
        rig.iotlb(1)
    else:
        rig.pasid_iotlb(0)
    rig.device_tlb()
    rig.wait()
    return rig


@mistake("a device left its domain, and its only page was flushed", "iotlb_inv of domain 1 was not")
def _(mended: bool) -> Rig:
    rig, _ = legacy()
    rig.clear(legacy_context(), 16)
    rig.cc()
    rig.iotlb(1, None if mended else 0, ih=not mended)
    rig.wait()
    return rig


# Page requests


def without_answer() -> Rig:
    """A request without PASID waits for its page."""
    rig, _ = first_stage(pasid=0)
    rig.port().read(0, 4)
    rig.unit.write_register(0xD0, 8, PERMISSIONS)
    assert rig.port().page_request(PageRequest(0x5000, True, False, 7, True)).ok
    return rig


def another_space(rig: Rig, *, drained: bool) -> Rig:
    """RID_PASID's address space is replaced."""
    other = rig.first()
    other.map(0, DATA + 0x8000, 0x1000)
    entry = rig.pasid_record(0)
    rig.clear(PASIDS, 8)
    rig.pc(1, 0)
    rig.pasid_iotlb(0)
    rig.device_tlb()
    assert rig.queue.wait(drain_page_requests=drained)
    rig.clear(PASIDS, 64)
    rig.put(PASIDS, entry.replace(fsptptr=other.root << 12, did=4))
    rig.port().read(0, 4)
    return rig


@mistake(
    "the address space of requests without PASID went, and one was waiting", "was waiting for it"
)
def _(mended: bool) -> Rig:
    rig = without_answer()
    if mended:
        rig.queue.submit(PageGroupResponseDescriptor.of(rid=DEVICE, prgi=7))
    return another_space(rig, drained=True)


@mistake("the address space of requests without PASID went undrained", "drained them")
def _(mended: bool) -> Rig:
    rig = without_answer()
    rig.queue.submit(PageGroupResponseDescriptor.of(rid=DEVICE, prgi=7))
    return another_space(rig, drained=mended)


@mistake("page requests were drained before the device-TLB was invalidated", "drained them")
def _(mended: bool) -> Rig:
    """7.10: requests on their way from the device come before its answer to that."""
    rig = without_answer()
    rig.queue.submit(PageGroupResponseDescriptor.of(rid=DEVICE, prgi=7))
    if not mended:
        assert rig.queue.wait(drain_page_requests=True)
    return another_space(rig, drained=mended)


def without_more(*, answered: bool = False) -> Rig:
    """A device has said that no more requests of a PASID follow, which asks for no response."""
    rig = first_stage()[0]
    rig.port().read(0, 4, pasid=5)
    rig.unit.write_register(0xD0, 8, PERMISSIONS)
    assert rig.port().page_request(PageRequest(0, False, False, 7, True, pasid=5)).ok
    if answered:
        answer = PageGroupResponseDescriptor.of(rid=DEVICE, pp=True, pasid=5, prgi=7)
        rig.queue.submit(answer)
    return rig


@mistake("a stop marker was answered", "answers no group")
def _(mended: bool) -> Rig:
    return without_more(answered=not mended)


@legal("a PASID goes behind its stop marker")
def _() -> Rig:
    rig = without_more()
    other = rig.first()
    other.map(0, DATA + 0x8000, 0x1000)
    entry = rig.pasid_record(5)
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    rig.pc(1, 5)
    rig.pasid_iotlb(5)
    rig.device_tlb(5)
    assert rig.queue.wait(drain_page_requests=True)
    rig.clear(PASIDS + 5 * 64, 64)
    rig.put(PASIDS + 5 * 64, entry.replace(fsptptr=other.root << 12, did=4))
    rig.port().read(0, 4, pasid=5)
    return rig


# Device-TLBs that do not answer


class Unresponsive:
    """A device that answers when it is told to."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._itags: list[int] = []
        rig.unit.devices.attach(DEVICE, self)

    def invalidate(self, request: InvalidationRequest) -> None:
        self._itags.append(request.itag)

    def page_response(self, response: PageGroupResponse) -> None: ...

    def answer(self) -> None:
        self._rig.port().complete_invalidation(1 << self._itags.pop(0), 1)

    def time_out(self) -> None:
        """The queue stops, until software clears ITE."""
        self._rig.unit.devices.time_out(self._itags.pop(0))
        self._rig.unit.write_register(0x34, 4, 0x40)


@mistake(
    "what stood behind a time-out was not given again", "iotlb_inv of domain 2, address 0x0 came"
)
def _(mended: bool) -> Rig:
    """6.5.2.11: its execution is not guaranteed."""
    rig, table = with_device_tlbs(DEVICE)
    other = rig.second()
    other.map(0, DATA + 0x1000, 0x1000)
    rig.context(NEIGHBOUR, ssptptr=other.root << 12, did=2)
    device = Unresponsive(rig)
    rig.port().translate(0, 1)
    rig.port(NEIGHBOUR).read(0, 4)
    table.unmap(0, 0x1000)
    other.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    rig.device_tlb(address=0)
    rig.iotlb(2, 0)
    device.time_out()
    rig.device_tlb(address=0)
    if mended:
        rig.iotlb(2, 0)
    device.answer()
    rig.wait()
    rig.port(NEIGHBOUR).read(0, 4)
    return rig


@mistake("a time-out was taken for an answer", "that timed out, and is owed once more")
def _(mended: bool) -> Rig:
    rig, table = with_device_tlbs(DEVICE)
    device = Unresponsive(rig)
    rig.port().translate(0, 1)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    rig.device_tlb(address=0)
    device.time_out()
    if mended:
        rig.device_tlb(address=0)
        device.answer()
    rig.wait()
    return rig


@legal("what stood before a time-out was carried out, and what stood behind one that was answered")
def _() -> Rig:
    rig, table = with_device_tlbs(DEVICE)
    device = Unresponsive(rig)
    for page in range(2):
        table.map(0x1000 + (page << 12), DATA + 0x1000, 0x1000)
        rig.port().read(0x1000 + (page << 12), 4)
    rig.device_tlb(address=0x8000)
    table.unmap(0x1000, 0x1000)
    rig.iotlb(1, 0x1000)  # behind the first one alone
    device.answer()
    table.unmap(0x2000, 0x1000)
    rig.iotlb(1, 0x2000)
    rig.device_tlb(address=0x9000)
    device.time_out()
    rig.wait()
    for page in range(2):
        rig.port().read(0x1000 + (page << 12), 4)
    return rig


# Pages


@mistake("a second stage was flushed as a first one", "iotlb_inv of domain 1, address 0x0")
def _(mended: bool) -> Rig:
    """Table 24: p_iotlb_inv of a page leaves what is of second stages."""
    rig, table = second_stage()
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1, 0)
    else:
        rig.pasid_iotlb(0, 1, 0)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@mistake("a table's right to write was taken away, and leaves were flushed", "IH = 0")
def _(mended: bool) -> Rig:
    """What a unit fetches again comes by the table that it still has (6.2.5): one debt."""
    rig, table = legacy()
    where = entry_of(rig, table, level=2)
    store(rig, where, rig.memory.read_record(where, 8) & ~2)
    rig.iotlb(1, 0, am=9, ih=not mended)
    rig.wait()
    rig.port().write(0, b"x")
    return rig


@legal("a first stage is flushed by pages of its domain, whatever the address (Table 23)")
def _() -> Rig:
    rig, table = first_stage()
    rig.port().read(0, 4, pasid=5)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0x7000)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@mistake("1 GiB went with the mask of 2 MiB", "AM = 18")
def _(mended: bool) -> Rig:
    rig, table = second_stage()
    where = entry_of(rig, table, level=3)
    store(rig, where, 0x83)
    rig.iotlb(1)
    rig.wait()
    for address in (0x40_0000, 0x240_0000):
        rig.port().read(address, 4)
    store(rig, where, 0)
    rig.iotlb(1, 0, am=18 if mended else 9)
    rig.wait()
    rig.port().read(0x240_0000, 4)
    return rig


@legal("a table that maps itself is unmapped, as all of a guest's memory is")
def _() -> Rig:
    rig, table = legacy()
    where, entry = leaf(rig, table, 0)
    store(rig, where + 8 * 5, where & -0x1000 | entry & 0xFFF)
    for address in (0, 0x5000):
        rig.port().read(address, 4)
    store(rig, where + 8 * 5, 0)
    store(rig, where, 0)
    rig.iotlb(1)
    rig.wait()
    return rig


@legal("a 2 MiB leaf alone changes: AM = 9, and IH = 1")
def _() -> Rig:
    rig, table = second_stage(0x20_0000)
    for address in (0, 0x5000):
        rig.port().read(address, 4)
    store(rig, leaf(rig, table, 0)[0], 0)
    rig.iotlb(1, 0, am=9, ih=True)
    rig.wait()
    for address in (0, 0x5000, 0x7000):
        rig.port().read(address, 4)
    return rig


@mistake("the range of a flush was not aligned to its mask", "domain 1, address 0x4000")
def _(mended: bool) -> Rig:
    rig = Rig(LEGACY)
    table = rig.second()
    table.map(0, DATA, 0x8000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    for page in range(8):
        rig.port().read(page << 12, 4)
    table.unmap(0x3000, 0x2000)
    if mended:
        rig.iotlb(1, 0, am=3)
    else:
        rig.iotlb(1, 0x3000, am=1)  # pages 2 and 3
    rig.wait()
    rig.port().read(0x4000, 4)
    return rig


def with_other_leaf(bits: int, *, there: bool, **cap: int) -> Rig:
    """Bits of the leaf set or cleared, after a request went by what it was before."""
    rig, table = legacy(**cap)
    where, entry = leaf(rig, table, 0)
    if there:
        store(rig, where, entry & ~bits)
        rig.iotlb(1, 0)
        rig.wait()
    rig.port().read(0, 4)
    rig.port().write(0, b"x")
    store(rig, where, entry if there else entry & ~bits)
    return rig


@mistake("the right to write was taken away", "iotlb_inv of domain 1, address 0x0")
def _(mended: bool) -> Rig:
    rig = with_other_leaf(2, there=False)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    rig.port().write(0, b"x")
    return rig


@mistake("CM = 1: the right to write was given", "iotlb_inv of domain 1, address 0x0")
def _(mended: bool) -> Rig:
    rig = with_other_leaf(2, there=True, cm=True)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    rig.port().write(0, b"x")
    return rig


@legal("CM = 1: a page of a first stage appears, to which CM does not apply")
def _() -> Rig:
    rig = Rig(cap={"cm": True})
    table = rig.first()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(5, FIRST, table=table)
    rig.start()
    rig.port().read(0x1000, 4, pasid=5)
    table.map(0x1000, DATA + 0x1000, 0x1000)
    rig.port().read(0x1000, 4, pasid=5)
    return rig


@legal("an accessed flag is cleared")
def _() -> Rig:
    rig, table = first_stage()
    rig.port().write(0, b"x", pasid=5)
    where, entry = leaf(rig, table, 0)
    store(rig, where, entry & ~(1 << 5))
    rig.port().write(0, b"y", pasid=5)
    return rig


# Dirty flags


@mistake("dirty flags were read and cleared, and nothing flushed", "domain 1, address 0x0")
def _(mended: bool) -> Rig:
    rig, table = second_stage(ssade=True)
    rig.port().write(0, b"x")
    where, entry = leaf(rig, table, 0)
    store(rig, where, entry & ~(1 << 9))
    if mended:
        rig.iotlb(1, 0, ih=True)
    rig.wait()
    rig.port().write(0, b"y")
    return rig


@mistake("dirty flags were cleared, and a device-TLB went on writing", "dev_tlb_inv of 00:02.0")
def _(mended: bool) -> Rig:
    rig, table = second_stage(ssade=True)
    given = rig.port().translate(0, 1).entries[0]
    where, entry = leaf(rig, table, 0)
    store(rig, where, entry & ~(1 << 9))
    rig.iotlb(1, 0, ih=True)
    if mended:
        rig.device_tlb(address=0)
    rig.wait()
    if not mended:
        rig.port().write_translated(given.address, b"y")
    return rig


@mistake("dirty tracking began, and the device-TLB had been written by", "dev_tlb_inv of 00:02.0")
def _(mended: bool) -> Rig:
    rig, _ = second_stage()
    given = rig.port().translate(0, 1).entries[0]
    rig.put(PASIDS, rig.pasid_record(0).replace(ssade=True))
    rig.pc(1, 0)
    rig.iotlb(1)
    if mended:
        rig.device_tlb()
    rig.wait()
    if not mended:
        rig.port().write_translated(given.address, b"y")
    return rig


@mistake(
    "dirty flags of a first stage were cleared", "p_iotlb_inv of domain 1, PASID 0x5, address 0x0"
)
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    rig.port().write(0, b"x", pasid=5)
    where, entry = leaf(rig, table, 0)
    store(rig, where, entry & ~(1 << 6))
    if mended:
        rig.pasid_iotlb(5, 1, 0, ih=True)
    rig.wait()
    rig.port().write(0, b"y", pasid=5)
    return rig


# Several users


@mistake("two domains had one table, and one was flushed", "iotlb_inv of domain 2")
def _(mended: bool) -> Rig:
    rig = Rig(LEGACY)
    table = rig.second()
    table.map(0, DATA, 0x1000)
    users = {DEVICE: 1, NEIGHBOUR: 2}
    for source_id, domain_id in users.items():
        rig.context(source_id, ssptptr=table.root << 12, did=domain_id)
    rig.start()
    for source_id in users:
        rig.port(source_id).read(0, 4)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    if mended:
        rig.iotlb(2, 0)
    rig.wait()
    for source_id in users:
        rig.port(source_id).read(0, 4)
    return rig


@mistake("a process had two PASIDs, and one was flushed", "PASID 0x6")
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    rig.pasid(6, FIRST, table=table)
    for pasid in (5, 6):
        rig.port().read(0, 4, pasid=pasid)
    table.unmap(0, 0x1000)
    rig.pasid_iotlb(5, 1, 0)
    if mended:
        rig.pasid_iotlb(6, 1, 0)
    rig.wait()
    for pasid in (5, 6):
        rig.port().read(0, 4, pasid=pasid)
    return rig


@mistake("two functions had one domain, and one device-TLB was flushed", "dev_tlb_inv of 00:03.0")
def _(mended: bool) -> Rig:
    rig, table = with_device_tlbs(DEVICE, NEIGHBOUR)
    for source_id in (DEVICE, NEIGHBOUR):
        rig.port(source_id).translate(0, 1)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    rig.device_tlb(address=0)
    if mended:
        rig.device_tlb(source_id=NEIGHBOUR, address=0)
    rig.wait()
    if not mended:
        rig.port(NEIGHBOUR).write_translated(DATA, b"x")
    return rig


@mistake("a guest's p_iotlb_inv was given the domain-id of the host", "domain 5")
def _(mended: bool) -> Rig:
    rig, _ = nested()
    at = rig.pasid_record(5).fsptptr
    rig.port().read(0, 4, pasid=5)
    for _ in range(3):
        at = rig.memory.read_record(at, 8) & (1 << 52) - 0x1000
    store(rig, at, 0)
    rig.pasid_iotlb(5, 5 if mended else 1, 0)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@mistake("the domain-id of a guest was another guest's", "iotlb_inv of domain 5")
def _(mended: bool) -> Rig:
    rig, below = nested()
    rig.port().read(0, 4, pasid=5)
    other = rig.first()
    other.map(0, DATA + 0x1000, 0x1000)
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    rig.pc(5, 5)
    if mended:
        rig.iotlb(5)
    rig.wait()
    rig.memory.write(PASIDS + 5 * 64 + 8, bytes(56))
    rig.pasid(5, NESTED, table=other, below=below, did=5)
    rig.port().read(0, 4, pasid=5)
    return rig


# Host permissions


@mistake("a table of permissions went, and hpt_inv was of leaves only", "hpt_inv of HPT domain 9")
def _(mended: bool) -> Rig:
    """6.5.2.7: IH says up to which level."""
    rig, address = with_permissions()
    rig.put(PERMISSIONS + 0x2000, HostPermissionL2Entry.of())
    page = HostPermissionGranularity.PAGE_IN_DOMAIN
    rig.queue.submit(
        HostPermissionInvalidateDescriptor.of(g=page, hptdid=9, addr=DATA, ih=1 if mended else 0)
    )
    rig.wait()
    rig.port().write_translated(address, b"y")
    return rig


@mistake("other permissions, and hpt_inv was of leaves only", "hpt_inv of HPT domain 9, IH = 3")
def _(mended: bool) -> Rig:
    rig, _ = with_permissions()
    rig.put(PASIDS, rig.pasid_record(0).replace(hptptr=ANOTHER))
    rig.pc(1, 0)
    rig.pasid_iotlb(0)
    rig.device_tlb()
    domain = HostPermissionGranularity.DOMAIN
    rig.queue.submit(
        HostPermissionInvalidateDescriptor.of(g=domain, hptdid=9, ih=3 if mended else 0)
    )
    rig.wait()
    return rig


# Invalidated too soon


@mistake("the context cache was invalidated before the entry was cleared", "cc_inv of 00:02.0")
def _(mended: bool) -> Rig:
    """Requests on their way may bring the entry back as long as it is what it was."""
    rig, _ = legacy(did=7)
    if not mended:
        rig.cc(did=7)
    rig.clear(legacy_context(), 16)
    if mended:
        rig.cc(did=7)
    rig.iotlb(7)
    rig.wait()
    return rig


@mistake("the PASID cache was invalidated before the entry was cleared", "pc_inv of domain 1")
def _(mended: bool) -> Rig:
    rig, _ = first_stage()
    rig.port().read(0, 4, pasid=5)
    if not mended:
        rig.pc(1, 5)
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    if mended:
        rig.pc(1, 5)
    rig.pasid_iotlb(5)
    rig.wait()
    return rig


@mistake("an interrupt entry was invalidated before it was cleared", "iec_inv of index 4")
def _(mended: bool) -> Rig:
    rig = interrupts(1)
    if not mended:
        rig.iec(INDEX)
        rig.wait()
    rig.clear(ENTRY, 16)
    if mended:
        rig.iec(INDEX)
        rig.wait()
    return rig


@legal("what is invalidated while nothing is remapped does not come back before that begins")
def _() -> Rig:
    rig, table = legacy(did=7)
    rig.unit.write_register(0x18, 4, rig.command.replace(te=False))
    rig.cc(None)
    rig.iotlb(None)
    rig.wait()
    table.unmap(0, 0x1000)
    other_domain(rig)
    rig.unit.write_register(0x18, 4, rig.command)
    rig.port().read(0, 4)
    return rig


# Given away too early


@legal("a page is mapped twice, one of the mappings goes, and the page stays in use")
def _() -> Rig:
    rig = Rig(LEGACY)
    table = rig.second()
    for address in (0, 0x8000):
        table.map(address, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    for address in (0, 0x8000):
        rig.port().read(address, 4)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    rig.memory.load(DATA, b"mine")
    rig.wait()
    return rig


@legal("two domains have a page, one gives it up, and it stays in use")
def _() -> Rig:
    rig, _ = legacy()
    other = rig.second()
    other.map(0, DATA, 0x1000)
    rig.context(NEIGHBOUR, ssptptr=other.root << 12, did=2)
    rig.port(NEIGHBOUR).read(0, 4)
    rig.clear(legacy_context(), 16)
    rig.cc()
    rig.iotlb(1)
    rig.memory.load(DATA, b"mine")
    rig.wait()
    return rig


@mistake("the pages of a process were freed before its PASID went", "the page at 0x400000")
def _(mended: bool) -> Rig:
    """What counts is when the page was first given up, not what followed."""
    rig, table = first_stage()
    rig.port().write(0, b"x", pasid=5)
    if not mended:
        table.unmap(0, 0x1000)
        rig.memory.load(DATA, b"of another")
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    rig.pc(1, 5)
    rig.pasid_iotlb(5)
    rig.wait()
    rig.memory.load(DATA, b"of another")
    return rig


@mistake("a page was mapped for another device before the wait", "the page at 0x400000")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    store(rig, leaf(rig, table, 0)[0], 0)
    rig.iotlb(1, 0)
    if mended:
        rig.wait()
    other = rig.second()
    other.map(0, DATA, 0x1000)
    rig.context(NEIGHBOUR, ssptptr=other.root << 12, did=2)
    rig.port(NEIGHBOUR).read(0, 4)
    rig.memory.load(DATA, b"of another")
    rig.wait()
    return rig


def freed(rig: Rig, frame: int, mended: bool) -> Rig:
    """What was given up is used again, after the wait or before it."""
    if mended:
        rig.wait()
    rig.memory.load(frame, b"\x77" * 4096)
    rig.wait()
    return rig


@mistake("a page table was freed before the wait", "the table at")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    where = entry_of(rig, table, level=2)
    page = rig.memory.read_record(where, 8) & (1 << 52) - 0x1000
    store(rig, where, 0)
    rig.iotlb(1, 0, am=9)
    return freed(rig, page, mended)


@mistake("a large page took the place of a table, which was freed before the wait", "the table at")
def _(mended: bool) -> Rig:
    """It leads to the same page as before."""
    rig, table = legacy()
    where = entry_of(rig, table, level=2)
    page = rig.memory.read_record(where, 8) & (1 << 52) - 0x1000
    store(rig, where, DATA | 0x83)
    rig.iotlb(1, 0, am=9)
    return freed(rig, page, mended)


@mistake("the tables of a domain were freed before the wait", "the table at")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    rig.clear(legacy_context(), 16)
    rig.cc()
    rig.iotlb(1)
    return freed(rig, table.root << 12, mended)


@mistake("the memory of a domain was given away before the wait", "the page at 0x400000")
def _(mended: bool) -> Rig:
    rig, _ = legacy()
    rig.clear(legacy_context(), 16)
    rig.cc()
    rig.iotlb(1)
    return freed(rig, DATA, mended)


@mistake("a context table was freed before the wait", "the table at 0x2000")
def _(mended: bool) -> Rig:
    rig, _ = legacy()
    rig.clear(ROOT, 16)
    rig.cc(None)
    rig.iotlb(None)
    return freed(rig, CONTEXTS, mended)


@mistake("a PASID table was freed before the wait", "the table at 0x5000")
def _(mended: bool) -> Rig:
    rig, _ = first_stage()
    rig.port().read(0, 4, pasid=5)
    rig.clear(DIRECTORY, 8)
    rig.pc(None)
    rig.iotlb(1)
    return freed(rig, PASIDS, mended)


def without_context() -> Rig:
    """A scalable-mode context entry was cleared, and all was flushed for it but not waited for."""
    rig, _ = first_stage()
    rig.port().read(0, 4, pasid=5)
    rig.clear(CONTEXTS + DEVICE * 32, 32)
    rig.cc(did=0)
    rig.pc(None)
    rig.iotlb(1)
    return rig


@mistake("a PASID directory was freed before the wait", "the table at 0x4000")
def _(mended: bool) -> Rig:
    return freed(without_context(), DIRECTORY, mended)


@mistake("the tables of a process were freed before the wait", "the table at")
def _(mended: bool) -> Rig:
    rig, table = without_pasid()
    rig.pc(1, 5)
    rig.pasid_iotlb(5)
    return freed(rig, table.root << 12, mended)


@mistake("a lower table of a domain was freed before the wait", "the table at")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    page = rig.memory.read_record(entry_of(rig, table, level=2), 8) & (1 << 52) - 0x1000
    rig.clear(legacy_context(), 16)
    rig.cc()
    rig.iotlb(1)
    return freed(rig, page, mended)


@mistake("a PASID table was freed before the wait, and its context entry went", "table at 0x5000")
def _(mended: bool) -> Rig:
    return freed(without_context(), PASIDS, mended)


@mistake("kdump: the context tables of before were freed before the wait", "the table at 0x2000")
def _(mended: bool) -> Rig:
    rig = moved_root()
    rig.memory.load(ANOTHER, rig.memory.read(CONTEXTS, 0x1000))
    rig.root(ANOTHER)
    rig.memory.load(OTHER, rig.memory.read(ROOT, 0x1000))
    rig.cc(None)
    rig.iotlb(None)
    return freed(rig, CONTEXTS, mended)


def unlinked() -> tuple[Rig, int]:
    """A page table hangs on no entry any more, which has been invalidated."""
    rig, table = legacy()
    table.map(0x8000_0000, DATA + 0x1000, 0x1000)
    where = entry_of(rig, table, level=2)
    page = rig.memory.read_record(where, 8) & (1 << 52) - 0x1000
    store(rig, where, 0)
    rig.iotlb(1, 0, am=9)
    return rig, page


@mistake("a page table was one of another domain before the wait", "the table at")
def _(mended: bool) -> Rig:
    """Filled in by stores of single entries."""
    rig, page = unlinked()
    if mended:
        rig.wait()
    other = rig.second()
    other.map(0, DATA + 0x2000, 0x1000)
    store(rig, page, 0)
    store(rig, entry_of(rig, other, level=2) + 8, page | 3)
    store(rig, page + 8, DATA + 0x3000 | 3)
    rig.wait()
    return rig


@mistake("a page table was one of another domain before its invalidation", "the table at")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    table.map(0x8000_0000, DATA + 0x1000, 0x1000)
    other = rig.second()
    other.map(0, DATA + 0x2000, 0x1000)
    where = entry_of(rig, table, level=2)
    page = rig.memory.read_record(where, 8) & (1 << 52) - 0x1000
    store(rig, where, 0)
    store(rig, page, 0)
    if not mended:
        store(rig, page + 8, DATA + 0x3000 | 3)
        store(rig, entry_of(rig, other, level=2) + 8, page | 3)
    rig.iotlb(1, 0, am=9)
    rig.wait()
    return rig


@legal("the entries of a page table that hangs on none any more are cleared, and others stored")
def _() -> Rig:
    """Nobody else has it."""
    rig, page = unlinked()
    store(rig, page, 0)
    store(rig, page + 8, DATA + 0x3000 | 3)
    rig.wait()
    return rig


@legal("a table hangs on two entries, one of them goes, and the other one's pages appear")
def _() -> Rig:
    rig, table = legacy()
    where = entry_of(rig, table, level=2)
    entry = rig.memory.read_record(where, 8)
    store(rig, where + 8, entry)
    rig.port().read(0x20_0000, 4)
    store(rig, where, 0)
    rig.iotlb(1, 0, am=9)
    store(rig, where + 16, entry)
    store(rig, (entry & (1 << 52) - 0x1000) + 8, DATA + 0x3000 | 3)
    rig.wait()
    rig.port().read(0x20_1000, 4)
    return rig


@legal("a device leaves its domain, which is mapped further before the wait")
def _() -> Rig:
    rig, table = legacy()
    rig.clear(legacy_context(), 16)
    rig.cc()
    table.map(0x80_0000_0000, DATA + 0x1000, 0x1000)
    rig.iotlb(1)
    table.map(0x100_0000_0000, DATA + 0x2000, 0x1000)
    rig.wait()
    return rig


@legal("a device leaves its PASID table, whose entries are cleared one by one before the wait")
def _() -> Rig:
    rig, _ = first_stage()
    rig.port().read(0, 4, pasid=5)
    rig.clear(DIRECTORY, 8)
    rig.pc(None)
    rig.iotlb(1)
    rig.clear(PASIDS + 5 * 64, 64)
    rig.wait()
    return rig


@mistake("the old root table was freed before the wait", "the table at 0x1000")
def _(mended: bool) -> Rig:
    rig = moved_root()
    rig.cc(None)
    rig.iotlb(None)
    return freed(rig, ROOT, mended)


def moved_root() -> Rig:
    """Another root table leads to the same context table."""
    rig = Rig(LEGACY, cap={"esrtps": False})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    rig.port().read(0, 4)
    rig.memory.load(OTHER, rig.memory.read(ROOT, 0x1000))
    rig.set_root(OTHER)
    return rig


@mistake("a page was given away before its device-TLB invalidation was waited for", "the page at")
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    rig.port().translate(0, 1, pasid=5)
    table.unmap(0, 0x1000)
    rig.pasid_iotlb(5, 1, 0)
    rig.wait()
    rig.device_tlb(5)
    return freed(rig, DATA, mended)


@mistake("a page was freed behind a wait descriptor that says nothing", "the page at 0x400000")
def _(mended: bool) -> Rig:
    """6.5.2.9: software learns of its completion by a status write or an event."""
    rig, table = legacy()
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    rig.queue.submit(InvalidationWaitDescriptor.of(fn=True, if_=mended))
    rig.memory.load(DATA, b"of another")
    rig.wait()
    return rig


def moved(rig: Rig, where: int) -> None:
    """A table is copied to another place, and the entry that led to it leads there."""
    entry = rig.memory.read_record(where, 8)
    old = entry & (1 << 52) - 0x1000
    rig.memory.load(OTHER, rig.memory.read(old, 0x1000))
    store(rig, where, entry - old + OTHER)


@legal("a page table moves, and before the wait its pages go on being used")
def _() -> Rig:
    rig, table = legacy()
    moved(rig, entry_of(rig, table, level=2))
    rig.iotlb(1, 0, am=9)
    rig.memory.load(DATA, b"mine")
    rig.wait()
    return rig


@legal("a page table of a process moves, and before the wait its pages go on being used")
def _() -> Rig:
    rig, table = first_stage()
    rig.port().translate(0, 1, pasid=5)
    moved(rig, entry_of(rig, table, level=2))
    rig.pasid_iotlb(5, 1, 0, am=9)
    rig.device_tlb(5)
    rig.memory.load(DATA, b"mine")
    rig.wait()
    return rig


@legal("a large page of a process is split, and before the flush it goes on being used")
def _() -> Rig:
    rig, table = first_stage()
    where = entry_of(rig, table, level=2)
    store(rig, where, 0)
    rig.pasid_iotlb(5)
    rig.wait()
    store(rig, where, 0x60_0000 | 0xE7)
    rig.port().read(0x5000, 4, pasid=5)
    for page in range(512):
        store(rig, OTHER + page * 8, 0x60_0000 | page << 12 | 0x67)
    store(rig, where, OTHER | 0x27)
    rig.memory.load(0x60_5000, b"mine")
    rig.pasid_iotlb(5, 1, 0, am=9)
    rig.wait()
    return rig


def nested_by_pages() -> tuple[Rig, int, int]:
    """A guest's first stage; where its root table is, and the second-stage entry of that page.

    The pages of its tables have other addresses for the guest than for the host.
    """
    rig = Rig()
    below, guest, far = rig.second(), rig.first(), 0x4000_0000
    guest.map(0, far + 0x100_0000, 0x1000)
    tables = [guest.root << 12]
    for _ in range(3):
        entry = rig.memory.read_record(tables[-1], 8)
        tables.append(entry & (1 << 52) - 0x1000)
        store(rig, tables[-2], entry + far)
    for page in tables:
        below.map(far + page, page, 0x1000)
    below.map(far + 0x100_0000, DATA, 0x1000)
    rig.context()
    rig.pasid(5, NESTED, table=guest, below=below, fsptptr=far + tables[0])
    rig.start()
    assert rig.port().write(0, b"x", pasid=5).ok
    return rig, tables[0], leaf(rig, below, far + tables[0])[0]


@mistake("the page of a guest's table moved, and was freed before the wait", "the table at")
def _(mended: bool) -> Rig:
    rig, table, where = nested_by_pages()
    moved(rig, where)
    rig.iotlb(1)
    return freed(rig, table, mended)


@legal("the page of a guest's table moves, and before the wait its pages go on being used")
def _() -> Rig:
    rig, _, where = nested_by_pages()
    moved(rig, where)
    rig.iotlb(1)
    rig.memory.load(DATA, b"mine")
    rig.wait()
    return rig


@mistake("a guest's page was freed before the wait", "the page at 0x400000")
def _(mended: bool) -> Rig:
    """It is where the second stage puts it, not where the guest's entry says."""
    rig, _, _ = nested_by_pages()
    rig.memory.write(PASIDS + 5 * 64, bytes(8))
    rig.pc(1, 5)
    rig.iotlb(1)
    return freed(rig, DATA, mended)


@legal("another root table leads to the same tables, whose pages go on being used")
def _() -> Rig:
    rig = moved_root()
    rig.cc(None)
    rig.iotlb(None)
    rig.memory.load(DATA, b"mine")
    rig.wait()
    rig.port().read(0, 4)
    return rig


@legal("one device leaves a domain, another one goes on with its tables and pages")
def _() -> Rig:
    rig, table = legacy()
    rig.context(NEIGHBOUR, ssptptr=table.root << 12)
    rig.port(NEIGHBOUR).read(0, 4)
    rig.clear(legacy_context(), 16)
    rig.cc()
    rig.iotlb(1)
    rig.memory.load(DATA, b"mine")
    rig.memory.load(table.root << 12, rig.memory.read(table.root << 12, 4096))
    rig.wait()
    rig.port(NEIGHBOUR).read(0, 4)
    return rig


def taken_over(*, invalidated_first: bool) -> Rig:
    """Another kernel uses all memory anew while nothing is remapped; the unit remembers."""
    rig, table = legacy()
    rig.unit.write_register(0x18, 4, rig.command.replace(te=False))
    rig.clear(legacy_context(), 16)
    for frame in (table.root << 12, DATA):
        rig.memory.load(frame, b"\x77" * 4096)
    for begin in (True, False):
        if begin == invalidated_first:
            rig.cc(None)
            rig.iotlb(None)
            rig.memory.load(DATA, b"of another")
            rig.wait()
        else:
            rig.unit.write_register(0x18, 4, rig.command)
    return rig


@legal("tables are used anew while translation is off, and invalidated before it is on")
def _() -> Rig:
    return taken_over(invalidated_first=True)


@legal("translation is switched off for good, and all memory used anew")
def _() -> Rig:
    """6.6: what is cached counts again when translation does, which it does not any more."""
    rig, table = legacy()
    rig.unit.write_register(0x18, 4, rig.command.replace(te=False))
    rig.clear(legacy_context(), 16)
    for frame in (table.root << 12, DATA):
        rig.memory.load(frame, b"\x77" * 4096)
    return rig


@legal("interrupt remapping is switched off for good, and its table used anew")
def _() -> Rig:
    rig = interrupts(1)
    rig.unit.write_register(0x18, 4, rig.command.replace(ire=False))
    rig.memory.load(INTERRUPTS, b"\x77" * 4096)
    return rig


@mistake("translation was off while tables changed, and is on again", "iotlb_inv of domain 1")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    rig.unit.write_register(0x18, 4, rig.command.replace(te=False))
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1)
        rig.wait()
    rig.unit.write_register(0x18, 4, rig.command)
    return rig


@mistake("translation was on before another kernel waited", "the page at 0x400000")
def _(mended: bool) -> Rig:
    return taken_over(invalidated_first=mended)


@legal("interrupt entries and descriptors are used anew while interrupts are not remapped")
def _() -> Rig:
    rig = with_posted()
    rig.unit.write_register(0x18, 4, rig.command.replace(ire=False))
    rig.clear(ENTRY, 16)
    rig.memory.load(DESCRIPTOR, b"\x55" * 4096)
    rig.iec()
    rig.memory.load(DESCRIPTOR, b"\x66" * 4096)
    rig.wait()
    rig.unit.write_register(0x18, 4, rig.command)
    return rig


@legal("CM = 1: a page appears, and before the wait something else is stored at address 0")
def _() -> Rig:
    rig, table = legacy(cm=True)
    rig.port().read(0x4000, 4)
    table.map(0x4000, DATA + 0x4000, 0x1000)
    rig.iotlb(1, 0x4000)
    rig.memory.load(0, b"x" * 64)
    rig.wait()
    return rig


# The queue, and registers


@mistake("a descriptor was written, and the tail not moved", "iotlb_inv of domain 1")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    else:
        at = QUEUE + rig.unit.read_register(0x88, 8)
        page = IotlbInvalidateDescriptor.of(g=IotlbGranularity.PAGE_IN_DOMAIN, did=1)
        rig.memory.write(at, int(page).to_bytes(16, "little"))
    rig.port().read(0, 4)
    return rig


@mistake("descriptors of 128 bits were put in a queue of 256", "iotlb_inv of domain 1")
def _(mended: bool) -> Rig:
    rig, table = second_stage()
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    else:
        tail = rig.unit.read_register(0x88, 8)
        page = IotlbInvalidateDescriptor.of(g=IotlbGranularity.PAGE_IN_DOMAIN, did=1)
        for number in range(2):
            rig.memory.write(QUEUE + tail + 16 * number, int(page).to_bytes(16, "little"))
        rig.unit.write_register(0x88, 8, tail + 32)
    rig.port().read(0, 4)
    return rig


def by_registers() -> tuple[Rig, TableBuilder]:
    rig, table = legacy()
    rig.unit.write_register(0x18, 4, rig.command.replace(qie=False))
    return rig, table


def iotlb_register(rig: Rig, granularity: int, address: int | None = None) -> None:
    offset = rig.capabilities.iotlb_offset
    if address is not None:
        rig.unit.write_register(offset, 8, address)
    rig.unit.write_register(offset + 8, 8, 1 << 63 | granularity << 60 | 1 << 32)


@mistake("IVA_REG held the address of the flush before", "domain 1, address 0x0")
def _(mended: bool) -> Rig:
    rig, table = by_registers()
    iotlb_register(rig, 3, 0x5000)
    table.unmap(0, 0x1000)
    iotlb_register(rig, 3, 0 if mended else None)
    rig.port().read(0, 4)
    return rig


@mistake("registers: the IOTLB was flushed before the context cache", "iotlb_inv came before")
def _(mended: bool) -> Rig:
    rig, _ = by_registers()
    other_domain(rig)
    for give in (0, 1) if mended else (1, 0):
        if give:
            iotlb_register(rig, 2)
        else:
            rig.unit.write_register(0x28, 8, 1 << 63 | 3 << 61 | DEVICE << 16 | 1)
    rig.port().read(0, 4)
    return rig


def told(rig: Rig) -> list[str]:
    return said(lambda _: rig, True)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name: str) -> None:
    story, named = MISTAKES[name]
    findings = told(story(False))
    assert any(named in each for each in findings), findings


@pytest.mark.parametrize("name", MISTAKES)
def test_nothing_is_said_of_who_does_not_make_it(name: str) -> None:
    story, _ = MISTAKES[name]
    assert told(story(True)) == []


@pytest.mark.parametrize(
    "name",
    [
        "a second stage of a PASID went, and p_iotlb_inv was given",
        "a device left its domain, and its only page was flushed",
        "a table's right to write was taken away, and leaves were flushed",
        "a page was freed behind a wait descriptor that says nothing",
        "CM = 1: a device had domain-id 0",
        "CM = 1: a PASID had domain-id 0",
    ],
)
def test_one_mistake_is_one_finding(name: str) -> None:
    story, _ = MISTAKES[name]
    assert len(told(story(False))) == 1


@pytest.mark.parametrize("name", LEGAL)
def test_nothing_is_said_of_what_is_legal(name: str) -> None:
    assert told(LEGAL[name]()) == []
