"""Root, context and PASID tables in memory, made as they are needed (VT-d 3.4, 9.1 to 9.6).

Entries become present with their last store and stop being so with their first, so that the unit
never sees half of one (6.2.2.1, 6.2.3.1). Left out: what has to be invalidated afterwards.
"""

from __future__ import annotations

from pagetables.bits import BitRecord
from pagetables.build import FrameAllocator
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.software.memory import Memory

PAGE_SIZE = 0x1000
DIRECTORY_SIZE_CODE = 2
"""PDTS of a directory that is one page: 512 entries (9.4)."""
PASIDS = 512 * 64
"""PASIDs that such a directory reaches."""


class Structures:
    """The tables of one unit; ``root`` is the address of the root table.

    Tables that were made stay, as other entries of them may be in use.
    """

    def __init__(self, memory: Memory, frames: FrameAllocator, *, scalable: bool) -> None:
        self._memory = memory
        self.frames = frames
        self.scalable = scalable
        self.root = self.new_table()

    def new_table(self, pages: int = 1) -> int:
        """The address of consecutive pages of zeros; BuildError when there are none."""
        address = self._consecutive_frames(pages) * PAGE_SIZE
        self._memory.write(address, bytes(pages * PAGE_SIZE))
        return address

    def _consecutive_frames(self, count: int) -> int:
        """The first of frames that follow each other."""
        found, others = [self.frames.allocate()], list[int]()
        while len(found) < count:
            frame = self.frames.allocate()
            if frame != found[-1] + 1:
                others += found
                found = []
            found.append(frame)
        for frame in others:
            self.frames.free(frame)
        return found[0]

    def root_entry(self, source_id: int) -> int:
        """The address of the root entry of a requester."""
        return self.root + (source_id >> 8) * RootEntry.WIDTH // 8

    def add_context_table(self, source_id: int) -> bool:
        """Have a context table for a requester; whether a root entry changed for it."""
        if self.context_table(source_id) is not None:
            return False
        at = self.root_entry(source_id)
        table = self.new_table()
        if not self.scalable:
            self.store(at, RootEntry.of(p=True, ctp=table))
        elif source_id & 0x80:  # 9.2: the halves are independent
            self._store_bytes(at + 8, ScalableRootEntry.of(up=True, uctp=table).pack()[8:])
        else:
            self._store_bytes(at, ScalableRootEntry.of(lp=True, lctp=table).pack()[:8])
        return True

    def context_table(self, source_id: int) -> int | None:
        """The address of the context table for a requester, if there is one."""
        at = self.root_entry(source_id)
        data = self._memory.read(at, 16)
        if not self.scalable:
            legacy = RootEntry.unpack(data)
            return legacy.ctp if legacy.p else None
        root = ScalableRootEntry.unpack(data)
        if source_id & 0x80:
            return root.uctp if root.up else None
        return root.lctp if root.lp else None

    def context_entry(self, source_id: int) -> int:
        """The address of a context entry; KeyError if it has no table."""
        table = self.context_table(source_id)
        if table is None:
            raise KeyError(source_id)
        if self.scalable:
            return table + (source_id & 0x7F) * ScalableContextEntry.WIDTH // 8
        return table + (source_id & 0xFF) * ContextEntry.WIDTH // 8

    def add_pasid_table(self, source_id: int, pasid: int) -> bool:
        """Have a PASID table for a PASID; whether a directory entry changed for it."""
        at = self._directory_entry(source_id, pasid)
        if PasidDirectoryEntry.unpack(self._memory.read(at, 8)).p:
            return False
        self.store(at, PasidDirectoryEntry.of(p=True, smptblptr=self.new_table()))
        return True

    def pasid_entry(self, source_id: int, pasid: int) -> int:
        """The address of a PASID table entry; KeyError if it has no table."""
        at = self._directory_entry(source_id, pasid)
        entry = PasidDirectoryEntry.unpack(self._memory.read(at, 8))
        if not entry.p:
            raise KeyError(source_id, pasid)
        return entry.smptblptr + (pasid & 63) * PasidEntry.WIDTH // 8

    def pasid_frames(self, source_id: int) -> list[int]:
        """The frame numbers of a function's PASID directory and tables."""
        directory = self._directory_entry(source_id, 0)
        entries = (
            PasidDirectoryEntry.unpack(self._memory.read(at, 8))
            for at in range(directory, directory + PAGE_SIZE, 8)
        )
        tables = [entry.smptblptr for entry in entries if entry.p]
        return [address // PAGE_SIZE for address in (directory, *tables)]

    def _directory_entry(self, source_id: int, pasid: int) -> int:
        data = self._memory.read(self.context_entry(source_id), ScalableContextEntry.WIDTH // 8)
        return ScalableContextEntry.unpack(data).pasiddirptr + (pasid >> 6) * 8

    def store(self, address: int, entry: BitRecord) -> None:
        """Make an entry that is not present so: the quadword with P last."""
        data = entry.pack()
        if len(data) > 8:
            self._store_bytes(address + 8, data[8:])
        self._store_bytes(address, data[:8])

    def replace(self, address: int, entry: BitRecord) -> None:
        """Change the first 16 bytes of a present entry at once; the others have to be the same."""
        self._store_bytes(address, entry.pack()[:16])

    def withdraw(self, address: int) -> None:
        """Make an entry not present: the quadword with P alone."""
        self._store_bytes(address, bytes(8))

    def _store_bytes(self, address: int, data: bytes) -> None:
        self._memory.write(address, data)
