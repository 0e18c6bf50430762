"""What a unit that does not snoop sees of stores that wait, and what it reads in their place.

VT-d 3.10, 6.8, 11.4.3 (C, SMPWCS) and 11.4.2 (RWBF), for a unit in front of
:class:`pagetables.stores.UnsnoopedMemory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pagetables.bits import BitRecord
from pagetables.memory import PhysicalMemory
from pagetables.observer import Structure
from pagetables.stores import ProcessorStores, UnsnoopedMemory
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import PasidEntry
from vtd.layouts.registers import ContextCommand, GlobalCommand, IotlbInvalidate
from vtd.unit.observer import CacheName, Observer
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting.events import UnflushedRead
from vtd.unit.requests.target import Target

DRAINING = (
    ContextCommand,
    IotlbInvalidate,
    ContextCacheInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
)
"""Invalidations before which the unit drains the write buffers (6.8)."""


def waiting_stores(memory: PhysicalMemory, units: Iterable[Capabilities]) -> ProcessorStores:
    """Stores to ``memory`` that wait as units with these capabilities may let them.

    Those that snoop cache lines but not write buffers have the buffers alone.
    """
    made = list(units)
    rwbf, snoop = any(each.cap.rwbf for each in made), all(each.ecap.c for each in made)
    return ProcessorStores(memory, caches=not (snoop and rwbf), buffers=rwbf)


class Snooping(Observer):
    """Observes one unit: says which accesses are snooped, and tells of what software did not flush.

    It has to observe the unit from the beginning.
    """

    def __init__(
        self,
        memory: UnsnoopedMemory,
        capabilities: Capabilities,
        registers: RegisterFile,
        publish: Callable[[UnflushedRead], None],
    ) -> None:
        self._memory = memory
        self._coherent = bool(capabilities.ecap.c)
        self._publish = publish
        memory.snoops_structures = memory.snoops_walks = self._coherent
        registers.on_write(GlobalCommand, self._command)

    def asked(self, cache: CacheName, key: Any, entry: Any) -> None:
        """The tables behind this entry are walked next."""
        if entry is not None:
            self._follow(cache, entry)

    def kept(self, cache: CacheName, key: Any, entry: Any) -> None:
        """As of an entry that is cached already."""
        self._follow(cache, entry)

    def _follow(self, cache: CacheName, entry: Any) -> None:
        if cache in (CacheName.CONTEXT, CacheName.PASID) and isinstance(entry.value, Target):
            target = entry.value
            stage, found = target.first or target.second, target.entry
            if not isinstance(found, PasidEntry):
                self._memory.snoops_walks = self._coherent
            else:  # pass-through has no stage, but may have a host permission table
                self._memory.snoops_walks = found.pwsnp if stage is None else stage.snooped

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """Whether software has stored something else there."""
        stored = self._memory.snooped.read_record(address, size)
        if stored != value:
            self._publish(UnflushedRead(structure, address, value, stored))

    def invalidated(self, command: BitRecord) -> None:
        """6.8: invalidations of the unit's own caches drain the write buffers."""
        if isinstance(command, DRAINING):
            self._memory.stores.drain()

    def _command(self, write: RegisterWrite[GlobalCommand]) -> None:
        if write.raw.wbf:
            self._memory.stores.drain()
