"""Changes to a table that leave Length and Checksum right: regions, devices, flags, identity.

Every function returns a new, sealed table. Structures stay in ascending order of their types
(VT-d 8.2). What the edit does not concern keeps its bytes, reserved ones included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from devices.source_id import Bdf, SourceIdError
from vtd.dmar.description import scope_entry
from vtd.dmar.records import (
    FIXED_PART,
    Atsr,
    DeviceScope,
    Drhd,
    Header,
    HeaderFlags,
    Rmrr,
    Satc,
    Structure,
)
from vtd.dmar.table import Table
from vtd.numbers import parse_hexadecimal


class EditError(ValueError):
    """An edit that does not apply to the table; the message says why."""


def require_whole(table: Table) -> None:
    """EditError if Length says more than there is, or less than the fixed part.

    What a new Length is computed from would not be the table that firmware wrote.
    """
    length, size = table.header.table_length, table.size
    if not FIXED_PART <= length <= size:
        raise EditError(f"the table is not whole: Length is {length}, there are {size} bytes")


def parse_device(text: str) -> tuple[int, DeviceScope]:
    """Segment and endpoint entry of ``[SEGMENT:]BUS:DEVICE.FUNCTION[/DEVICE.FUNCTION...]``."""
    first, *hops = text.split("/")
    try:
        bdf = Bdf.parse(first)
    except SourceIdError as error:
        raise EditError(str(error)) from error
    source_id = bdf.source_id
    path = [f"{source_id.device:x}.{source_id.function:x}", *hops]
    values = {"type": "pci_endpoint", "start_bus": source_id.bus, "path": path}
    return bdf.segment, scope_entry(values, f"device {text}")


def identify(
    table: Table,
    oem_id: str | None = None,
    oem_table_id: str | None = None,
    oem_revision: int | None = None,
) -> Table:
    """The table with another OEM ID, OEM Table ID or OEM Revision; None keeps what there is.

    Systems that take a table from a file prefer the one with the higher OEM Revision.
    """
    values: dict[str, Any] = {}
    for name, text in (("oem_id", oem_id), ("oem_table_id", oem_table_id)):
        if text is None:
            continue
        length = Header.field_places()[name].length
        if not text.isascii() or not text.isprintable() or len(text) > length:
            raise EditError(f"{name} {text!r} is not ASCII of up to {length} characters")
        values[name] = text.encode().ljust(length)
    if oem_revision is not None:
        if not 0 <= oem_revision < 1 << 32:
            raise EditError(f"OEM revision {oem_revision} does not fit 32 bits")
        values["oem_revision"] = oem_revision
    return replace(table, header=replace(table.header, **values)).sealed()


def drop_all_rmrrs(table: Table) -> Table:
    """The table without any region."""
    kept = tuple(each for each in table.structures if not isinstance(each, Rmrr))
    return replace(table, structures=kept).sealed()


def move_rmrr(table: Table, base: int, new_base: int, new_limit: int) -> Table:
    """The table with the region that starts at ``base`` put to other bounds."""
    _whole_pages(new_base, new_limit)
    found = [each for each in table.all(Rmrr) if each.base == base]
    if not found:
        raise EditError(f"no RMRR has base 0x{base:x}")
    changed = tuple(
        replace(each, base=new_base, limit=new_limit) if each is found[0] else each
        for each in table.structures
    )
    return replace(table, structures=changed).sealed()


def drop_rmrr(table: Table, base: int) -> Table:
    """The table without the regions that start at ``base``."""
    kept = tuple(
        each for each in table.structures if not (isinstance(each, Rmrr) and each.base == base)
    )
    if len(kept) == len(table.structures):
        raise EditError(f"no RMRR has base 0x{base:x}")
    return replace(table, structures=kept).sealed()


def add_rmrr(table: Table, base: int, limit: int, devices: list[str]) -> Table:
    """The table with one more region, ``limit`` being its last byte."""
    _whole_pages(base, limit)
    if not devices:
        raise EditError("an RMRR needs at least one device")
    parsed = [parse_device(device) for device in devices]
    segments = {segment for segment, _ in parsed}
    if len(segments) > 1:
        raise EditError("the devices of an RMRR have to be of one segment")
    scopes = tuple(entry for _, entry in parsed)
    region = Rmrr(segment=segments.pop(), base=base, limit=limit, scopes=scopes)
    return inserted(table, region).sealed()


def _whole_pages(base: int, limit: int) -> None:
    if not 0 <= base < limit < 1 << 64 or base % 0x1000 or (limit + 1) % 0x1000:
        raise EditError(f"0x{base:x}-0x{limit:x} is no range of whole 4 KiB pages")


def inserted(table: Table, structure: Structure) -> Table:
    """The table with a structure after the last one of its type or a lower one."""
    position = 0
    for number, each in enumerate(table.structures, 1):
        if each.type <= structure.type:
            position = number
    before, after = table.structures[:position], table.structures[position:]
    return replace(table, structures=(*before, structure, *after))


def move_device(table: Table, device: str, register_base: int) -> Table:
    """The table with a device listed by the unit at ``register_base`` and by no other.

    An INCLUDE_PCI_ALL unit lists no PCI device, so moving there drops the entry.
    """
    segment, wanted = parse_device(device)
    targets = [unit for unit in table.segment_units(segment) if unit.register_base == register_base]
    if not targets:
        raise EditError(f"segment {segment} has no unit with base 0x{register_base:x}")
    target = targets[0]
    found = [
        entry
        for unit in table.segment_units(segment)
        for entry in unit.scopes
        if _same_device(entry, wanted)
    ]
    moved = found[0] if found else wanted

    def changed(each: Structure) -> Structure:
        if not isinstance(each, Drhd) or each.segment != segment:
            return each
        scopes = tuple(entry for entry in each.scopes if not _same_device(entry, wanted))
        if each is target and not target.flags.include_pci_all:
            scopes = (*scopes, moved)
        return replace(each, scopes=scopes)

    return replace(table, structures=tuple(map(changed, table.structures))).sealed()


def _same_device(entry: DeviceScope, wanted: DeviceScope) -> bool:
    return entry.is_pci and entry.location == wanted.location


def set_flag(table: Table, name: str, value: bool) -> Table:
    """The table with a flag set or cleared.

    ``name`` is a flag of the table such as ``dma_ctrl_platform_opt_in``, or a flag of structures
    such as ``include_pci_all@0xfed90000``, by the register base or the offset in the table, both
    hexadecimal.
    """
    flag, _, where = name.partition("@")
    if not where:
        if flag not in HeaderFlags.FIELDS:
            raise EditError(f"{flag!r} is none of {', '.join(HeaderFlags.FIELDS)}")
        flags = table.header.flags.replace(**{flag: value})
        return replace(table, header=replace(table.header, flags=flags)).sealed()
    try:
        number = parse_hexadecimal(where)
    except ValueError as error:
        raise EditError(f"{where!r} is neither a register base nor an offset") from error
    if not any(_has_flag(each, number, flag) for each in table.structures):
        raise EditError(f"no structure with a flag {flag!r} at {where}")
    changed = tuple(_with_flag(each, number, flag, value) for each in table.structures)
    return replace(table, structures=changed).sealed()


def _has_flag(structure: Structure, number: int, flag: str) -> bool:
    """Whether the structure lies or has its registers at ``number``, and has the flag."""
    if not isinstance(structure, Drhd | Atsr | Satc) or flag not in structure.flags.FIELDS:
        return False
    return structure.offset == number or getattr(structure, "register_base", None) == number


def _with_flag(structure: Structure, number: int, flag: str, value: bool) -> Structure:
    if not _has_flag(structure, number, flag):
        return structure
    values: dict[str, Any] = {"flags": vars(structure)["flags"].replace(**{flag: value})}
    return replace(structure, **values)
