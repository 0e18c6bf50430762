"""Bugs of drivers in the field, played once as they were and once as they were mended.

Linux, Xen, FreeBSD, seL4, EDK II and Asterinas had them. Each is silent for the driver that it
happens to until a device meets what is left; the audit or the lint has to say so, and nothing of
the mended driver.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devices.interrupt_messages import RemappableAddress
from pagetables.build import TableBuilder
from tests.vtd.auditing.rig import (
    CONTEXTS,
    DATA,
    DEVICE,
    EVERYTHING,
    FIRST,
    INTERRUPTS,
    NEIGHBOUR,
    NESTED,
    PASIDS,
    SECOND,
    Rig,
    legacy,
)
from vtd.layouts.descriptors import (
    IotlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import IotlbGranularity

Story = Callable[[bool], Rig]
STORIES: dict[str, Story] = {}


def story(name: str) -> Callable[[Story], Story]:
    """What a driver did, or would have done if ``mended``."""

    def declare(function: Story) -> Story:
        STORIES[name] = function
        return function

    return declare


def first_stage(pasid: int = 5, *, pages: int = 1) -> tuple[Rig, TableBuilder]:
    rig = Rig()
    table = rig.first()
    table.map(0, DATA, pages << 12)
    rig.context()
    rig.pasid(pasid, FIRST, table=table)
    rig.start()
    return rig, table


def nested() -> tuple[Rig, TableBuilder]:
    """A guest's first stage under domain 5, through a second stage that has domain 1 itself."""
    rig = Rig()
    below = rig.second()
    below.map(0, 0, 0x40_0000)
    below.map(DATA, DATA, 0x4000)
    guest = rig.first()
    guest.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(0, SECOND, table=below)
    rig.pasid(5, NESTED, table=guest, below=below, did=5)
    rig.start()
    return rig, below


@story("Linux 2025: cache_tag_flush_all forgot the PASID of the device-TLB")
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    rig.port().translate(0, 1, pasid=5)
    table.unmap(0, 0x1000)
    rig.pasid_iotlb(5)
    rig.device_tlb(5 if mended else None)
    rig.wait()
    return rig


@story("Linux 2022: the range of an SVM flush was not aligned")
def _(mended: bool) -> Rig:
    rig, table = first_stage(pages=8)
    for page in range(8):
        rig.port().read(page << 12, 4, pasid=5)
    table.unmap(0x3000, 0x4000)
    if mended:
        rig.pasid_iotlb(5, 1, 0, am=3)
    else:
        rig.pasid_iotlb(5, 1, 0x3000, am=2)  # which is pages 0 to 3
    rig.wait()
    rig.port().read(0x4000, 4, pasid=5)
    return rig


@story("Linux 2021: a superpage took the place of a table, and the table was freed")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    where = entry_of(rig, table, level=2)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0, ih=True)
    rig.wait()
    rig.memory.write(where, (0x60_0000 | 0x83).to_bytes(8, "little"))
    if mended:
        rig.iotlb(1, 0, am=9)
        rig.wait()
    rig.port().read(0, 4)
    rig.port().read(0x5000, 4)
    return rig


def entry_of(rig: Rig, table: TableBuilder, *, level: int) -> int:
    """Where the entry of a level that leads to address 0 is."""
    at = table.root << 12
    for _ in range(4 - level):
        at = rig.memory.read_record(at, 8) & (1 << 52) - 0x1000
    return at


@story("Linux 2023: a notifier flushed leaves only, and tables were freed")
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    rig.port().read(0, 4, pasid=5)
    table_entry = entry_of(rig, table, level=2)
    table_page = rig.memory.read_record(table_entry, 8) & (1 << 52) - 0x1000
    rig.memory.write(table_entry, bytes(8))
    rig.pasid_iotlb(5, 1, 0, am=9, ih=not mended)
    rig.wait()
    rig.memory.write(table_page, b"\x67" * 4096)
    rig.port().read(0x1000, 4, pasid=5)
    return rig


