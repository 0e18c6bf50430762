"""Rules R: reserved memory regions (VT-d 8.4)."""

from __future__ import annotations

from collections.abc import Iterator

from devices.interrupt_messages import INTERRUPT_RANGE
from vtd.dmar.ranges import RangeSet
from vtd.dmar.records import Rmrr
from vtd.dmar.rules.coverage import without_unit
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.rules.units import placed
from vtd.dmar.table import Table
from vtd.severity import ERROR, WARNING


def _regions(table: Table) -> Iterator[Rmrr]:
    """Regions that are a range at all."""
    return (each for each in table.all(Rmrr) if each.limit > each.base)


@rule(
    "DMAR-R01",
    ERROR,
    "the base of a region is 4 KiB aligned",
    "8.4",
    linux='"bad RMRR", taints the kernel, keeps the region',
    fwts='"InvalidRMRRRangeAddr"',
)
def base_unaligned(table: Table) -> Hits:
    """Regions are mapped in whole pages, so the device would reach memory outside the region."""
    for each in table.all(Rmrr):
        if each.base % 0x1000:
            yield each.place("base"), f"base 0x{each.base:x} is not 4 KiB aligned"


@rule(
    "DMAR-R02",
    ERROR,
    "the size of a region is a multiple of 4 KiB",
    "8.4",
    linux='"bad RMRR", taints the kernel, keeps the region',
    fwts='"InvalidRMRRRangeAddr"',
)
def limit_unaligned(table: Table) -> Hits:
    """The limit is the last byte of the region, so limit + 1 has to start a page."""
    for each in table.all(Rmrr):
        if each.end % 0x1000:
            yield each.place("limit"), f"limit + 1 0x{each.end:x} is not 4 KiB aligned"


@rule(
    "DMAR-R03",
    ERROR,
    "the limit of a region is above its base",
    "8.4",
    linux='"bad RMRR", taints the kernel, keeps the region',
    xen="disables VT-d if the base is above the limit",
    fwts='"InvalidRMRRRangeAddr"',
)
def limit_not_above_base(table: Table) -> Hits:
    """The region has no bytes. An HP Compaq 6730b reports 0 to 0."""
    for each in table.all(Rmrr):
        if each.limit <= each.base:
            message = f"limit 0x{each.limit:x} is not above base 0x{each.base:x}"
            yield each.place("limit"), message


@rule(
    "DMAR-R04",
    ERROR,
    "a region names at least one device",
    "8.4",
    xen="ignores the region",
)
def no_device(table: Table) -> Hits:
    """A region is reserved for devices; without one nobody maps it."""
    for each in table.all(Rmrr):
        if not each.scopes and not each.tail:
            yield each.place(), "RMRR without scope entries"


@rule(
    "DMAR-R05",
    WARNING,
    "regions are disjoint",
    "",
    xen='"Overlapping RMRRs", disables VT-d',
)
def regions_overlap(table: Table) -> Hits:
    """Devices that share a region belong in the scope of one structure."""
    seen = RangeSet()
    for each in _regions(table):
        if seen.meets(each.base, each.end):
            message = f"region 0x{each.base:x}-0x{each.limit:x} overlaps an earlier one"
            yield each.place("base"), message
        seen.add(each.base, each.end)


@rule("DMAR-R06", ERROR, "regions lie below the host address width", "8.1")
def beyond_address_width(table: Table) -> Hits:
    """Addresses at and above 2^HAW don't exist on this platform."""
    bits = table.header.address_bits
    for each in _regions(table):
        if each.end > 1 << bits:
            yield each.place("limit"), f"limit 0x{each.limit:x} exceeds {bits} address bits"


@rule("DMAR-R08", WARNING, "regions are off the interrupt address range", "3.15")
def region_on_interrupt_range(table: Table) -> Hits:
    """Writes of devices to 0xFEE00000-0xFEEFFFFF are interrupts and never reach memory."""
    start, end = INTERRUPT_RANGE.start, INTERRUPT_RANGE.stop
    for each in _regions(table):
        if each.base < end and start < each.end:
            message = f"region 0x{each.base:x}-0x{each.limit:x} is in the interrupt address range"
            yield each.place("base"), message


@rule(
    "DMAR-R09", WARNING, "the devices of a region are under some unit", "8.4", judges_absence=True
)
def device_without_unit(table: Table) -> Hits:
    """A "must" of the specification, but a table that people cut down often breaks it on purpose.

    Bridges that a path does not mention are not known to the table; see the K rules.
    """
    return without_unit(table, table.all(Rmrr))


@rule("DMAR-R10", WARNING, "regions are off the register sets of units")
def region_on_registers(table: Table) -> Hits:
    """A device with access to the registers of a unit could turn its remapping off."""
    windows = RangeSet()
    for unit in placed(table):
        windows.add(unit.register_base, unit.register_end)
    for each in _regions(table):
        if windows.meets(each.base, each.end):
            message = f"region 0x{each.base:x}-0x{each.limit:x} covers registers of a unit"
            yield each.place("base"), message
