"""Rules S: how structures follow each other, and their reserved fields (VT-d 8.2 to 8.9)."""

from __future__ import annotations

from vtd.dmar.records import (
    STRUCTURE_HEADER,
    STRUCTURES,
    Andd,
    Atsr,
    Drhd,
    Place,
    Rhsa,
    Rmrr,
    Satc,
    Sidp,
    Structure,
    Undecoded,
)
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING


def _rest_length(table: Table) -> int | None:
    """The Length field of the structure that ended the walk, None if there is no whole header."""
    rest = table.rest
    return int.from_bytes(rest[2:4], "little") if len(rest) >= STRUCTURE_HEADER else None


@rule(
    "DMAR-S01",
    ERROR,
    "no 1 to 3 stray bytes follow the last structure",
    "8.2",
    fwts="reads past the table and can hang",
)
def stray_bytes(table: Table) -> Hits:
    """Fewer bytes than a structure header can't be a structure; Length or one before is wrong."""
    if table.rest and _rest_length(table) is None and not table.truncated:
        yield table.rest_place, f"stray bytes after the last structure: {len(table.rest)}"


@rule(
    "DMAR-S02",
    ERROR,
    "the Length of a structure is not 0",
    "8.2",
    linux="stops its first walk silently; a later walk for ANDDs has no such test",
    xen='"Invalid ACPI DMAR entry length"',
    fwts="loops forever",
    iasl='"Invalid zero length subtable"',
    freebsd='"corrupted DMAR table"',
    acrn="assertion",
)
def zero_length(table: Table) -> Hits:
    """The next structure can't be found; a walk without this test never ends."""
    if _rest_length(table) == 0:
        yield Place(table.rest_place.offset, STRUCTURE_HEADER), "structure length is 0"


@rule(
    "DMAR-S03",
    ERROR,
    "the Length of a structure is at least 4",
    "8.2",
    xen='"Invalid ACPI DMAR entry length"',
    acrn="assertion",
)
def length_below_header(table: Table) -> Hits:
    """Length counts the header of 4 bytes, so a smaller one overlaps the next structure."""
    length = _rest_length(table)
    if length is not None and 0 < length < STRUCTURE_HEADER:
        yield Place(table.rest_place.offset, STRUCTURE_HEADER), f"structure length is {length}"


@rule(
    "DMAR-S04",
    ERROR,
    "every structure ends inside the table",
    "8.2",
    linux='"Record passes table end", remapping stays off',
)
def structure_overruns(table: Table) -> Hits:
    """A structure past the end was cut, or its Length overwritten; nothing after it is readable."""
    length = _rest_length(table)
    if length is None or length < STRUCTURE_HEADER:
        return
    if table.rest_place.offset + length > table.header.table_length:
        message = f"structure of {length} bytes runs past the end of the table"
        yield table.rest_place, message


@rule(
    "DMAR-S05",
    ERROR,
    "the Length of a structure covers the fixed part of its type",
    "8.3 to 8.9",
    linux="no test: reads the fields from the bytes that follow",
    xen="refuses the table, a test for each type",
    iasl="no test",
)
def structure_too_short(table: Table) -> Hits:
    """Fields of the structure would lie in the next one."""
    for each in table.all(Undecoded):
        kind = STRUCTURES.get(each.number)
        if kind:
            message = f"{kind.NAME} of {each.length} bytes, {kind.fixed_length()} are fixed"
            yield each.place(), message


@rule("DMAR-S06", ERROR, "an RHSA has 20 bytes", "8.6")
def rhsa_length(table: Table) -> Hits:
    """An RHSA has no variable part."""
    for each in table.all(Rhsa):
        if each.tail:
            yield each.place(), f"RHSA of {each.length} bytes instead of {each.fixed_length()}"


@rule(
    "DMAR-S07",
    INFO,
    "the type of a structure is at most 6",
    "8.2",
    linux="skips the structure",
    xen="skips the structure",
    iasl="stops decoding there",
)
def reserved_type(table: Table) -> Hits:
    """Types above 6 are reserved; software skips them by their Length."""
    for each in table.all(Undecoded):
        if each.number not in STRUCTURES:
            yield each.place(), f"reserved structure type {each.number}"


@rule("DMAR-S08", WARNING, "structures are in ascending order of their types", "8.2")
def type_order(table: Table) -> Hits:
    """The specification says "must", but no known software depends on the order."""
    highest = 0
    for each in table.structures:
        if each.type < highest:
            yield each.place(), f"{each.name} after a structure of type {highest}"
        highest = max(highest, each.type)


@rule(
    "DMAR-S09",
    WARNING,
    "reserved fields and bits of structures are 0",
    "8.1 note 1",
    linux="takes the whole Size byte as a shift count, so reserved bits there break the mapping",
)
def reserved_fields(table: Table) -> Hits:
    """A later revision may give these bits a meaning that this firmware did not intend."""
    for each in table.structures:
        names = [name for name, value in _reserved_values(each).items() if value]
        if names:
            yield each.place(), f"reserved bits set in {each.name}: {', '.join(names)}"


def _reserved_values(structure: Structure) -> dict[str, int]:
    """What is found in the reserved fields and bits, by field name."""
    match structure:
        case Drhd():
            return {
                "flags": structure.flags & structure.flags.RESERVED,
                "size": structure.size & structure.size.RESERVED,
            }
        case Atsr() | Satc():
            flags = structure.flags & structure.flags.RESERVED
            return {"flags": flags, "reserved": structure.reserved}
        case Rmrr() | Rhsa() | Andd() | Sidp():
            return {"reserved": structure.reserved}
    return {}


@rule(
    "DMAR-S10",
    WARNING,
    "no structure is there twice",
    linux="drops the second of two equal DRHD, ATSR or SATC silently",
)
def repeated_structure(table: Table) -> Hits:
    """Two structures equal in every byte say nothing more than one."""
    first: dict[Structure, int] = {}
    for each in table.structures:
        start = first.setdefault(each, each.offset)
        if start != each.offset:
            yield each.place(), f"{each.name} repeats the structure at offset 0x{start:03x}"


@rule("DMAR-S11", INFO, "structures start at a multiple of 4")
def alignment(table: Table) -> Hits:
    """Nothing demands it, but software that reads fields in place may be slow or trap."""
    for each in table.structures:
        if each.offset % 4:
            yield each.place(), f"{each.name} is not 4-byte aligned"