@story("Linux 2021: a present context entry changed, the device-TLB was forgotten")
def _(mended: bool) -> Rig:
    rig, _ = first_stage(pasid=0)
    given = rig.port().translate(0, 1).entries[0]
    rig.clear(CONTEXTS + DEVICE * 32, 32)
    rig.cc(did=0)
    rig.pc(1)
    rig.iotlb(1)
    if mended:
        rig.device_tlb()
    rig.wait()
    if not mended:
        rig.port().write_translated(given.address, b"x")
    return rig


@story("Linux 2022: snooping was enforced in a PASID entry without a flush")
def _(mended: bool) -> Rig:
    rig, _ = first_stage(pasid=0)
    rig.port().read(0, 4)
    rig.put(PASIDS, rig.pasid_record(0).replace(pgsnp=True))
    if mended:
        rig.pc(1, 0)
        rig.pasid_iotlb(0)
        rig.device_tlb()
    rig.wait()
    rig.port().read(0, 4)
    return rig


@story("Linux 2024: a page of the parent went, the nested domains were not flushed")
def _(mended: bool) -> Rig:
    rig, below = nested()
    assert rig.port().read(0, 4, pasid=5).ok
    below.unmap(DATA, 0x1000)
    rig.iotlb(1, DATA)
    if mended:
        rig.iotlb(5)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@story("Linux 2024: a page of the parent went, device-TLBs of nested domains kept it")
def _(mended: bool) -> Rig:
    rig, below = nested()
    given = rig.port().translate(0, 1, pasid=5).entries[0]
    assert given.address >> 12 == DATA >> 12
    below.unmap(DATA, 0x1000)
    rig.iotlb(1, DATA)
    rig.iotlb(5)
    if mended:
        rig.device_tlb(5)
    rig.wait()
    if not mended:
        rig.port().write_translated(given.address, b"x", pasid=5)
    return rig


@story("Linux 2024: dirty tracking of the parent began, nested domains kept their IOTLB")
def _(mended: bool) -> Rig:
    rig, _ = nested()
    rig.port().write(0, b"x", pasid=5)
    rig.put(PASIDS + 5 * 64, rig.pasid_record(5).replace(ssade=True))
    rig.pc(5, 5)
    if mended:
        rig.iotlb(5)
        rig.device_tlb(5)
    rig.wait()
    rig.port().write(0, b"y", pasid=5)
    return rig


def interrupts(count: int = 4, first: int = 4) -> Rig:
    rig = Rig()
    rig.context()
    for index in range(first, first + count):
        rig.put(INTERRUPTS + index * 16, RemappedIrte.of(p=True, v=0x40 + index, svt=1, sid=DEVICE))
    rig.start(interrupts=True)
    for index in range(first, first + count):
        send(rig, index)
    return rig


def send(rig: Rig, index: int, source_id: int = DEVICE) -> None:
    rig.port(source_id).write(RemappableAddress.for_handle(index, shv=False), bytes(4))


@story("multi-message MSI: a block of entries that is not aligned was invalidated by one mask")
def _(mended: bool) -> Rig:
    rig = interrupts(4, first=6)
    for index in range(6, 10):
        rig.put(INTERRUPTS + index * 16, RemappedIrte.of(p=True, v=0x80 + index, svt=1, sid=DEVICE))
    if mended:
        rig.iec(6, im=1)
        rig.iec(8, im=1)
    else:
        rig.iec(6, im=2)
    rig.wait()
    for index in range(6, 10):
        send(rig, index)
    return rig


@story("an interrupt entry was freed and given to another device without iec_inv")
def _(mended: bool) -> Rig:
    rig = interrupts(1)
    rig.clear(INTERRUPTS + 4 * 16, 16)
    if mended:
        rig.iec(4)
        rig.wait()
    rig.put(INTERRUPTS + 4 * 16, RemappedIrte.of(p=True, v=0x99, svt=1, sid=NEIGHBOUR))
    send(rig, 4, NEIGHBOUR)
    return rig


@story("Linux before cmpxchg16b: a present interrupt entry was written in halves")
def _(mended: bool) -> Rig:
    rig = interrupts(1)
    entry = RemappedIrte.of(p=True, v=0x99, svt=1, sid=NEIGHBOUR).pack()
    if mended:
        rig.memory.write(INTERRUPTS + 4 * 16, entry)
    else:
        rig.memory.write(INTERRUPTS + 4 * 16, entry[:8])
        rig.memory.write(INTERRUPTS + 4 * 16 + 8, entry[8:])
    rig.iec(4)
    rig.wait()
    return rig


