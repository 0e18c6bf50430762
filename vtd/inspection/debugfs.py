"""Translation and interrupt tables from the dumps of Linux in ``/sys/kernel/debug/iommu/intel``.

The dumps print entries, not memory; put back where they were read, they make an image of memory
that a unit can walk as any other. Reads ``iommu_regset``, ``dmar_translation_struct``,
``domain_translation_struct`` (of all devices or of each) and ``ir_translation_struct``, plain or
gzipped, also as a mail quoted and wrapped them. Not printed, and so not there: invalidation queues
as memory, and where PASID tables lie, which get pages that nothing else uses.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pagetables.memory import PhysicalMemory
from vtd.inspection.register_listings import regsets
from vtd.layouts.entries import (
    ContextEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    TranslationType,
)
from vtd.layouts.registers import (
    GlobalStatus,
    InterruptRemappingTableAddress,
    RootTableAddress,
    TranslationTableMode,
)

PAGE = 0x1000
ADDRESS = 0x000F_FFFF_FFFF_F000
"""Bits of an entry that are the address of a table."""
LARGEST_DUMP = 1 << 28
"""Bytes of one file, unpacked."""
_SCALABLE = RootTableAddress.of(ttm=TranslationTableMode.SCALABLE)
NEEDED = ("VER", "CAP", "ECAP", "GSTS", "RTADDR", "IRTA")

_DEVICE = re.compile(r"Device [0-9a-f:.]+ (?:with pasid [0-9a-f]+ )?@(?:0x)?([0-9a-f]+)")
_LEAF = re.compile(r"(?:0x)?([0-9a-f]+) \|((?:\s+0x[0-9a-f]{16}){1,5})\s*")
_ROW = re.compile(
    r"^([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\s+0x([0-9a-f]{16}):0x([0-9a-f]{16})"
    r"(?:\s+Context_entry)?\s+0x([0-9a-f]{16}):0x([0-9a-f]{16})"
    r"(?:\s+PASID\s+PASID_table_entry)?\s+(-?\d{1,7})"
    r"\s+0x([0-9a-f]{16}):0x([0-9a-f]{16}):0x([0-9a-f]{16})\b",
    re.MULTILINE,
)
"""A device or PASID; the kernel's documentation has the headings of columns in between."""
_QUOTE = re.compile(r"^[ \t>|+]+", re.MULTILINE)
_UNIT = re.compile(r"Remapped Interrupt supported on IOMMU: (\S+)")
_ROOT = re.compile(r"IOMMU (\S+): Root Table Address: ?(?:0x)?([0-9a-f]+)")
_TABLE = re.compile(r"IR table address: ?(?:0x)?([0-9a-f]+)")
_INTERRUPT = re.compile(
    r"\s*(\d+)\s+[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\s.*?([0-9a-f]{16})\s+([0-9a-f]{16})\s*"
)


class DebugfsError(ValueError):
    """Dumps that can't be used; the message says which and why."""


@dataclass(frozen=True)
class DumpedUnit:
    """Registers of a unit, by mnemonic, and the memory that its tables are in."""

    name: str
    base: int
    registers: Mapping[str, int]
    memory: PhysicalMemory
    untold: tuple[str, ...] = ()
    """Devices whose page tables are not in the dumps."""


def is_debugfs(files: Mapping[str, bytes]) -> bool:
    """Whether files, by path, are dumps with the registers of a unit."""
    return any("iommu_regset" in path for path in files)


