"""Rules U: remapping hardware units (VT-d 8.3)."""

from __future__ import annotations

from collections.abc import Iterator

from devices.interrupt_messages import INTERRUPT_RANGE
from vtd.dmar.ranges import RangeSet
from vtd.dmar.records import DeviceScope, Drhd
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING

ALL_ONES = (1 << 64) - 1


def placed(table: Table) -> Iterator[Drhd]:
    """Units whose base can be an address at all."""
    return (unit for unit in table.units if unit.register_base not in (0, ALL_ONES))


@rule(
    "DMAR-U01",
    ERROR,
    "Register Base Address is not 0",
    "8.3",
    linux='"DMAR reported at address 0", all remapping stays off',
    xen="disables VT-d",
    acrn="assertion",
)
def base_zero(table: Table) -> Hits:
    """The registers of the unit can't be reached. Seen in three tables, two of them hardware."""
    for unit in table.units:
        if unit.register_base == 0:
            yield unit.place("register_base"), "register base is 0"


@rule("DMAR-U02", ERROR, "Register Base Address is not all ones", "", xen="disables VT-d")
def base_all_ones(table: Table) -> Hits:
    """All ones is what erased or absent memory reads as; no register set can be there."""
    for unit in table.units:
        if unit.register_base == ALL_ONES:
            yield unit.place("register_base"), "register base is all ones"


@rule(
    "DMAR-U03",
    ERROR,
    "Register Base Address is 4 KiB aligned",
    "8.3",
    fwts='"InvalidDRHDRegAddr"',
)
def base_unaligned(table: Table) -> Hits:
    """Register sets are whole pages."""
    for unit in placed(table):
        if unit.register_base % 0x1000:
            message = f"register base 0x{unit.register_base:x} is not 4 KiB aligned"
            yield unit.place("register_base"), message


@rule("DMAR-U04", ERROR, "Register Base Address is aligned to the register set size", "8.3")
def base_unaligned_to_size(table: Table) -> Hits:
    """The Size field gives 2^N pages, and the base has to be a multiple of that."""
    for unit in placed(table):
        base, size = unit.register_base, unit.register_bytes
        if base % size and not base % 0x1000:
            message = f"register base 0x{base:x} is not aligned to its 0x{size:x} bytes"
            yield unit.place("register_base"), message


@rule("DMAR-U05", ERROR, "register sets lie below the host address width", "8.1")
def beyond_address_width(table: Table) -> Hits:
    """Addresses at and above 2^HAW don't exist on this platform."""
    bits = table.header.address_bits
    for unit in placed(table):
        if unit.register_end > 1 << bits:
            message = f"registers up to 0x{unit.register_end - 1:x} exceed {bits} address bits"
            yield unit.place("register_base"), message


@rule(
    "DMAR-U06",
    ERROR,
    "no two units have the same Register Base Address",
    "8.3",
    linux="counts the second one of a segment but ignores it",
)
def base_repeated(table: Table) -> Hits:
    """A structure stands for one unit; two can't share their registers."""
    first: dict[int, Drhd] = {}
    for unit in placed(table):
        owner = first.setdefault(unit.register_base, unit)
        if owner is not unit:
            message = f"register base 0x{unit.register_base:x} as at offset 0x{owner.offset:03x}"
            yield unit.place("register_base"), message


@rule(
    "DMAR-U07",
    ERROR,
    "the register sets of units are disjoint",
    "",
    linux='"Can\'t reserve memory" for the second',
)
def windows_overlap(table: Table) -> Hits:
    """Two units would answer at the same address."""
    windows = RangeSet()
    bases: set[int] = set()
    for unit in placed(table):
        window = unit.register_base, unit.register_end
        if unit.register_base not in bases and windows.meets(*window):
            message = f"registers 0x{window[0]:x}-0x{window[1] - 1:x} overlap an earlier unit"
            yield unit.place("register_base"), message
        bases.add(unit.register_base)
        windows.add(*window)


