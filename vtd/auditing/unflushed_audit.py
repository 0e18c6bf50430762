"""Audit of stores that a unit does not see: what software forgot to flush, or to drain.

VT-d 3.10, 6.8, 11.4.3 (C). Only a unit in front of :class:`pagetables.stores.UnsnoopedMemory` has
any.
"""

from __future__ import annotations

from typing import NamedTuple

from vtd.unit.reporting.events import Event, UnflushedRead
from vtd.unit.unit import RemappingUnit


class UnflushedFinding(NamedTuple):
    """A structure that was read without a store that waits."""

    read: UnflushedRead
    buffered: bool
    """Whether flushing cache lines is not enough, because of write buffers."""

    @property
    def missing(self) -> str:
        """What would have let the unit see the store."""
        return "write-buffer flush or invalidation" if self.buffered else "flush of its cache lines"

    @property
    def section(self) -> str:
        return "6.8" if self.buffered else "3.10"


class UnflushedAudit:
    """Watches the reads of ``unit`` from now on; each store is reported once."""

    def __init__(self, unit: RemappingUnit) -> None:
        self.line = 0
        self.judged: list[tuple[int, UnflushedFinding]] = []
        self._buffered = bool(unit.capabilities.cap.rwbf)
        self._known: set[tuple[int, int]] = set()
        self._unit = unit
        unit.subscribe(self._event)

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._unit.unsubscribe(self._event)

    def _event(self, event: Event) -> None:
        if isinstance(event, UnflushedRead) and (event.address, event.stored) not in self._known:
            self._known.add((event.address, event.stored))
            self.judged.append((self.line, UnflushedFinding(event, self._buffered)))
