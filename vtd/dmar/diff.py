"""What differs between two tables, in the terms of a platform: units, regions, scopes.

Structures are matched by what makes them the same thing: a unit by its register base, or else by
its devices; a region by its devices. Order and padding do not matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from pagetables.bits import BitRecord
from vtd.dmar.records import (
    Andd,
    Atsr,
    DeviceScope,
    Drhd,
    Record,
    Rhsa,
    Rmrr,
    Satc,
    ScopedStructure,
    Sidp,
    Structure,
    Undecoded,
)
from vtd.dmar.table import Table

S = TypeVar("S", bound=Structure)
T = TypeVar("T")


class Change(NamedTuple):
    """One difference."""

    subject: str
    """What it is about, such as ``unit 0xfed90000``."""
    text: str
    """What happened to it from the first table to the second."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


def diff(before: Table, after: Table) -> list[Change]:
    """The differences from ``before`` to ``after``; an empty list if they mean the same."""
    return [
        *_fields("table", before.header, after.header, ("table_length", "checksum")),
        *_units(before, after),
        *_regions(before, after),
        *_keyed(before, after, Atsr, _atsr_key),
        *_keyed(before, after, Rhsa, lambda each: f"affinity of unit 0x{each.register_base:x}"),
        *_keyed(before, after, Andd, lambda each: f"ACPI device {each.device_number}"),
        *_keyed(before, after, Satc, _satc_key),
        *_keyed(before, after, Sidp, lambda each: f"SIDP of segment {each.segment}"),
        *_keyed(before, after, Undecoded, lambda each: f"structure of type {each.number}"),
        *_bytes("bytes of unreadable structures", before.rest, after.rest),
        *_bytes("bytes after the table", before.trailing, after.trailing),
    ]


def _atsr_key(each: Atsr) -> str:
    return f"{'ALL_PORTS ' if each.flags.all_ports else ''}ATSR of segment {each.segment}"


def _satc_key(each: Satc) -> str:
    return f"SATC of segment {each.segment} with flags 0x{int(each.flags):02x}"


def _fields(subject: str, before: Record, after: Record, but: Iterable[str]) -> Iterator[Change]:
    """Fields with different values, without those named in ``but``."""
    new = after.fields()
    for name, value in before.fields().items():
        if name not in but and value != new[name]:
            yield Change(subject, f"{name} {_shown(value)} -> {_shown(new[name])}")


def _shown(value: object) -> str:
    if isinstance(value, BitRecord):
        names = [name for name, number in value.fields().items() if number is True]
        return f"0x{int(value):02x} ({', '.join(names) or 'none'})"
    if isinstance(value, int):
        return hex(value) if value > 255 else str(value)
    return str(value)


def _bytes(subject: str, before: bytes, after: bytes) -> Iterator[Change]:
    if before != after:
        yield Change(subject, f"{before.hex() or 'none'} -> {after.hex() or 'none'}")


def _units(before: Table, after: Table) -> Iterator[Change]:
    pairs, lost, new = _matched(before.units, after.units, _unit_bases)
    moved, lost, new = _matched(lost, new, _unit_devices)
    for old, unit in (*pairs, *moved):
        subject = f"unit 0x{old.register_base:x}"
        if old.register_base != unit.register_base:
            yield Change(subject, f"moved to 0x{unit.register_base:x}")
        yield from _fields(subject, old, unit, ("register_base",))
        yield from _scopes(subject, old, unit)
    yield from _lost_and_new(lost, new, lambda each: f"unit 0x{each.register_base:x}")


def _unit_bases(unit: Drhd) -> object:
    return unit.segment, unit.register_base


def _unit_devices(unit: Drhd) -> object:
    return unit.segment, unit.flags.include_pci_all or tuple(sorted(map(_device, unit.scopes)))


