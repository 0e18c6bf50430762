"""Rules N: ACPI name-space devices (VT-d 8.7 and 8.3.1.3)."""

from __future__ import annotations

import re

from vtd.dmar.records import Andd, DeviceScope, Place
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING

QUALIFIED = re.compile(r"\\[A-Z0-9_]{1,4}(\.[A-Z0-9_]{1,4})*")
"""A fully qualified object name: the root, then segments of 1 to 4 characters."""


@rule(
    "DMAR-N01",
    ERROR,
    "the object name ends inside the structure",
    "8.7",
    linux='"ANDD object name is not NUL-terminated", remapping stays off',
)
def not_terminated(table: Table) -> Hits:
    """A reader of the name runs into the next structure."""
    for each in table.all(Andd):
        if each.terminator is None:
            yield each.name_place, "object name is not NUL-terminated"


@rule("DMAR-N02", ERROR, "the object name is not empty", "8.7")
def empty_name(table: Table) -> Hits:
    """The structure declares no device."""
    for each in table.all(Andd):
        if each.terminator == 0:
            yield each.name_place, "object name is empty"


@rule(
    "DMAR-N03",
    WARNING,
    "the object name is a fully qualified path",
    "8.7",
    linux='"Failed to find handle for ACPI object"',
)
def not_qualified(table: Table) -> Hits:
    r"""The name is to be found without a scope: a backslash, then dotted segments of up to four
    capital letters, digits and underscores, as in \_SB.PCI0.I2C0."""
    for each in table.all(Andd):
        if each.terminator and not QUALIFIED.fullmatch(each.object_name):
            yield each.name_place, f"object name {each.object_name!r} is not fully qualified"


@rule("DMAR-N04", ERROR, "ACPI device numbers differ", "8.7")
def repeated_number(table: Table) -> Hits:
    """Scope entries refer to the device by its number."""
    seen: set[int] = set()
    for each in table.all(Andd):
        if each.device_number in seen:
            message = f"device number {each.device_number} is declared twice"
            yield each.place("device_number"), message
        seen.add(each.device_number)


@rule(
    "DMAR-N05",
    WARNING,
    "a scope entry of some unit refers to the device",
    "8.7",
    judges_absence=True,
    linux='"No IOMMU scope found for ANDD enumeration ID"',
)
def not_referenced(table: Table) -> Hits:
    """A declared device that is under no unit has no source-id and is not remapped."""
    used = {
        entry.enumeration_id
        for unit in table.units
        for entry in unit.scopes
        if entry.type == DeviceScope.ACPI_NAMESPACE_DEVICE
    }
    for each in table.all(Andd):
        if each.device_number not in used:
            message = f"no scope entry refers to device number {each.device_number}"
            yield each.place("device_number"), message


@rule(
    "DMAR-N06",
    ERROR,
    "a namespace scope entry refers to an ANDD",
    "8.3.1.3",
    judges_absence=True,
)
def dangling_entry(table: Table) -> Hits:
    """Without the declaration nobody knows which ACPI object the entry means."""
    declared = {each.device_number for each in table.all(Andd)}
    for _, entry in table.entries:
        namespace = entry.type == DeviceScope.ACPI_NAMESPACE_DEVICE
        if namespace and entry.enumeration_id not in declared:
            yield entry.place(), f"no ANDD has device number {entry.enumeration_id}"


@rule("DMAR-N07", INFO, "bytes after the end of the object name are 0")
def bytes_after_name(table: Table) -> Hits:
    """Firmware pads the name with zeros; other bytes are left over from something."""
    for each in table.all(Andd):
        end = each.terminator
        if end is not None and any(each.tail[end:]):
            place = Place(each.name_place.offset + end, len(each.tail) - end)
            yield place, "bytes other than 0 after the object name"