@story("Xen XSA-400: context entries went, the IOTLB was forgotten, the domain-id was used again")
def _(mended: bool) -> Rig:
    rig, _ = legacy(did=7)
    rig.clear(CONTEXTS + DEVICE * 16, 16)
    rig.cc(did=7)
    if mended:
        rig.iotlb(7)
    rig.wait()
    other = rig.second()
    other.map(0, DATA + 0x8000, 0x1000)
    rig.context(ssptptr=other.root << 12, did=7)
    rig.port().read(0, 4)
    return rig


@story("Xen XSA-346: the flush was put off until after the page had gone to somebody else")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    rig.memory.load(DATA, b"of another")
    if not mended:
        rig.iotlb(1, 0)
        rig.wait()
    return rig


@story("Linux: an address was mapped anew before the flush that had been put off")
def _(mended: bool) -> Rig:
    """6.5.3.6: that flush may come late only if nobody has the address meanwhile."""
    rig, table = legacy()
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    table.map(0, DATA + 0x8000, 0x1000)
    rig.port().write(0, b"x")
    if not mended:
        rig.iotlb(1, 0)
        rig.wait()
    return rig


@story("an address was mapped anew while a device had the translation of before")
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    given = rig.port().translate(0, 1, pasid=5).entries[0]
    table.unmap(0, 0x1000)
    if mended:
        rig.pasid_iotlb(5)
        rig.device_tlb(5)
        rig.wait()
    table.map(0, DATA + 0x8000, 0x1000)
    if not mended:
        rig.port().write_translated(given.address, b"x")
        rig.pasid_iotlb(5)
        rig.device_tlb(5)
        rig.wait()
    return rig


@story("a new PASID entry became present by the first of its stores")
def _(mended: bool) -> Rig:
    rig, _ = first_stage()
    rig.port().read(0, 4, pasid=5)
    entry = rig.pasid_record(5).replace(did=4).pack()
    for number in (*range(1, 8), 0) if mended else range(8):
        at = PASIDS + 6 * 64 + 8 * number
        rig.memory.write(at, entry[8 * number :][:8])
    rig.port().read(0, 4, pasid=6)
    return rig


@story("seL4: mappings that appeared under CM = 1 were not announced")
def _(mended: bool) -> Rig:
    rig, table = legacy(cm=True)
    rig.port().read(0x4000, 4)
    table.map(0x4000, DATA + 0x4000, 0x1000)
    if mended:
        rig.iotlb(1, 0x4000)
        rig.wait()
    rig.port().read(0x4000, 4)
    return rig


@story("NOVA: a global flush by register had no granularity")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    rig.unit.write_register(0x18, 4, rig.command.replace(qie=False))
    table.unmap(0, 0x1000)
    granularity = IotlbGranularity.GLOBAL if mended else 0
    offset = rig.capabilities.iotlb_offset
    rig.unit.write_register(offset + 8, 8, 1 << 63 | granularity << 60)
    rig.port().read(0, 4)
    return rig


@story("registers were used although the queue was on")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    if mended:
        rig.unit.write_register(0x18, 4, rig.command.replace(qie=False))
    table.unmap(0, 0x1000)
    offset = rig.capabilities.iotlb_offset
    rig.unit.write_register(offset + 8, 8, 1 << 63 | 2 << 60 | 1 << 32)
    rig.port().read(0, 4)
    return rig


@story("the address mask was beyond MAMV, and the queue error went unread")
def _(mended: bool) -> Rig:
    rig, table = legacy(mamv=4)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0, am=4 if mended else 9)
    if not mended:
        rig.unit.write_register(0x34, 4, 0x10)  # IQE cleared, and nothing given again
    rig.port().read(0, 4)
    return rig


@story("FreeBSD: requests under a phantom function's id kept their entry")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    rig.context(DEVICE | 1, ssptptr=table.root << 12)
    rig.port(DEVICE | 1).read(0, 4)
    for source_id in (DEVICE, DEVICE | 1):
        rig.clear(CONTEXTS + source_id * 16, 16)
    rig.cc(did=1, fm=3 if mended else 0)
    rig.iotlb(1)
    rig.wait()
    rig.port(DEVICE | 1).read(0, 4)
    return rig


