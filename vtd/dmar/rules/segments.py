"""Rules X: what structures of a PCI segment expect of its units (VT-d 8.3)."""

from __future__ import annotations

from vtd.dmar.records import Atsr, Rmrr, Satc, Sidp
from vtd.dmar.rules.coverage import without_unit
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, WARNING


@rule(
    "DMAR-X01",
    ERROR,
    "the segment of an RMRR, ATSR, SATC or SIDP has a unit",
    "8.3",
    judges_absence=True,
    acrn="supports one segment only",
)
def segment_without_unit(table: Table) -> Hits:
    """Every PCI segment needs at least one remapping unit."""
    segments = {unit.segment for unit in table.units}
    for each in table.scoped:
        if isinstance(each, Rmrr | Atsr | Satc | Sidp) and each.segment not in segments:
            yield each.place(), f"{each.name} for segment {each.segment}, which has no unit"


@rule(
    "DMAR-X02",
    WARNING,
    "devices of an SATC or SIDP are under some unit",
    "8.8, 8.9",
    judges_absence=True,
)
def device_without_unit(table: Table) -> Hits:
    """Translation caches and properties mean nothing for a device that is not remapped."""
    return without_unit(table, (each for each in table.scoped if isinstance(each, Satc | Sidp)))
