"""Where a generated case has its structures and data, and which of them a unit may read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pagetables.bits import BitRecord
from pagetables.geometry import INDEX_BITS, PAGE_RECORDS, PAGE_SHIFT, TABLE_RECORDS, StageKind
from pagetables.memory import TableMemory
from pagetables.walk import ADDRESS
from vtd.fuzz.case import DEVICES
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.interrupt_entries import RemappedIrte

ROOT_TABLE, CONTEXT_TABLES, QUEUE, INTERRUPTS = 0x10_0000, 0x10_1000, 0x10_4000, 0x10_6000
STATUS = 0x10_5000
"""What wait descriptors would write."""
DESCRIPTOR = 0x10_7000
"""A posted-interrupt descriptor."""
EMPTY_ROOT = 0x10_8000
"""A root table without entries."""
PASID_TABLES = 0x11_0000
TABLES = (0x20_0000, 0x80_0000)
DATA = 0xA0_0000
"""What devices reach. UEFI firmware keeps parts of 8 to 9 MiB for itself."""
DATA_PAGES = 64
DESCRIPTORS = 0xA4_0000
"""A page for each domain, where devices that work by descriptors may have them."""
DESCRIPTORS_SEEN = (DESCRIPTORS, 0x8000_0000)
"""Where it is mapped: low, where few units are wrong, and where no unmapping comes."""
SUPERPAGE = 0x100_0000
"""Where 2 MiB pages lead."""
NOWHERE = 0x9000_0000
"""An address without memory."""
RID_PASID = 0
ENTRIES_NAMED = 4
"""So many entries of a paging structure are listed as places."""


class RecordPlace(NamedTuple):
    """Where a structure is that the unit reads."""

    name: str
    record: type[BitRecord]
    address: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.record.WIDTH // 8


def context_address(device: str, *, scalable: bool) -> int:
    """Where the context entry of a device is."""
    source_id = DEVICES[device]
    if scalable:
        return CONTEXT_TABLES + (source_id >> 7 & 1) * 4096 + (source_id & 0x7F) * 32
    return CONTEXT_TABLES + (source_id & 0xFF) * 16


def pasid_directory(device: str) -> int:
    """Where the PASID directory of a device is; its PASID tables are the pages behind it."""
    return PASID_TABLES + list(DEVICES).index(device) * 0x4000


def pasid_address(device: str, pasid: int | None) -> int:
    """Where the PASID entry of a device is; None is a request without PASID."""
    value = RID_PASID if pasid is None else pasid
    return pasid_directory(device) + 4096 * ((value >> 6) + 1) + (value & 63) * 64


def root_place(*, scalable: bool) -> RecordPlace:
    """The only root entry."""
    return RecordPlace("root entry", ScalableRootEntry if scalable else RootEntry, ROOT_TABLE)


def device_places(device: str, pasid: int | None, *, scalable: bool) -> Iterator[RecordPlace]:
    """The structures of a device, down to its PASID entry."""
    context = ScalableContextEntry if scalable else ContextEntry
    yield RecordPlace(
        f"context entry of {device}", context, context_address(device, scalable=scalable)
    )
    if scalable:
        directory = pasid_directory(device) + 8 * ((pasid or RID_PASID) >> 6)
        yield RecordPlace(f"PASID directory entry of {device}", PasidDirectoryEntry, directory)
        yield RecordPlace(f"PASID entry of {device}", PasidEntry, pasid_address(device, pasid))


def interrupt_place(index: int) -> RecordPlace:
    """An interrupt-remapping entry."""
    return RecordPlace(f"interrupt entry {index}", RemappedIrte, INTERRUPTS + index * 16)


def paging_places(
    memory: TableMemory, owner: str, table: int, level: int, kind: StageKind
) -> Iterator[RecordPlace]:
    """The present entries of a paging structure and of those below it, a few of each."""
    found = 0
    for index in range(512):
        entry = memory.read_record(table + 8 * index, 8)
        if not entry:
            continue
        found += 1
        if found > ENTRIES_NAMED:
            return
        leaf = level == 1 or bool(entry & 0x80)
        pages = PAGE_RECORDS[kind]
        record = pages[PAGE_SHIFT + INDEX_BITS * (level - 1)] if leaf else TABLE_RECORDS[kind]
        name = f"{kind.value}-stage entry of {owner}, level {level}"
        yield RecordPlace(name, record, table + 8 * index)
        if not leaf:
            yield from paging_places(memory, owner, entry & ADDRESS, level - 1, kind)