@rule(
    "DMAR-U08",
    ERROR,
    "the INCLUDE_PCI_ALL unit is the last of its segment",
    "8.3",
    linux="sorts units itself, does not mind",
    acrn="logs an error",
)
def include_all_not_last(table: Table) -> Hits:
    """It takes the devices that no other unit lists, so a reader has to know those first.

    The order counts within a segment, not over the table.
    """
    last = {unit.segment: unit for unit in table.units if not unit.flags.include_pci_all}
    for unit in table.units:
        follower = last.get(unit.segment)
        if unit.flags.include_pci_all and follower and follower.offset > unit.offset:
            message = f"INCLUDE_PCI_ALL unit before the unit at offset 0x{follower.offset:03x}"
            yield unit.place(), message


@rule(
    "DMAR-U09",
    ERROR,
    "a segment has one INCLUDE_PCI_ALL unit",
    "8.3",
    xen="refuses a second one in segment 0",
    fwts='"MultipleDRHDSFlag", wrongly over all segments',
)
def include_all_twice(table: Table) -> Hits:
    """Two units can't both have everything that is left over."""
    first: dict[int, Drhd] = {}
    for unit in table.units:
        if not unit.flags.include_pci_all:
            continue
        owner = first.setdefault(unit.segment, unit)
        if owner is not unit:
            message = f"second INCLUDE_PCI_ALL unit of segment {unit.segment}"
            yield unit.place(), message


@rule("DMAR-U10", WARNING, "a unit without INCLUDE_PCI_ALL lists devices", "8.3")
def unit_without_devices(table: Table) -> Hits:
    """A unit without devices can't remap anything. Legal: Ice Lake-SP servers have such units."""
    for unit in table.units:
        if not (unit.flags.include_pci_all or unit.scopes or unit.tail):
            yield unit.place(), "unit without INCLUDE_PCI_ALL and without scope entries"


@rule("DMAR-U11", ERROR, "register sets are off the interrupt address range", "3.15")
def window_on_interrupt_range(table: Table) -> Hits:
    """Processor accesses to 0xFEE00000-0xFEEFFFFF reach the local APIC, never a unit."""
    start, end = INTERRUPT_RANGE.start, INTERRUPT_RANGE.stop
    for unit in placed(table):
        if unit.register_base < end and start < unit.register_end:
            message = f"registers at 0x{unit.register_base:x} are in the interrupt address range"
            yield unit.place("register_base"), message


@rule("DMAR-U12", INFO, "a segment has an INCLUDE_PCI_ALL unit", "8.3", judges_absence=True)
def no_include_all(table: Table) -> Hits:
    """Devices that no unit lists are not remapped at all. QEMU lists every device instead."""
    everything = {unit.segment for unit in table.units if unit.flags.include_pci_all}
    first = {unit.segment: unit for unit in reversed(table.units)}
    for segment, unit in first.items():
        if segment not in everything:
            yield unit.place(), f"segment {segment} has no INCLUDE_PCI_ALL unit"


def _lists(table: Table, type: int) -> bool:
    return any(entry.type == type for unit in table.units for entry in unit.scopes)


@rule(
    "DMAR-U13",
    WARNING,
    "with INTR_REMAP some I/O APIC is listed",
    "8.3.1.1",
    judges_absence=True,
    linux='"ioapic N has no mapping iommu, interrupt remapping will be disabled"',
)
def no_ioapic(table: Table) -> Hits:
    """Without its source-id no I/O APIC can be let through interrupt remapping."""
    header = table.header
    if header.flags.intr_remap and table.units and not _lists(table, DeviceScope.IOAPIC):
        yield header.place("flags"), "INTR_REMAP set but no I/O APIC scope entry"


@rule("DMAR-U14", INFO, "with INTR_REMAP some HPET is listed", "8.3.1.2", judges_absence=True)
def no_hpet(table: Table) -> Hits:
    """Only needed if the HPET can send message-signaled interrupts."""
    header = table.header
    if header.flags.intr_remap and table.units and not _lists(table, DeviceScope.MSI_CAPABLE_HPET):
        yield header.place("flags"), "INTR_REMAP set but no HPET scope entry"