@story("the IOTLB was flushed before the entry was cleared")
def _(mended: bool) -> Rig:
    rig, table = legacy()
    if not mended:
        rig.iotlb(1, 0)
        rig.wait()
    table.unmap(0, 0x1000)
    if mended:
        rig.iotlb(1, 0)
        rig.wait()
    rig.port().read(0, 4)
    return rig


@story("Linux 2024: the size of a device-TLB flush of a PASID did not fit its address")
def _(mended: bool) -> Rig:
    rig, table = first_stage(pages=16)
    for page in range(16):
        rig.port().translate(page << 12, 1, pasid=5)
    table.unmap(0, 0x1_0000)
    rig.pasid_iotlb(5, 1, 0, am=4)
    pages = 0x7000 if mended else 0  # S with bits 12 to 14 set: 16 pages; without: 2
    rig.queue.submit(
        PasidDeviceTlbInvalidateDescriptor.of(
            sid=DEVICE, pasid=5, s=True, addr=pages, pfsid_15_4=DEVICE & 0xFFF0
        )
    )
    rig.wait()
    return rig


@story("Linux 2026: a PASID entry was cleared from its end while it was present")
def _(mended: bool) -> Rig:
    rig = Rig()
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(0, SECOND, table=table)
    rig.start()
    rig.port().read(0, 4)
    quadwords = range(8) if mended else reversed(range(8))
    for number in quadwords:
        rig.memory.write(PASIDS + 8 * number, bytes(8))
    rig.pc(1, 0)
    rig.iotlb(1)
    rig.device_tlb()
    rig.wait()
    return rig


@story("EDK II: requests under way were not drained, and the page was given away")
def _(mended: bool) -> Rig:
    rig, table = legacy(dwd=True, drd=True)
    table.unmap(0, 0x1000)
    rig.queue.submit(
        IotlbInvalidateDescriptor.of(g=IotlbGranularity.PAGE_IN_DOMAIN, did=1, dr=mended, dw=mended)
    )
    rig.wait()
    rig.memory.load(DATA, b"of another")
    return rig


@story("Linux 2021: a first stage for DMA mappings was flushed under RID_PASID of another device")
def _(mended: bool) -> Rig:
    rig, table = first_stage(pasid=0)
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    rig.pasid_iotlb(0 if mended else 1, 1, 0)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@story("a guest's invalidation reached the second stage only")
def _(mended: bool) -> Rig:
    rig, _ = nested()
    guest_root = rig.pasid_record(5).fsptptr
    rig.port().read(0, 4, pasid=5)
    at = guest_root
    for _ in range(3):
        at = rig.memory.read_record(at, 8) & (1 << 52) - 0x1000
    rig.memory.write(at, bytes(8))
    if mended:
        rig.pasid_iotlb(5, 5, 0)
    else:
        rig.iotlb(1, 0)
    rig.wait()
    rig.port().read(0, 4, pasid=5)
    return rig


@story("Linux 2018: device-TLB invalidations named no physical function")
def _(mended: bool) -> Rig:
    rig, table = first_stage()
    rig.port().translate(0, 1, pasid=5)
    table.unmap(0, 0x1000)
    rig.pasid_iotlb(5)
    function = DEVICE & 0xFFF0 if mended else 0
    rig.queue.submit(
        PasidDeviceTlbInvalidateDescriptor.of(
            sid=DEVICE, pasid=5, s=True, addr=EVERYTHING, pfsid_15_4=function
        )
    )
    rig.wait()
    return rig


def said(tell: Story, mended: bool) -> list[str]:
    rig = tell(mended)
    return [str(each) for each in [*rig.audit.findings, *rig.devices.findings]]


@pytest.mark.parametrize("name", STORIES)
def test_the_bug_is_found(name: str) -> None:
    assert said(STORIES[name], False)


@pytest.mark.parametrize("name", STORIES)
def test_nothing_is_said_of_the_mended_driver(name: str) -> None:
    assert said(STORIES[name], True) == []
