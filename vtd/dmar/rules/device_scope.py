"""Rules D: device scope entries (VT-d 8.3.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from vtd.dmar.records import SCOPE_HEADER, DeviceScope, Drhd, Hop, ScopedStructure, Sidp
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING

SHORTEST = SCOPE_HEADER + 2
"""Bytes of an entry with one pair in its path."""


def _tails(table: Table) -> Iterator[tuple[ScopedStructure, int | None]]:
    """Structures whose scope walk ended early, with the Length of the entry that ended it."""
    for each in table.scoped:
        if each.tail:
            yield each, each.tail[1] if len(each.tail) >= SCOPE_HEADER else None


@rule("DMAR-D01", ERROR, "no 1 to 5 stray bytes end a device scope", "8.3.1", acrn="stops there")
def stray_bytes(table: Table) -> Hits:
    """Fewer bytes than an entry header can't be an entry; a Length before them is wrong."""
    for each, length in _tails(table):
        if length is None:
            yield each.tail_place, f"stray bytes in the scope of {each.name}: {len(each.tail)}"


@rule(
    "DMAR-D02",
    ERROR,
    "the Length of a scope entry is not 0",
    "8.3.1",
    linux="would loop, by reading",
    xen='"Invalid device scope"',
    fwts='"InvalidDevScope" where it looks',
    iasl="prints a message",
)
def zero_length(table: Table) -> Hits:
    """The next entry can't be found; a walk without this test never ends."""
    for each, length in _tails(table):
        if length == 0:
            yield each.tail_place, "scope entry length is 0"


@rule(
    "DMAR-D03",
    ERROR,
    "the Length of a scope entry is at least 8",
    "8.3.1",
    xen='"Invalid device scope"',
    fwts='"InvalidDevScope"',
)
def too_short(table: Table) -> Hits:
    """An entry is 6 bytes and a path of at least one pair; without a path it names no device."""
    for each, length in _tails(table):
        if length is not None and 0 < length < SCOPE_HEADER:
            yield each.tail_place, f"scope entry length is {length}"
    for _, entry in table.entries:
        if entry.length < SHORTEST:
            yield entry.place(), f"scope entry length is {entry.length}, it has no path"


@rule("DMAR-D04", ERROR, "a scope entry ends inside its structure", "8.3.1", acrn="stops there")
def overruns(table: Table) -> Hits:
    """The entry or its structure has a wrong Length; what follows in the scope is unreadable."""
    for each, length in _tails(table):
        if length is not None and length > len(each.tail):
            message = f"scope entry of {length} bytes runs past the end of {each.name}"
            yield each.tail_place, message


@rule("DMAR-D05", ERROR, "the path of a scope entry has whole pairs", "8.3.1")
def odd_length(table: Table) -> Hits:
    """Readers silently drop the odd byte."""
    for _, entry in table.entries:
        if entry.length % 2:
            yield entry.place(), f"scope entry length is odd: {entry.length}"


@rule(
    "DMAR-D06",
    WARNING,
    "the type of a scope entry is 1 to 5",
    "8.3.1",
    linux='"Unsupported device scope"',
    xen='"Unknown scope type"',
    fwts="warning",
    chipsec="raises an exception when printing",
)
def reserved_type(table: Table) -> Hits:
    """Other types are reserved; the device is named for nobody."""
    for _, entry in table.entries:
        if entry.type not in DeviceScope.NAMES:
            yield entry.place(), f"reserved scope entry type {entry.type}"


@rule("DMAR-D07", WARNING, "the reserved byte of a scope entry is 0", "8.3.1")
def reserved_byte(table: Table) -> Hits:
    """A later revision may give the byte a meaning that this firmware did not intend."""
    for _, entry in table.entries:
        if entry.reserved:
            yield entry.place(), f"reserved byte is 0x{entry.reserved:02x}"


@rule("DMAR-D08", WARNING, "the flags of a scope entry are 0 outside SIDP", "8.3.1")
def flags_outside_sidp(table: Table) -> Hits:
    """The flags mean something in SIDP structures only and are reserved elsewhere."""
    for each, entry in table.entries:
        if entry.flags and not isinstance(each, Sidp):
            yield entry.place(), f"flags 0x{entry.flags:02x} in a scope entry of {each.name}"


@rule("DMAR-D09", WARNING, "bits 7:5 of the flags of an SIDP scope entry are 0", "8.3.1")
def reserved_sidp_flags(table: Table) -> Hits:
    """A later revision may give these bits a meaning that this firmware did not intend."""
    for each in table.all(Sidp):
        for entry in each.scopes:
            if entry.sidp & entry.sidp.RESERVED:
                yield entry.place(), f"reserved bits set in flags 0x{entry.flags:02x}"


@rule("DMAR-D10", ERROR, "device numbers in a path are at most 31", "8.3.1 (PCI)")
def device_number(table: Table) -> Hits:
    """A PCI bus has 32 devices."""
    for _, entry in table.entries:
        for hop in entry.path:
            if hop.device > 31:
                yield entry.place(), f"device number {hop.device} in a path"
                break


