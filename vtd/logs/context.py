"""A log against its platform: who a source-id is, under which unit, whose region an address is in.

The platform is what was given (DMAR table, PCI listing, memory map) and what the log itself tells;
what was given comes first. An answer that depends on something unknown is not given: without the
bus tree a unit's scope over bridges, and a path over them, can't be resolved (VT-d 8.3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.ranges import RangeSet
from vtd.dmar.records import DeviceScope, Rmrr
from vtd.dmar.scopes import Owner, Scopes
from vtd.dmar.table import Table
from vtd.logs.facts import Facts, SystemDevice
from vtd.logs.fault import FoldedFaults, RequestKind
from vtd.logs.log import Log, MessageGroup
from vtd.logs.message import Weight

NO_TREE = "can't tell without the bus tree (--lspci)"
NO_CAPABILITIES = "not known: the listing shows no capabilities (run lspci as root)"
PCI_BRIDGE = 0x0604
"""Class of PCI to PCI bridges."""
_SYSTEM_NAMES = {
    DeviceScope.IOAPIC: "I/O APIC {0}",
    DeviceScope.MSI_CAPABLE_HPET: "HPET {0}",
    DeviceScope.ACPI_NAMESPACE_DEVICE: "ACPI device {0} (ANDD)",
}
SAME_BOOT = "whether table and log are of the same machine and boot"
OTHER_TABLE = "it is the table of another machine, or of another firmware version"
MOVED_OR_OTHER = "firmware may place them anew at every boot, or it is the table of another machine"
_HIGHEST_BUSES = range(0xF0, 0x100)
"""Where firmware puts source-ids of I/O APICs and HPETs, behind the buses that devices use."""


class Whose(Enum):
    """Whose reserved region an address is in."""

    OWN = "this device"
    OTHER = "another device"
    UNKNOWN = "a device that can't be told without the bus tree (--lspci)"
    UNNAMED = "a device that the log does not name"


class RegionHit(NamedTuple):
    """A reserved region that addresses of a fault lie in; the limit is its last byte."""

    base: int
    limit: int
    whose: Whose
    is_reserved: bool | None
    """Whether the memory map reserves it; None if that is not known."""


_Senders = tuple[dict[Bdf, list[Bdf]], dict[Bdf, list[Bdf]]]
"""Functions by the source-ids of others that they send with: by a quirk, and by an alias."""


class Context:
    """What is known of the platform of a log."""

    def __init__(
        self,
        facts: Facts,
        table: Table | None = None,
        pci: PciTree | None = None,
        reserved_memory: RangeSet | None = None,
    ) -> None:
        self.facts = facts
        self.table = table
        self.pci = pci if pci is not None else facts.pci
        self._listed = pci is not None
        self._knows_buses = pci is not None and not any(
            each.class_code == PCI_BRIDGE and each.secondary_bus is None
            for each in pci.functions.values()
        )
        self._senders: _Senders | None = None
        self._scopes = Scopes(table, self.pci) if table else None
        self._reserved = reserved_memory
        if reserved_memory is None and facts.has_memory_map:
            self._reserved = facts.reserved_memory

    def name(self, source: Bdf) -> str:
        """The name of a function; empty if it is not known."""
        function = self.pci.functions.get(source) if self.pci else None
        return function.name if function else ""

    def system_device(self, source: Bdf) -> str:
        """The I/O APIC, HPET or ACPI device whose source-id the table says it is; or empty."""
        if self._scopes is None:
            return ""
        for unit in self._scopes.table.units:
            for entry in unit.scopes:
                words = _SYSTEM_NAMES.get(entry.type)
                if words and self._scopes.resolve(unit.segment, entry) == source:
                    device = words.format(entry.enumeration_id)
                    return f"{device}, listed under the unit 0x{unit.register_base:x}"
        return ""

    def hint(self, group: FoldedFaults) -> str:
        """What an interrupt that no table explains may come from; empty if there is no hint."""
        source, devices = group.source, self.facts.system_devices
        if group.kind is not RequestKind.INTERRUPT or source is None or self.system_device(source):
            return ""
        is_function = self.pci is not None and source in self.pci.functions
        if source.source_id.bus not in _HIGHEST_BUSES or is_function:
            return ""
        if not devices:
            return "probably an I/O APIC or HPET: no device is on so high a bus (--dmar tells)"
        listed = ", ".join(
            f"{'I/O APIC' if each.kind == 'IOAPIC' else each.kind} {each.number} under the unit "
            f"0x{each.register_base:x}"
            for each in devices
        )
        return f"probably an I/O APIC or HPET; the log has {listed} (--dmar tells which)"

    def alias(self, source: Bdf) -> list[Bdf] | None:
        """Other functions whose requests carry this source-id; None if that is not known."""
        if self.pci is None:
            return None
        if self._senders is None:
            self._senders = _senders(self.pci)
        quirks, aliases = self._senders
        if not any(each.express_type is not None for each in self.pci.functions.values()):
            return quirks.get(source)
        return quirks.get(source, []) + aliases.get(source, [])

    def invented(self, source: Bdf) -> tuple[Bdf, list[Bdf]] | None:
        """The bridge of unknown kind with whose id this is if it is one to PCI, and who is behind.

        Such a bridge sends with its secondary bus and device 0, function 0 (VT-d 3.4.1).
        """
        bridge = self.pci.bridge_above(source) if self.pci else None
        if self.pci is None or bridge is None or source.source_id & 0xFF:
            return None
        above = self.pci.functions[bridge]
        if above.express_known or above.secondary_bus != source.source_id.bus:
            return None
        return bridge, [
            each for each in self.pci.functions if bridge in self.pci.bridges_above(each)
        ]

    def is_listed(self, source: Bdf) -> bool | None:
        """Whether the PCI listing has the function; None without one, or if the log is all."""
        return source in self.pci.functions if self.pci and self._listed else None

    def owner(self, source: Bdf) -> Owner | str | None:
        """The unit of a device; words where it can't be told, None where the table has none."""
        if self._scopes is None:
            return None
        owner = self._scopes.owner(source)
        if owner is not None and owner.device in self._by_themselves(owner):
            return owner
        if self._depends_on_buses(source, self._unit_entries(source.segment)):
            return NO_TREE
        return owner

    @property
    def has_table(self) -> bool:
        """Whether there is a DMAR table."""
        return self._scopes is not None

    def regions(self, group: FoldedFaults) -> list[RegionHit]:
        """The reserved regions that the addresses of a fault lie in."""
        if group.kind is RequestKind.INTERRUPT or group.source is None:
            return []
        if self._scopes is not None:
            return list(self._table_regions(self._scopes, group, group.source))
        return list(self._log_regions(group, group.source))

    def in_reserved_memory(self, group: FoldedFaults) -> bool:
        """Whether all addresses are in memory that the memory map reserves."""
        if self._reserved is None or group.kind is RequestKind.INTERRUPT or not group.ranges:
            return False
        return all(self._reserved.holds(start, end) for start, end in group.ranges)

    def _table_regions(
        self, scopes: Scopes, group: FoldedFaults, source: Bdf
    ) -> Iterator[RegionHit]:
        own = scopes.regions(source)
        for region in scopes.table.all(Rmrr):
            if not _meets(group, region.base, region.end):
                continue
            if region in own:
                whose = Whose.OWN
            elif region.segment == source.segment and self._depends_on_buses(
                source, list(region.scopes)
            ):
                whose = Whose.UNKNOWN
            else:
                whose = Whose.OTHER
            yield self._hit(region.base, region.end, whose)

    def _log_regions(self, group: FoldedFaults, source: Bdf) -> Iterator[RegionHit]:
        named = {(each.start, each.end) for each in self.facts.regions if each.device}
        for region in self.facts.regions:
            if not _meets(group, region.start, region.end):
                continue
            if region.device is None:
                if (region.start, region.end) not in named:
                    yield self._hit(region.start, region.end, Whose.UNNAMED)
            else:
                whose = Whose.OWN if region.device == source else Whose.OTHER
                yield self._hit(region.start, region.end, whose)

    def _hit(self, start: int, end: int, whose: Whose) -> RegionHit:
        reserved = None if self._reserved is None else self._reserved.holds(start, end)
        return RegionHit(start, end - 1, whose, reserved)

    def _unit_entries(self, segment: int) -> list[DeviceScope]:
        assert self._scopes is not None
        units = self._scopes.table.units
        return [entry for unit in units if unit.segment == segment for entry in unit.scopes]

    def _by_themselves(self, owner: Owner) -> set[Bdf]:
        """The device of an entry that needs no bridge to be found."""
        entry = owner.entry
        if entry is None or entry.type == DeviceScope.PCI_SUB_HIERARCHY or len(entry.path) != 1:
            return set()
        return {owner.device}

    def _depends_on_buses(self, source: Bdf, entries: list[DeviceScope]) -> bool:
        """Whether entries may have a device in their scope over bridges that are not known.

        A device on a bus at which paths start is behind no bridge.
        """
        if self._knows_buses:
            return False
        bus = source.source_id.bus
        if bus in {entry.start_bus for entry in entries} or bus == 0:
            return False
        return any(
            entry.type == DeviceScope.PCI_SUB_HIERARCHY
            or (entry.type == DeviceScope.PCI_ENDPOINT and len(entry.path) > 1)
            for entry in entries
        ) and not (self.pci is not None and self.pci.bridges_above(source))