def _regions(before: Table, after: Table) -> Iterator[Change]:
    pairs, lost, new = _matched(before.all(Rmrr), after.all(Rmrr), _region_exactly)
    same_base, lost, new = _matched(lost, new, lambda each: (each.segment, each.base))
    same_devices, lost, new = _matched(lost, new, _region_devices)
    for old, region in (*pairs, *same_base, *same_devices):
        subject = f"region 0x{old.base:x}-0x{old.limit:x}"
        if (old.base, old.limit) != (region.base, region.limit):
            yield Change(subject, _region_change(old, region))
        yield from _fields(subject, old, region, ("base", "limit"))
        yield from _scopes(subject, old, region)
    yield from _lost_and_new(lost, new, lambda each: f"region 0x{each.base:x}-0x{each.limit:x}")


def _region_exactly(region: Rmrr) -> object:
    return region.segment, region.base, region.limit


def _region_devices(region: Rmrr) -> object:
    return region.segment, tuple(sorted(map(_device, region.scopes)))


def _region_change(old: Rmrr, new: Rmrr) -> str:
    growth = (new.end - new.base) - (old.end - old.base)
    now = f"now 0x{new.base:x}-0x{new.limit:x}"
    if growth > 0:
        return f"grew by 0x{growth:x} bytes, {now}"
    return f"shrank by 0x{-growth:x} bytes, {now}" if growth else f"moved, {now}"


def _keyed(before: Table, after: Table, kind: type[S], key: Callable[[S], str]) -> Iterator[Change]:
    """Changes of structures that one key identifies."""
    pairs, lost, new = _matched(before.all(kind), after.all(kind), key)
    for old, each in pairs:
        yield from _fields(key(old), old, each, ())
        if isinstance(old, ScopedStructure) and isinstance(each, ScopedStructure):
            yield from _scopes(key(old), old, each)
        elif isinstance(old, Andd) and isinstance(each, Andd):
            if old.object_name != each.object_name:
                yield Change(key(old), f"name {old.object_name} -> {each.object_name}")
        else:
            yield from _bytes(key(old), old.tail, each.tail)
    yield from _lost_and_new(lost, new, key)


def _lost_and_new(lost: list[S], new: list[S], key: Callable[[S], str]) -> Iterator[Change]:
    for each in lost:
        yield Change(key(each), "lost")
    for each in new:
        listed = ", ".join(map(str, each.scopes))
        yield Change(key(each), f"new{', with ' + listed if listed else ''}")


def _device(entry: DeviceScope) -> tuple[int, int, int, bytes]:
    return entry.type, entry.enumeration_id, entry.start_bus, entry.path_bytes


def _scopes(subject: str, before: ScopedStructure, after: ScopedStructure) -> Iterator[Change]:
    """Entries lost and gained, and those whose other bytes changed."""
    pairs, lost, new = _matched(before.scopes, after.scopes, _device)
    for old, entry in pairs:
        if old != entry:
            was, now = old.flags << 8 | old.reserved, entry.flags << 8 | entry.reserved
            yield Change(subject, f"flags of {old} 0x{was:04x} -> 0x{now:04x}")
    for entry in lost:
        yield Change(subject, f"scope lost: {entry}")
    for entry in new:
        yield Change(subject, f"scope new: {entry}")
    yield from _bytes(f"{subject}, unreadable scope", before.tail, after.tail)


def _matched(
    before: Iterable[T], after: Iterable[T], key: Callable[[T], object]
) -> tuple[list[tuple[T, T]], list[T], list[T]]:
    """Pairs with equal keys in order, then what is left of either side."""
    waiting: dict[object, list[T]] = {}
    for each in after:
        waiting.setdefault(key(each), []).append(each)
    pairs, lost = [], []
    for each in before:
        partners = waiting.get(key(each))
        if partners:
            pairs.append((each, partners.pop(0)))
        else:
            lost.append(each)
    left = {id(each) for partners in waiting.values() for each in partners}
    return pairs, lost, [each for each in after if id(each) in left]