def dumped_units(
    files: Mapping[str, bytes], assumed: Mapping[str, int] | None = None
) -> list[DumpedUnit]:
    """The units of a folder of dumps, all with the same memory; DebugfsError if there is none.

    Without ``iommu_regset`` units are made of the tables that the dumps name, with the VER, CAP and
    ECAP ``assumed``.
    """
    texts = {
        path: dump_text(path, data)
        for path, data in files.items()
        if "_struct" in path or "_regset" in path
    }
    units = [
        each for path, text in texts.items() if "iommu_regset" in path for each in regsets(text)
    ]
    if not units and assumed is not None:
        units = [(name, 0, {**assumed, **each}) for name, each in _named_tables(texts).items()]
    if not units:
        raise DebugfsError("no iommu_regset with registers in it")
    entries: dict[int, bytes] = {}
    pages: set[int] = set()
    tables: dict[str, set[int]] = {}
    for path, text in texts.items():
        if "domain_translation_struct" in path:
            _domains(text, entries, pages)
        elif "dmar_translation_struct" in path:
            _devices(text, entries, pages, tables)
        elif "ir_translation_struct" in path:
            _interrupts(text, entries)
    untold = tuple(device for device, roots in tables.items() if roots - pages)
    for name, _, registers in units:
        missing = [each for each in NEEDED if each not in registers]
        if missing:
            raise DebugfsError(f"iommu_regset: {name}: {', '.join(missing)} missing")
        interrupts = InterruptRemappingTableAddress(registers["IRTA"])
        start, size = registers["IRTA"] & ADDRESS, 16 << interrupts.s + 1
        if start:
            pages |= set(range(start, start + size, PAGE))
    memory = _memory(entries, pages)
    return [DumpedUnit(name, base, registers, memory, untold) for name, base, registers in units]


def dump_text(path: str, data: bytes) -> str:
    """The text of a dump, unpacked if it is gzipped; DebugfsError if that fails."""
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DebugfsError(f"{path}: {error}") from error
    if len(data) > LARGEST_DUMP:
        raise DebugfsError(f"{path}: more than {LARGEST_DUMP >> 20} MiB")
    return _QUOTE.sub("", data.decode("utf-8", "replace"))


