"""Which devices the units of a table cover, as far as the table alone can tell."""

from __future__ import annotations

from collections.abc import Iterable

from vtd.dmar.records import DeviceScope, Hop, ScopedStructure
from vtd.dmar.rules.rule import Hits
from vtd.dmar.table import Table


class Coverage:
    """What the units of one PCI segment cover.

    A device behind a bridge counts as covered if the bridge is on its path. Bridges that firmware
    left out of a path need the PCI tree (:mod:`vtd.dmar.scopes`).
    """

    def __init__(self) -> None:
        self.everything = False
        self.listed: set[tuple[int, tuple[Hop, ...]]] = set()
        self.bridges: set[tuple[int, tuple[Hop, ...]]] = set()
        self.namespace_devices: set[tuple[int, tuple[Hop, ...]]] = set()

    @classmethod
    def by_segment(cls, table: Table) -> dict[int, Coverage]:
        """The coverage of every segment that has a unit."""
        segments: dict[int, Coverage] = {}
        for unit in table.units:
            coverage = segments.setdefault(unit.segment, cls())
            coverage.everything |= unit.flags.include_pci_all
            for entry in unit.scopes:
                coverage._add(entry)
        return segments

    def _add(self, entry: DeviceScope) -> None:
        if entry.is_pci:
            self.listed.add(entry.location)
        if entry.type == DeviceScope.PCI_SUB_HIERARCHY:
            self.bridges.add(entry.location)
        if entry.type == DeviceScope.ACPI_NAMESPACE_DEVICE:
            self.namespace_devices.add(entry.location)

    def covers(self, entry: DeviceScope) -> bool:
        """Whether some unit has the device; True without a path and for kinds not judged here."""
        bus, path = entry.location
        if not path:
            return True
        if entry.type == DeviceScope.ACPI_NAMESPACE_DEVICE:
            return entry.location in self.namespace_devices
        if not entry.is_pci or self.everything or entry.location in self.listed:
            return True
        return any((bus, path[:hops]) in self.bridges for hops in range(1, len(path)))


def without_unit(table: Table, structures: Iterable[ScopedStructure]) -> Hits:
    """Devices of structures that are under no unit of their segment, if that has any."""
    segments = Coverage.by_segment(table)
    for each in structures:
        coverage = segments.get(each.segment)
        for entry in each.scopes:
            if coverage and not coverage.covers(entry):
                yield entry.place(), f"{entry} is under no unit of segment {each.segment}"
