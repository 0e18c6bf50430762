"""The interrupt-remapping table: entries given out, changed and taken back (VT-d 5, 9.9, 9.10).

An entry is used by nobody any more once its invalidation is complete (6.5.2.8); only then is its
index given out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte
from vtd.software.guidance import Guidance, Owed
from vtd.software.memory import Memory

Entry = RemappedIrte | PostedIrte
ENTRY_SIZE = 16


class InterruptTable:
    """A table of ``size`` entries (a power of two) at ``base``, which is all zero.

    ``invalidate`` carries out what is owed and waits for it.
    """

    def __init__(
        self,
        memory: Memory,
        base: int,
        size: int,
        guidance: Guidance,
        invalidate: Callable[[Iterator[Owed]], None],
    ) -> None:
        self.base = base
        self.size = size
        self._memory = memory
        self._guidance = guidance
        self._invalidate = invalidate
        self._used: set[int] = set()

    def allocate(self, *entries: Entry) -> int:
        """Write entries to indices that nobody uses; the first index.

        Several are consecutive and aligned to a power of two, as subhandles need them (5.1.3).
        ValueError if there is no room or an entry is not present.
        """
        if not entries or not all(entry.p for entry in entries):
            raise ValueError("entries: one or more that are present")
        alignment = 1 << (len(entries) - 1).bit_length()
        for first in range(0, self.size - len(entries) + 1, alignment):
            indices = range(first, first + len(entries))
            if self._used.isdisjoint(indices):
                break
        else:
            raise ValueError(f"no room for {len(entries)} interrupt-remapping entries")
        for index, entry in zip(indices, entries, strict=True):
            self._used.add(index)
            self._store(index, entry)
            self._invalidate(self._guidance.interrupt_entry_added(index))
        return first

    def change(self, index: int, entry: Entry) -> None:
        """Give a used index another entry: both halves at once, as it is present."""
        self._check(index)
        if not entry.p:
            raise ValueError(f"index {index}: the entry is not present")
        self._store(index, entry)
        self._invalidate(self._guidance.interrupt_entry_changed(index))

    def free(self, index: int) -> None:
        """Take the entry of a used index away; interrupts that name it are blocked from now on."""
        self._check(index)
        self._store(index, RemappedIrte(0))
        self._invalidate(self._guidance.interrupt_entry_changed(index))
        self._used.remove(index)

    def _check(self, index: int) -> None:
        if index not in self._used:
            raise ValueError(f"index {index} is not in use")

    def _store(self, index: int, entry: Entry) -> None:
        self._memory.write(self.base + index * ENTRY_SIZE, entry.pack())
