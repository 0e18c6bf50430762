"""Interrupts sent by entries that software had invalidated: what a sound unit never does.

What software owes is audited elsewhere (:mod:`vtd.auditing`). This is what a unit owes: for DMA the
checks of a guest see it, but a guest whose interrupts go astray can only stop.
"""

from __future__ import annotations

from typing import Any

from pagetables.bits import BitRecord
from vtd.layouts.descriptors import InterruptEntryCacheInvalidateDescriptor, InterruptGranularity
from vtd.unit.observer import CacheName, Observer
from vtd.unit.unit import RemappingUnit


class InvalidatedInterrupts(Observer):
    """Watches ``unit`` from now on; ``findings`` has a line for each entry that was used."""

    def __init__(self, unit: RemappingUnit) -> None:
        self._kept: set[int] = set()
        self._removed: set[int] = set()
        self._found: set[int] = set()
        unit.observe(self)

    @property
    def findings(self) -> list[str]:
        """Which entries a unit used although an invalidation had removed them."""
        return [
            f"interrupt entry cache entry {index} used after an iec_inv that removed it: the unit "
            "is broken (VT-d 6.5.2.8)"
            for index in sorted(self._found)
        ]

    def kept(self, cache: CacheName, key: Any, entry: object) -> None:
        """An entry is in the cache until it is invalidated."""
        if cache is CacheName.INTERRUPT:
            self._kept.add(key)
            self._removed.discard(key)

    def invalidated(self, command: BitRecord) -> None:
        """These entries are not in the cache any more."""
        if not isinstance(command, InterruptEntryCacheInvalidateDescriptor):
            return
        gone = set(self._kept)
        if command.g != InterruptGranularity.GLOBAL:
            count = 1 << command.im
            first = command.iidx & -count
            gone.intersection_update(range(first, first + count))
        self._kept -= gone
        self._removed |= gone

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        """Nothing may be found that was removed."""
        if cache is CacheName.INTERRUPT and entry is not None and key in self._removed:
            self._found.add(key)
