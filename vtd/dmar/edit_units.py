"""Changes to the structures that name hardware: units, root ports, ACPI devices.

Like :mod:`vtd.dmar.edit`, every function returns a new table with Length and Checksum right. What
refers to a unit or an ACPI device goes and moves with it.
"""

from __future__ import annotations

from dataclasses import replace

from vtd.dmar.edit import EditError, inserted, parse_device
from vtd.dmar.records import (
    Andd,
    Atsr,
    AtsrFlags,
    DeviceScope,
    Drhd,
    DrhdFlags,
    Rhsa,
    ScopedStructure,
    Structure,
    padded_name,
)
from vtd.dmar.table import Table


def move_unit(table: Table, base: int, new_base: int) -> Table:
    """The table with a unit, and its affinity, at another register base."""
    _register_base(new_base)
    _unit(table, base)
    changed = tuple(
        replace(each, register_base=new_base)
        if isinstance(each, Drhd | Rhsa) and each.register_base == base
        else each
        for each in table.structures
    )
    return replace(table, structures=changed).sealed()


def _register_base(base: int) -> None:
    if base % 0x1000 or not 0 < base < 1 << 64:
        raise EditError(f"0x{base:x} is no register base: those are multiples of 4 KiB")


def _unit(table: Table, base: int) -> Drhd:
    for unit in table.units:
        if unit.register_base == base:
            return unit
    raise EditError(f"no unit has base 0x{base:x}")


def add_unit(table: Table, base: int, devices: list[str], segment: int = 0) -> Table:
    """The table with one more unit: for devices, or for all that are left over if none are given.

    It goes before the INCLUDE_PCI_ALL unit of its segment, which has to be the last (8.3).
    """
    _register_base(base)
    if any(unit.register_base == base for unit in table.units):
        raise EditError(f"there is a unit with base 0x{base:x}")
    where, scopes = _scopes(devices, segment)
    unit = Drhd(
        flags=DrhdFlags.of(include_pci_all=not devices),
        segment=where,
        register_base=base,
        scopes=scopes,
    )
    rest = [each for each in table.segment_units(where) if each.flags.include_pci_all]
    if not rest:
        return inserted(table, unit).sealed()
    if not devices:
        raise EditError(f"segment {where} has an INCLUDE_PCI_ALL unit")
    position = next(n for n, each in enumerate(table.structures) if each is rest[0])
    before, after = table.structures[:position], table.structures[position:]
    return replace(table, structures=(*before, unit, *after)).sealed()


def _scopes(devices: list[str], segment: int) -> tuple[int, tuple[DeviceScope, ...]]:
    """The segment of devices, ``segment`` without any, and their entries."""
    parsed = [parse_device(device) for device in devices]
    segments = {number for number, _ in parsed} or {segment}
    if len(segments) > 1:
        raise EditError("the devices of a structure have to be of one segment")
    return segments.pop(), tuple(entry for _, entry in parsed)


def drop_unit(table: Table, base: int) -> Table:
    """The table without a unit and its affinity."""
    _unit(table, base)
    kept = tuple(
        each
        for each in table.structures
        if not (isinstance(each, Drhd | Rhsa) and each.register_base == base)
    )
    return replace(table, structures=kept).sealed()


def add_atsr(table: Table, ports: list[str], segment: int = 0) -> Table:
    """The table with one more ATSR, for root ports, or for all of a segment if none are given."""
    where, scopes = _scopes(ports, segment)
    bridges = tuple(replace(entry, type=DeviceScope.PCI_SUB_HIERARCHY) for entry in scopes)
    flags = AtsrFlags.of(all_ports=not ports)
    return inserted(table, Atsr(flags=flags, segment=where, scopes=bridges)).sealed()


def drop_atsr(table: Table, offset: int | None = None) -> Table:
    """The table without the ATSR at an offset, or without any."""
    kept = tuple(
        each
        for each in table.structures
        if not (isinstance(each, Atsr) and offset in (None, each.offset))
    )
    if len(kept) == len(table.structures):
        raise EditError("no ATSR" + ("" if offset is None else f" at 0x{offset:x}"))
    return replace(table, structures=kept).sealed()


def add_andd(table: Table, name: str, source: str, base: int) -> Table:
    """The table with an ACPI device declared, and listed with its source-id by a unit."""
    segment, entry = parse_device(source)
    unit = _unit(table, base)
    if unit.segment != segment:
        raise EditError(f"the unit at 0x{base:x} is of segment {unit.segment}")
    if not name.isascii() or not name.startswith("\\"):
        raise EditError(f"{name!r} is no absolute object name, such as \\_SB.PCI0.I2C0")
    taken = {each.device_number for each in table.all(Andd)}
    number = next((free for free in range(1, 256) if free not in taken), None)
    if number is None:
        raise EditError("all numbers of ACPI devices are taken")
    listed = replace(entry, type=DeviceScope.ACPI_NAMESPACE_DEVICE, enumeration_id=number)
    changed = tuple(
        replace(unit, scopes=(*unit.scopes, listed)) if each is unit else each
        for each in table.structures
    )
    tail = name.encode() + b"\0"
    declared = Andd(device_number=number, tail=tail + bytes(-len(tail) % 4))
    return inserted(replace(table, structures=changed), declared).sealed()


def drop_andd(table: Table, name: str) -> Table:
    """The table without the declaration of an ACPI device and the entries with its number."""
    numbers = {
        each.device_number
        for each in table.all(Andd)
        if padded_name(each.object_name) == padded_name(name)
    }
    if not numbers:
        raise EditError(f"no ANDD declares {name}")

    def named(entry: DeviceScope) -> bool:
        kind = DeviceScope.ACPI_NAMESPACE_DEVICE
        return entry.type == kind and entry.enumeration_id in numbers

    def without(each: Structure) -> Structure:
        if not isinstance(each, ScopedStructure):
            return each
        return replace(each, scopes=tuple(entry for entry in each.scopes if not named(entry)))

    kept = tuple(
        without(each)
        for each in table.structures
        if not (isinstance(each, Andd) and each.device_number in numbers)
    )
    return replace(table, structures=kept).sealed()
