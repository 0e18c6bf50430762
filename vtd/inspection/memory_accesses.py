"""What a unit reads and writes by itself, with snooping, memory type and RDT fields of each access.

VT-d 3.10, 3.11.4, 4.2.4, 11.4.15 and appendix A. Values only: the model's memory has no processor
caches in front of it. What a device's own access has is in :mod:`vtd.inspection.memory_type`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from pagetables.observer import Structure
from vtd.inspection.memory_type import MemoryAttributes, MemoryType
from vtd.layouts.entries import PasidEntry
from vtd.layouts.registers import RdtConfiguration
from vtd.unit.observer import CacheName, Observer
from vtd.unit.requests.target import Target
from vtd.unit.unit import RemappingUnit

ALWAYS_SNOOPED = frozenset(
    {
        Structure.POSTED_DESCRIPTOR,
        Structure.QUEUE_DESCRIPTOR,
        Structure.WAIT_STATUS,
        Structure.PAGE_REQUEST,
    }
)
"""Whatever ECAP_REG.C says (11.4.3)."""
BELOW_PASID_ENTRIES = frozenset(
    {Structure.FIRST_STAGE, Structure.SECOND_STAGE, Structure.HOST_PERMISSION}
)


class Operation(Enum):
    """How a structure is accessed."""

    READ = "read"
    UPDATE = "atomic update"
    WRITE = "write"


class MemoryAccess(NamedTuple):
    """One access of the unit itself."""

    structure: Structure
    operation: Operation
    address: int
    size: int
    attributes: MemoryAttributes
    rdt: RdtConfiguration
    """CLOS and RMID of the access; 0 where the unit has none."""


def structure_attributes(
    unit: RemappingUnit, structure: Structure, operation: Operation, entry: PasidEntry | None
) -> MemoryAttributes:
    """Attributes of an access to a structure (appendix A).

    ``entry`` is the PASID entry that led to paging structures; None in legacy mode.
    """
    if operation is Operation.UPDATE or structure in ALWAYS_SNOOPED:
        snoop = True
    elif structure in BELOW_PASID_ENTRIES and entry is not None:
        snoop = bool(unit.capabilities.ecap.smpwcs and entry.pwsnp)
    else:
        snoop = bool(unit.capabilities.ecap.c)
    return MemoryAttributes(MemoryType.WB, snoop)


class MemoryAccesses(Observer):
    """Keeps every later access of ``unit`` in ``accesses``, until the unit is told to ignore it."""

    def __init__(self, unit: RemappingUnit) -> None:
        self._unit = unit
        self._entry: PasidEntry | None = None
        self.accesses: list[MemoryAccess] = []
        unit.observe(self)

    def asked(self, cache: CacheName, key: Any, entry: Any) -> None:
        """Which PASID or context entry counts for the paging structures that follow."""
        if entry is not None:
            self._follow(cache, entry)

    def kept(self, cache: CacheName, key: Any, entry: Any) -> None:
        """As for an entry that was there already."""
        self._follow(cache, entry)

    def _follow(self, cache: CacheName, entry: Any) -> None:
        if cache in (CacheName.CONTEXT, CacheName.PASID):
            value = entry.value.entry if isinstance(entry.value, Target) else None
            self._entry = value if isinstance(value, PasidEntry) else None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self._add(structure, Operation.READ, address, size)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self._add(structure, Operation.UPDATE, address, size)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        self._add(structure, Operation.WRITE, address, len(data))

    def _add(self, structure: Structure, operation: Operation, address: int, size: int) -> None:
        attributes = structure_attributes(self._unit, structure, operation, self._entry)
        rdt = self._unit.registers[RdtConfiguration]
        self.accesses.append(MemoryAccess(structure, operation, address, size, attributes, rdt))
