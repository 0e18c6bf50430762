"""Rules C and I: SoC integrated devices with translation caches (VT-d 8.8) and properties (8.9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from vtd.dmar.records import DeviceScope, Hop, Satc, ScopedStructure, Sidp
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING

Device: TypeAlias = tuple[int, tuple[int, tuple[Hop, ...]]]
"""What identifies a device: its segment, and its location in there."""


def _empty(structures: Iterable[ScopedStructure]) -> Hits:
    for each in structures:
        if not each.scopes and not each.tail:
            yield each.place(), f"{each.name} without scope entries"


def _long_paths(structures: Iterable[ScopedStructure]) -> Hits:
    for each in structures:
        for entry in each.scopes:
            if len(entry.path) > 1:
                yield entry.place(), f"{entry} in {each.name} has {len(entry.path)} pairs"


def _devices(
    structures: Iterable[ScopedStructure],
) -> Iterator[tuple[ScopedStructure, DeviceScope, Device]]:
    """Entries that name a device, with what identifies it."""
    for each in structures:
        for entry in each.scopes:
            if entry.path:
                yield each, entry, (each.segment, entry.location)


def _in_two(structures: Iterable[ScopedStructure]) -> Hits:
    first: dict[Device, ScopedStructure] = {}
    for each, entry, device in _devices(structures):
        owner = first.setdefault(device, each)
        if owner is not each:
            yield (
                entry.place(),
                f"{entry} is in the {each.name} at offset 0x{owner.offset:03x} as well",
            )


@rule("DMAR-C01", WARNING, "a segment has one SATC for each value of Flags", "8.8")
def satc_repeated(table: Table) -> Hits:
    """Devices of a segment that have the same flags belong in one structure."""
    seen: set[tuple[int, int]] = set()
    for each in table.all(Satc):
        key = each.segment, int(each.flags)
        if key in seen:
            message = f"another SATC with flags 0x{key[1]:02x} for segment {each.segment}"
            yield each.place(), message
        seen.add(key)


@rule("DMAR-C02", ERROR, "an SATC names a device", "8.8")
def satc_empty(table: Table) -> Hits:
    """The structure says nothing about any device."""
    return _empty(table.all(Satc))


@rule("DMAR-C03", ERROR, "scope entries of an SATC are endpoints (type 1)", "8.8")
def satc_entry_type(table: Table) -> Hits:
    """Only integrated endpoints have the translation caches meant here."""
    for each in table.all(Satc):
        for entry in each.scopes:
            if entry.type != DeviceScope.PCI_ENDPOINT:
                yield entry.place(), f"{entry} in an SATC"


@rule("DMAR-C04", ERROR, "paths in an SATC have one pair", "8.8")
def satc_path(table: Table) -> Hits:
    """Integrated endpoints are on a root bus, not behind bridges."""
    return _long_paths(table.all(Satc))


@rule(
    "DMAR-C05",
    WARNING,
    "a device is in one SATC only",
    "",
    linux="takes the first it finds",
)
def satc_device_repeated(table: Table) -> Hits:
    """The two structures have different flags, so they contradict each other."""
    return _in_two(table.all(Satc))


@rule("DMAR-I01", ERROR, "an SIDP names a device", "8.9")
def sidp_empty(table: Table) -> Hits:
    """The structure says nothing about any device."""
    return _empty(table.all(Sidp))


@rule("DMAR-I02", ERROR, "scope entries of an SIDP are of type 1 or 5", "8.9")
def sidp_entry_type(table: Table) -> Hits:
    """Properties are those of integrated endpoints and namespace devices."""
    allowed = (DeviceScope.PCI_ENDPOINT, DeviceScope.ACPI_NAMESPACE_DEVICE)
    for each in table.all(Sidp):
        for entry in each.scopes:
            if entry.type not in allowed:
                yield entry.place(), f"{entry} in an SIDP"


@rule("DMAR-I03", ERROR, "paths in an SIDP have one pair", "8.9")
def sidp_path(table: Table) -> Hits:
    """Integrated devices are on a root bus, not behind bridges."""
    return _long_paths(table.all(Sidp))


@rule("DMAR-I04", WARNING, "a device is in one SIDP only")
def sidp_device_repeated(table: Table) -> Hits:
    """Which of the two sets of properties counts is open."""
    return _in_two(table.all(Sidp))


@rule("DMAR-I05", INFO, "there is no SATC next to an SIDP", "8.9")
def sidp_with_satc(table: Table) -> Hits:
    """Software that reads SIDP ignores SATC. Every SIDP table seen has both, for older software."""
    properties, caches = table.all(Sidp), table.all(Satc)
    if properties and caches:
        yield properties[0].place(), "SATC present as well; software using SIDP ignores it"


@rule("DMAR-I06", WARNING, "SATC and SIDP agree on ATC_REQUIRED")
def atc_required(table: Table) -> Hits:
    """Software that reads one structure enables the cache, software that reads the other not."""
    required: dict[Device, bool] = {}
    for cache in table.all(Satc):
        for _, _, device in _devices((cache,)):
            required.setdefault(device, cache.flags.atc_required)
    for _, entry, device in _devices(table.all(Sidp)):
        if required.get(device, entry.sidp.atc_required) != entry.sidp.atc_required:
            yield entry.place(), f"{entry}: ATC_REQUIRED differs from its SATC"