def put_in_context(log: Log, table: Table | None, platform: PlatformData) -> tuple[Log, Context]:
    """The log with what contradicts the machine first, and what is known of that machine."""
    context = Context(log.facts, table, platform.pci, platform.reserved_memory)
    found = list(contradictions(log, context))
    return log._replace(messages=found + log.messages), context


def contradictions(log: Log, context: Context) -> Iterator[MessageGroup]:
    """What the log says against the table that was given, or a fault against the log."""
    table, facts = context.table, log.facts
    listed = sorted(each.number for each in facts.system_devices if each.kind == "IOAPIC")
    if unlisted := sorted(facts.unlisted.keys() - set(listed)) if listed else []:
        yield MessageGroup(
            Weight.PROBLEM,
            f"the machine has I/O APIC {', '.join(map(str, unlisted))}, the table lists "
            f"{', '.join(map(str, listed))}: the ids of MADT and DMAR disagree (rule DMAR-K02)",
            "both tables; a firmware that gives the same id in both",
        )
    if table is None:
        return
    bases = {unit.register_base for unit in table.units}
    ranges = {(each.base, each.end) for each in table.all(Rmrr)}
    units = [f"0x{base:x}" for base in sorted(facts.units.keys() - bases)]
    entries = [
        f"{each.kind} {each.number} under 0x{each.register_base:x}"
        for each in facts.system_devices
        if not _lists(table, each)
    ]
    regions = [
        f"0x{each.start:x}-0x{each.end - 1:x}"
        for each in facts.regions
        if each.device is None and (each.start, each.end) not in ranges
    ]
    if units:
        yield _not_in_table(Weight.PROBLEM, "units", units, OTHER_TABLE)
    elif entries:
        yield _not_in_table(Weight.PROBLEM, "entries", entries, OTHER_TABLE)
    if regions:
        yield _not_in_table(Weight.NOTICE, "reserved regions", regions, MOVED_OR_OTHER)


