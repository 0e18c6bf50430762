"""Memory with nested translation for one device, as an image file that commands can open."""

from __future__ import annotations

from pathlib import Path

from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from vtd.layouts.entries import (
    AddressWidth,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import RootTableAddress, TranslationTableMode
from vtd.unit.registers.capabilities import PROFILES

BASE, SIZE = 0x100_0000, 1 << 20
"""Where the image begins, and how long it is."""
ROOT, CONTEXT, DIRECTORY, PASIDS = (BASE + page * 0x1000 for page in range(4))
SECOND_TABLES, FIRST_TABLES, END = BASE + 0x1_0000, BASE + 0x4_0000, BASE + SIZE
GUEST_TABLES = 0x4_0000
"""Guest physical address of the frame at FIRST_TABLES."""
IOVA, GUEST, PHYSICAL = 0x7000_0000, 0x20_0000, 0x8000_0000
PASID = 5
NO_ENTRY = 0x41
"""A PASID with a table, but without an entry."""
ROOT_POINTER = int(RootTableAddress.of(rta=ROOT, ttm=TranslationTableMode.SCALABLE))


def nested_memory() -> PhysicalMemory:
    """00:02.0 with PASID 5: two pages nested, the second one read-only; others passed through."""
    memory = PhysicalMemory()
    memory.add_region(BASE, SIZE)
    implementation = PROFILES["xeon"].implementation
    second = TableBuilder(
        memory,
        second_stage_geometry(4, implementation),
        FramePool(SECOND_TABLES, FIRST_TABLES),
        largest=12,
    )
    second.map(GUEST_TABLES, FIRST_TABLES, END - FIRST_TABLES)
    second.map(GUEST, PHYSICAL, 0x1000)
    second.map(GUEST + 0x1000, PHYSICAL + 0x10_0000, 0x1000, "r-")
    first = TableBuilder(
        memory,
        first_stage_geometry(4, implementation),
        FramePool(GUEST_TABLES, GUEST_TABLES + END - FIRST_TABLES),
        translate=lambda address: address - GUEST_TABLES + FIRST_TABLES,
        largest=12,
    )
    first.map(IOVA, GUEST, 0x2000)
    nested = PasidEntry.of(
        p=True,
        pgtt=PasidTranslationType.NESTED,
        aw=AddressWidth.AGAW_48,
        did=9,
        ssptptr=second.root << 12,
        fsptptr=first.root << 12,
        pwsnp=True,
    )
    passed = PasidEntry.of(p=True, pgtt=PasidTranslationType.PASS_THROUGH, did=8)
    reserved = PasidEntry.of(p=True, pgtt=PasidTranslationType.RESERVED_7, did=8)
    for pasid, entry in ((0, passed), (PASID, nested), (6, reserved)):
        memory.write(PASIDS + pasid * 64, entry.pack())
    memory.write(DIRECTORY, PasidDirectoryEntry.of(p=True, smptblptr=PASIDS).pack())
    context = ScalableContextEntry.of(p=True, dte=True, paside=True, pasiddirptr=DIRECTORY)
    memory.write(CONTEXT + 0x10 * 32, context.pack())
    empty = ScalableContextEntry.of(p=True, pasiddirptr=DIRECTORY + 0x8000)
    memory.write(CONTEXT + 0x18 * 32, empty.pack())
    wrong = ScalableContextEntry.of(p=True, pasiddirptr=DIRECTORY) | ScalableContextEntry.RESERVED
    memory.write(CONTEXT + 0x20 * 32, ScalableContextEntry(wrong).pack())
    memory.write(ROOT, ScalableRootEntry.of(lp=True, lctp=CONTEXT).pack())
    return memory


def save(path: Path) -> Path:
    """Write the memory as a raw image."""
    path.write_bytes(nested_memory().read(BASE, SIZE))
    return path
