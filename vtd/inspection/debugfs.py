"""Translation and interrupt tables from the dumps of Linux in ``/sys/kernel/debug/iommu/intel``.

The dumps print entries, not memory; put back where they were read, they make an image of memory
that a unit can walk as any other. Reads ``iommu_regset``, ``dmar_translation_struct``,
``domain_translation_struct`` (of all devices or of each) and ``ir_translation_struct``, plain or
gzipped. Not printed, and so not there: invalidation queues as memory, and where PASID tables lie,
which get pages that nothing else uses.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pagetables.memory import PhysicalMemory
from vtd.inspection.register_listings import regsets
from vtd.layouts.registers import InterruptRemappingTableAddress

PAGE = 0x1000
ADDRESS = 0x000F_FFFF_FFFF_F000
"""Bits of an entry that are the address of a table."""
LARGEST_DUMP = 1 << 28
"""Bytes of one file, unpacked."""
NEEDED = ("VER", "CAP", "ECAP", "GSTS", "RTADDR", "IRTA")

_DEVICE = re.compile(r"Device [0-9a-f:.]+ (?:with pasid [0-9a-f]+ )?@(?:0x)?([0-9a-f]+)")
_LEAF = re.compile(r"(?:0x)?([0-9a-f]+) \|((?:\s+0x[0-9a-f]{16}){1,5})\s*")
_ROW = re.compile(
    r"([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\s+0x([0-9a-f]{16}):0x([0-9a-f]{16})"
    r"\s+0x([0-9a-f]{16}):0x([0-9a-f]{16})\s+(-?[0-9a-f]+)\s+0x([0-9a-f]{16}):0x([0-9a-f]{16})"
    r":0x([0-9a-f]{16})\s*"
)
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


def is_debugfs(files: Mapping[str, bytes]) -> bool:
    """Whether files, by path, are dumps with the registers of a unit."""
    return any("iommu_regset" in path for path in files)


def dumped_units(files: Mapping[str, bytes]) -> list[DumpedUnit]:
    """The units of a folder of dumps, all with the same memory; DebugfsError if there is none."""
    texts = {
        path: dump_text(path, data)
        for path, data in files.items()
        if "_struct" in path or "_regset" in path
    }
    units = [
        each for path, text in texts.items() if "iommu_regset" in path for each in regsets(text)
    ]
    if not units:
        raise DebugfsError("no iommu_regset with registers in it")
    entries: dict[int, bytes] = {}
    pages: set[int] = set()
    for path, text in texts.items():
        if "domain_translation_struct" in path:
            _domains(text, entries, pages)
        elif "dmar_translation_struct" in path:
            _devices(text, entries, pages)
        elif "ir_translation_struct" in path:
            _interrupts(text, entries)
    for name, _, registers in units:
        missing = [each for each in NEEDED if each not in registers]
        if missing:
            raise DebugfsError(f"iommu_regset: {name}: {', '.join(missing)} missing")
        interrupts = InterruptRemappingTableAddress(registers["IRTA"])
        start, size = registers["IRTA"] & ADDRESS, 16 << interrupts.s + 1
        if start:
            pages |= set(range(start, start + size, PAGE))
    memory = _memory(entries, pages)
    return [DumpedUnit(name, base, registers, memory) for name, base, registers in units]


def dump_text(path: str, data: bytes) -> str:
    """The text of a dump, unpacked if it is gzipped; DebugfsError if that fails."""
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DebugfsError(f"{path}: {error}") from error
    if len(data) > LARGEST_DUMP:
        raise DebugfsError(f"{path}: more than {LARGEST_DUMP >> 20} MiB")
    return data.decode("utf-8", "replace")


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


def _devices(text: str, entries: dict[int, bytes], pages: set[int]) -> None:
    """Root, context and PASID entries, one line for each device or PASID."""
    root: int | None = None
    tables: dict[int, int] = {}
    for line in text.splitlines():
        if match := _ROOT.search(line):
            root = int(match[2], 16) & ADDRESS
            pages.add(root)
        elif root is not None and (match := _ROW.fullmatch(line.strip())):
            bus, devfn = int(match[1], 16), int(match[2], 16) << 3 | int(match[3])
            root_entry = _quads(match[5], match[4])
            context = _quads(match[7], match[6])
            pasid = int(match[8], 10)
            entries[root + 16 * bus] = root_entry
            if pasid < 0:
                entries[(int(match[5], 16) & ADDRESS) + 16 * devfn] = context
                continue
            half = int(match[4] if devfn & 0x80 else match[5], 16)
            entries[(half & ADDRESS) + 32 * (devfn & 0x7F)] = context
            slot = (int(match[7], 16) & ADDRESS) + 8 * (pasid >> 6)
            if slot not in tables:
                tables[slot] = _free_page(entries, pages)
                pages.add(tables[slot])
            entries[slot] = (tables[slot] | 1).to_bytes(8, "little")
            entries[tables[slot] + 64 * (pasid & 63)] = _quads(match[11], match[10], match[9])


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
