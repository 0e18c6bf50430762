"""Which devices the units of a table cover, as far as the table alone can tell."""

from __future__ import annotations

from vtd.dmar.records import DeviceScope
from vtd.dmar.table import Table


class Coverage:
    """What the units of one PCI segment cover.

    A device behind a bridge counts as covered if the bridge is on its path. Bridges that firmware
    left out of a path need the PCI tree (:mod:`vtd.dmar.scopes`).
    """

    def __init__(self) -> None:
        self.everything = False
        self.listed: set[tuple[int, bytes]] = set()
        self.bridges: set[tuple[int, bytes]] = set()
        self.namespace_devices: set[tuple[int, bytes]] = set()

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
        device = entry.start_bus, entry.path_bytes
        if entry.is_pci:
            self.listed.add(device)
        if entry.type == DeviceScope.PCI_SUB_HIERARCHY:
            self.bridges.add(device)
        if entry.type == DeviceScope.ACPI_NAMESPACE_DEVICE:
            self.namespace_devices.add(device)

    def covers(self, entry: DeviceScope) -> bool:
        """Whether some unit has the device; True for kinds of device this does not judge."""
        device = entry.start_bus, entry.path_bytes
        if entry.type == DeviceScope.ACPI_NAMESPACE_DEVICE:
            return device in self.namespace_devices
        if not entry.is_pci or not entry.path or self.everything or device in self.listed:
            return True
        path = entry.path_bytes
        return any(
            (entry.start_bus, path[:length]) in self.bridges for length in range(2, len(path), 2)
        )