@rule("DMAR-D11", ERROR, "function numbers in a path are at most 7", "8.3.1 (PCI)")
def function_number(table: Table) -> Hits:
    """A PCI device has 8 functions; ARI functions are not named in a path (8.3.2)."""
    for _, entry in table.entries:
        for hop in entry.path:
            if hop.function > 7:
                yield entry.place(), f"function number {hop.function} in a path"
                break


@rule("DMAR-D12", WARNING, "the Enumeration ID of a PCI entry is 0", "8.3.1")
def enumeration_id(table: Table) -> Hits:
    """The field is reserved for endpoints and sub-hierarchies."""
    for _, entry in table.entries:
        if entry.enumeration_id and entry.is_pci:
            yield entry.place(), f"enumeration id {entry.enumeration_id} on a PCI entry"


@rule("DMAR-D13", ERROR, "HPET and namespace entries have a path of one pair", "8.3.1")
def source_id_path(table: Table) -> Hits:
    """Bus and pair are the 16-bit source-id itself there, not a way through bridges."""
    for _, entry in table.entries:
        source_id = (DeviceScope.MSI_CAPABLE_HPET, DeviceScope.ACPI_NAMESPACE_DEVICE)
        if entry.type in source_id and len(entry.path) > 1:
            yield entry.place(), f"{entry.type_name} entry with a path of {len(entry.path)} pairs"


@rule(
    "DMAR-D15",
    ERROR,
    "a PCI device is listed by one unit only",
    "8.3",
    linux="silent; units without INCLUDE_PCI_ALL go to the head of its list, so the later one wins",
    xen="silent; the later unit wins, by reading",
)
def device_under_two_units(table: Table) -> Hits:
    """Each device is under exactly one unit; which one translates its requests is open here."""
    first: dict[tuple[int, tuple[int, tuple[Hop, ...]]], Drhd] = {}
    for unit in table.units:
        for entry in unit.scopes:
            if not entry.is_pci or not entry.path:
                continue
            owner = first.setdefault((unit.segment, entry.location), unit)
            if owner is not unit:
                message = f"{entry} is listed by the unit at offset 0x{owner.offset:03x} as well"
                yield entry.place(), message


@rule("DMAR-D16", WARNING, "no scope entry is there twice in a structure")
def repeated_entry(table: Table) -> Hits:
    """Two equal entries say nothing more than one."""
    for each in table.scoped:
        seen: set[DeviceScope] = set()
        for entry in each.scopes:
            if entry in seen:
                yield entry.place(), f"{entry} is listed twice in {each.name}"
            seen.add(entry)


def _identified(table: Table, type: int) -> Iterator[tuple[Drhd, DeviceScope]]:
    for unit in table.units:
        for entry in unit.scopes:
            if entry.type == type:
                yield unit, entry


@rule(
    "DMAR-D17",
    WARNING,
    "an I/O APIC id is listed once, an HPET id in one unit only",
    "8.3.1.1",
    linux="keeps the first",
)
def repeated_id(table: Table) -> Hits:
    """Interrupts of one I/O APIC or HPET block pass through one unit with one source-id."""
    apics: set[int] = set()
    for _, entry in _identified(table, DeviceScope.IOAPIC):
        if entry.enumeration_id in apics:
            yield entry.place(), f"I/O APIC id {entry.enumeration_id} is listed twice"
        apics.add(entry.enumeration_id)
    blocks: dict[int, Drhd] = {}
    for unit, entry in _identified(table, DeviceScope.MSI_CAPABLE_HPET):
        if blocks.setdefault(entry.enumeration_id, unit) is not unit:
            yield entry.place(), f"HPET id {entry.enumeration_id} is listed by two units"


@rule("DMAR-D18", INFO, "an HPET id is listed once in a unit")
def repeated_hpet(table: Table) -> Hits:
    """Sandy Bridge firmware lists one id for eight functions, one for each timer."""
    seen: dict[int, set[int]] = defaultdict(set)
    for unit, entry in _identified(table, DeviceScope.MSI_CAPABLE_HPET):
        if entry.enumeration_id in seen[unit.offset]:
            yield entry.place(), f"HPET id {entry.enumeration_id} is listed twice in a unit"
        seen[unit.offset].add(entry.enumeration_id)


@rule("DMAR-D19", ERROR, "an INCLUDE_PCI_ALL unit lists no PCI device", "8.3.1")
def pci_entry_of_include_all(table: Table) -> Hits:
    """Such a unit has all devices left over by the others; only I/O APICs and the like are named.

    No table seen so far breaks it.
    """
    for unit in table.units:
        if unit.flags.include_pci_all:
            for entry in unit.scopes:
                if entry.is_pci:
                    yield entry.place(), f"{entry} in an INCLUDE_PCI_ALL unit"


@rule("DMAR-D20", INFO, "paths of PCI entries have one pair", "8.3.1")
def multi_hop(table: Table) -> Hits:
    """A device behind bridges changes its source-id when software renumbers buses (8.3.5)."""
    for _, entry in table.entries:
        if entry.is_pci and len(entry.path) > 1:
            message = f"{entry}: {len(entry.path)} pairs, the source-id depends on bus numbers"
            yield entry.place(), message
