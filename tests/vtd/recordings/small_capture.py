"""Small captures in the form of ``tests/captures/FORMAT.md``, as Linux leaves a unit of QEMU.

With ``iommu=pt`` each function has a pass-through entry; with ``intremap=off`` or ``iommu=off``
parts of the capture are missing. The DMAR table and the functions are those of a recorded one.
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.reference_data import CAPTURES
from vtd.layouts.entries import (
    AddressWidth,
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    TranslationType,
)
from vtd.layouts.interrupt_entries import RemappedIrte

ROOT, CONTEXT, DIRECTORY, PASIDS, INTERRUPTS = (number << 12 for number in range(1, 6))
SOURCE_IDS = (0x00, 0x10)
TES, RTPS, IRES, IRTPS = 1 << 31, 1 << 30, 1 << 25, 1 << 24
ENTRY = RemappedIrte.of(p=True, v=0x41, dst=0x300, svt=1, sid=0x10)
REMAPPABLE = 0xFEE0_0010
"""A message of handle 0."""
OFFSETS = {"VER": 0, "CAP": 8, "ECAP": 0x10, "GSTS": 0x1C, "RTADDR": 0x20, "IRTA": 0xB8}


@dataclass(frozen=True)
class SmallCapture:
    """What the machine was started with."""

    scalable: bool = False
    first_stage: bool = False
    """Whether the unit has no second stage (``x-flts`` of QEMU)."""
    translation: bool = True
    remapping: str = "on"
    """Of interrupts: ``on``; ``off``; ``disabled``: on until a crash kernel turned it off."""

    @property
    def root(self) -> int:
        """RTADDR_REG."""
        return (ROOT | self.scalable << 10) if self.translation else 0

    @property
    def status(self) -> int:
        """GSTS_REG at the end."""
        remapping = {"on": IRES | IRTPS, "disabled": IRTPS, "off": 0}[self.remapping]
        return (TES | RTPS) * self.translation | remapping

    def write(self, folder: Path) -> Path:
        """Put the capture into ``folder``."""
        folder.mkdir()
        for name in ("DMAR.bin", "topology.json.gz"):
            shutil.copy(CAPTURES / "legacy48-strict" / name, folder)
        pages = self._pages()
        stored = b"".join(data.ljust(4096, b"\0") for data in pages.values())
        (folder / "pages.bin.gz").write_bytes(gzip.compress(stored, mtime=0))
        index = [[hex(address), "table"] for address in pages]
        _put(folder / "index.json", {"page_size": 4096, "pages": index, "zero_pages": []})
        _put(folder / "capture.json", self._manifest())
        _put(folder / "mappings.json.gz", self._mappings())
        _put(folder / "interrupts.json", self._interrupts())
        lines = "".join(json.dumps(event) + "\n" for event in self._events())
        (folder / "events.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        return folder

    def _manifest(self) -> dict[str, Any]:
        ecap = {False: 0xF00F4A, True: 0x4800_80F0_0F4A}[self.scalable]
        if self.first_stage:
            ecap = 0x8800_00F0_0F4A
        if self.remapping == "off":
            ecap &= ~0x18
        registers = {
            "VER": 0x10,
            "CAP": 0x80D2_008C_222F_0606,
            "ECAP": ecap,
            "GSTS": self.status,
            "RTADDR": self.root,
            "IRTA": 0 if self.remapping != "on" else INTERRUPTS | 7,
        }
        return {
            "qemu": {"major": 11, "minor": 1, "micro": 2},
            "mode": self._mode(),
            "registers": {name: hex(value) for name, value in registers.items()},
            "register_offsets": {name: hex(offset) for name, offset in OFFSETS.items()},
        }

    def _mode(self) -> str | None:
        if not self.translation:
            return None
        return "scalable" if self.scalable else "legacy"

    def _entry(self, source_id: int) -> int:
        """The context or PASID entry of a function."""
        if not self.scalable:
            return ContextEntry.of(
                p=True, tt=TranslationType.PASS_THROUGH, aw=AddressWidth.AGAW_48, did=1
            )
        kind = PasidTranslationType.PASS_THROUGH
        return PasidEntry.of(p=True, pgtt=kind, aw=AddressWidth.AGAW_48, did=1)

    def _pages(self) -> dict[int, bytes]:
        pages = {}
        if self.translation and not self.scalable:
            pages[ROOT] = RootEntry.of(p=True, ctp=CONTEXT).pack()
            pages[CONTEXT] = _table(16, {each: self._entry(each) for each in SOURCE_IDS})
        elif self.translation:
            context = ScalableContextEntry.of(p=True, pasiddirptr=DIRECTORY)
            pages[ROOT] = ScalableRootEntry.of(lp=True, lctp=CONTEXT).pack()
            pages[CONTEXT] = _table(32, dict.fromkeys(SOURCE_IDS, context))
            pages[DIRECTORY] = PasidDirectoryEntry.of(p=True, smptblptr=PASIDS).pack()
            pages[PASIDS] = _table(64, {0: self._entry(0)})
        if self.remapping != "off":
            pages[INTERRUPTS] = ENTRY.pack()
        return pages

    def _mappings(self) -> dict[str, Any]:
        sources = [
            {
                "bdf": f"00:{each >> 3:02x}.{each & 7}",
                "sid": each,
                "pasid": 0 if self.scalable else None,
                "kind": "pass-through",
                "table": None,
            }
            for each in SOURCE_IDS
        ]
        return {
            "mode": self._mode(),
            "sources": sources if self.translation else [],
            "tables": {},
        }

    def _interrupts(self) -> dict[str, Any]:
        low, high = (f"{half:#018x}" for half in (ENTRY & (1 << 64) - 1, ENTRY >> 64))
        plain = {"in": ["0xfee01000", "0x31"], "out": ["0xfee01000", "0x31"], "irte": None}
        observed: list[dict[str, Any]] = [{**plain, "count": 1}]
        if self.remapping != "off":
            used = {"index": 0, "lo": low, "hi": high}
            out = ["0xfee03000", "0x4041"]
            observed.append({"in": [hex(REMAPPABLE), "0x0"], "out": out, "irte": used, "count": 1})
        table = None
        if self.remapping == "on":
            irtes = [{"index": 0, "lo": low, "hi": high}]
            table = {"base": INTERRUPTS, "entries": 256, "eime": False, "irtes": irtes}
        return {"table": table, "observed": observed}

    def _events(self) -> list[list[Any]]:
        events: list[list[Any]] = [["msi", 0xFEE0_1000, 0x31, 0xFEE0_1000, 0x31, None, 1]]
        if self.remapping != "off":
            events += [["w", 0xB8, 8, INTERRUPTS | 7], ["w", 0x18, 4, IRTPS], ["w", 0x18, 4, IRES]]
            events += [["r", 0x1C, 4, IRES | IRTPS]]
            halves = ENTRY & (1 << 64) - 1, ENTRY >> 64
            events += [["msi", REMAPPABLE, 0, 0xFEE0_3000, 0x4041, [0, *halves], 1]]
        kept = IRES if self.remapping == "on" else 0
        if self.translation:
            events += [["w", 0x20, 8, self.root], ["w", 0x18, 4, RTPS | kept]]
            events += [["w", 0x18, 4, TES | kept]]
            events += [["pt", source_id, 0x1000, 3] for source_id in SOURCE_IDS]
        if self.remapping == "disabled":
            events += [["w", 0x18, 4, TES * self.translation], ["w", 0xB8, 8, 0]]
        return [*events, ["r", 0x1C, 4, self.status]]


def _table(size: int, entries: dict[int, int]) -> bytes:
    data = bytearray(4096)
    for index, entry in entries.items():
        data[index * size : (index + 1) * size] = entry.to_bytes(size, "little")
    return bytes(data)


def _put(path: Path, value: Any) -> None:
    raw = json.dumps(value).encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