def _not_in_table(weight: Weight, what: str, names: list[str], why: str) -> MessageGroup:
    text = f"the log has {what} that the table does not have: {', '.join(names)}; {why}"
    return MessageGroup(weight, text, SAME_BOOT)


def _lists(table: Table, device: SystemDevice) -> bool:
    """Whether a table lists an I/O APIC or HPET of the log under the unit that the log tells."""
    type = DeviceScope.IOAPIC if device.kind == "IOAPIC" else DeviceScope.MSI_CAPABLE_HPET
    return any(
        unit.register_base == device.register_base
        and entry.type == type
        and entry.enumeration_id == device.number
        for unit in table.units
        for entry in unit.scopes
    )


def _senders(pci: PciTree) -> _Senders:
    quirks: dict[Bdf, list[Bdf]] = {}
    aliases: dict[Bdf, list[Bdf]] = {}
    for bdf in pci.functions:
        for each in pci.quirk_aliases(bdf):
            quirks.setdefault(each, []).append(bdf)
        alias = pci.alias(bdf)
        if alias is not None and alias != bdf:
            aliases.setdefault(alias, []).append(bdf)
    return quirks, aliases


def _meets(group: FoldedFaults, start: int, end: int) -> bool:
    return any(low < end and start < high for low, high in group.ranges)