def _named_tables(texts: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """GSTS, RTADDR and IRTA of the units whose tables are in dumps without registers."""
    none = {"GSTS": 0, "RTADDR": 0, "IRTA": 0}
    units: dict[str, dict[str, int]] = {}
    for path, text in texts.items():
        if "dmar_translation_struct" in path:
            for name, root, rows in _parts(text):
                mode = _SCALABLE if any(int(row[8]) >= 0 for row in rows) else 0
                found = units.setdefault(name, dict(none))
                found["RTADDR"] = root | mode
                found["GSTS"] |= GlobalStatus.of(tes=True, rtps=True)
        elif "ir_translation_struct" in path:
            for name, table, wide in _interrupt_tables(text):
                found = units.setdefault(name, dict(none))
                found["IRTA"] = InterruptRemappingTableAddress.of(eime=wide, s=15) | table
                found["GSTS"] |= GlobalStatus.of(ires=True, irtps=True)
    return units


def _interrupt_tables(text: str) -> Iterator[tuple[str, int, bool]]:
    """Names of units, where their tables are, and whether destinations have 32 bits (9.10)."""
    starts = [match.start() for match in _UNIT.finditer(text)]
    for start, end in pairwise([*starts, len(text)]):
        part = text[start:end].partition("Posted Interrupt supported")[0]
        name, table = _UNIT.search(part), _TABLE.search(part)
        found = list(filter(None, map(_INTERRUPT.fullmatch, part.splitlines())))
        if name and table and found:
            low = [int(each[3], 16) >> 32 for each in found]
            yield name[1], int(table[1], 16) & ADDRESS, any(each & ~0xFF00 for each in low)


def _memory(entries: Mapping[int, bytes], pages: set[int]) -> PhysicalMemory:
    """Memory of whole pages, zero but for the entries."""
    memory = PhysicalMemory()
    for start, end in _runs(pages | {address & ~(PAGE - 1) for address in entries}):
        memory.add_region(start, end - start)
    for address, data in entries.items():
        memory.write(address, data)
    return memory


def _runs(pages: set[int]) -> Iterator[tuple[int, int]]:
    """Adjacent pages as half-open ranges."""
    start = end = -1
    for page in sorted(pages):
        if page != end:
            if end > start:
                yield start, end
            start = page
        end = page + PAGE
    if end > start:
        yield start, end


def _domains(text: str, entries: dict[int, bytes], pages: set[int]) -> None:
    """Paging entries: every line has those of all levels from the top down to a leaf."""
    root: int | None = None
    for line in text.splitlines():
        if match := _DEVICE.search(line):
            root = int(match[1], 16)
            pages.add(root & ADDRESS)
        elif root is not None and (match := _LEAF.fullmatch(line)):
            frame = int(match[1], 16)
            table = root
            for position, word in enumerate(match[2].split()):
                entry = int(word, 16)
                if not entry:
                    continue
                index = frame >> 9 * (4 - position) & 0x1FF
                entries[(table & ADDRESS) + 8 * index] = entry.to_bytes(8, "little")
                table = entry


def _parts(text: str) -> Iterator[tuple[str, int, list[re.Match[str]]]]:
    """Name and root table of each unit, with its rows."""
    units = list(_ROOT.finditer(text))
    ends = [*(each.start() for each in units[1:]), len(text)]
    for unit, end in zip(units, ends, strict=False):
        yield unit[1], int(unit[2], 16) & ADDRESS, list(_ROW.finditer(text, unit.end(), end))


def _devices(
    text: str, entries: dict[int, bytes], pages: set[int], roots: dict[str, set[int]]
) -> None:
    """Root, context and PASID entries, one row for each device or PASID; and its page tables."""
    tables: dict[int, int] = {}
    for _, root, rows in _parts(text):
        pages.add(root)
        for row in rows:
            bus, devfn = int(row[1], 16), int(row[2], 16) << 3 | int(row[3])
            context, pasid = _quads(row[7], row[6]), int(row[8])
            entries[root + 16 * bus] = _quads(row[5], row[4])
            name = f"{row[1]}:{row[2]}.{row[3]}"
            if pasid < 0:
                entries[(int(row[5], 16) & ADDRESS) + 16 * devfn] = context
                legacy = ContextEntry(int.from_bytes(context, "little"))
                if legacy.p and legacy.tt != TranslationType.PASS_THROUGH:
                    roots.setdefault(name, set()).add(int(row[7], 16) & ADDRESS)
                continue
            half = int(row[4] if devfn & 0x80 else row[5], 16)
            entries[(half & ADDRESS) + 32 * (devfn & 0x7F)] = context
            directory = int(row[7], 16) & ADDRESS
            size = 8 << ScalableContextEntry(int(row[7], 16)).pdts + 7
            pages.update(range(directory, directory + size, PAGE))
            slot = directory + 8 * (pasid >> 6)
            if slot not in tables:
                tables[slot] = _free_page(entries, pages)
                pages.add(tables[slot])
            entries[slot] = (tables[slot] | 1).to_bytes(8, "little")
            words = _quads(row[11], row[10], row[9])
            entry = PasidEntry(int.from_bytes(words, "little"))
            if not (entry.p and entry.pgtt):  # the lowest word first, as in the first version
                turned = _quads(row[9], row[10], row[11])
                other = PasidEntry(int.from_bytes(turned, "little"))
                words, entry = (turned, other) if other.p and other.pgtt else (words, entry)
            entries[tables[slot] + 64 * (pasid & 63)] = words
            if entry.p:
                roots.setdefault(name, set()).update(_stages(entry))


def _stages(entry: PasidEntry) -> Iterator[int]:
    """Where the page tables of a PASID lie."""
    if entry.pgtt in (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED):
        yield entry.fsptptr & ADDRESS
    if entry.pgtt in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED):
        yield entry.ssptptr & ADDRESS


def _quads(*words: str) -> bytes:
    """Quadwords in memory, the lowest given first."""
    return b"".join(int(word, 16).to_bytes(8, "little") for word in words)


def _free_page(entries: Mapping[int, bytes], pages: set[int]) -> int:
    """The lowest page that nothing is in; the first one stays empty."""
    taken = pages | {address & ~(PAGE - 1) for address in entries}
    page = PAGE
    while page in taken:
        page += PAGE
    return page


def _interrupts(text: str, entries: dict[int, bytes]) -> None:
    """Interrupt-remapping table entries by their index."""
    table: int | None = None
    for line in text.splitlines():
        if match := _TABLE.search(line):
            table = int(match[1], 16) & ADDRESS
        elif table is not None and (match := _INTERRUPT.fullmatch(line)):
            entries[table + 16 * int(match[1])] = _quads(match[3], match[2])
