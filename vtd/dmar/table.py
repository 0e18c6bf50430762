"""A whole DMAR table: bytes to records and back, identical for whatever can be read.

Models the walk of VT-d 8.1 and 8.2. Every step is bounded: a structure that can't be cut out of
the table ends the walk and stays, with all that follows, in :attr:`Table.rest`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

from vtd.dmar.records import (
    FIXED_PART,
    STRUCTURE_HEADER,
    DeviceScope,
    Drhd,
    Header,
    Place,
    ScopedStructure,
    Structure,
    unpack_structure,
)

S = TypeVar("S", bound=Structure)


class TableError(ValueError):
    """The bytes or the description given are no DMAR table; the message says where."""


@dataclass(frozen=True)
class Table:
    """A decoded table. :meth:`pack` gives back exactly the bytes that were parsed."""

    header: Header
    structures: tuple[Structure, ...] = ()
    rest: bytes = b""
    """Bytes inside Length from the first structure that can't be cut out."""
    trailing: bytes = b""
    """Bytes after Length, as in a page-sized dump."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The table in ``data``; TableError if there are less than the 48 fixed bytes."""
        if len(data) < FIXED_PART:
            raise TableError(f"{len(data)} bytes given, a DMAR table has at least {FIXED_PART}")
        header = Header.unpack(data[:FIXED_PART])
        end = max(FIXED_PART, min(header.table_length, len(data)))
        position = FIXED_PART
        structures = []
        while position + STRUCTURE_HEADER <= end:
            length = int.from_bytes(data[position + 2 : position + 4], "little")
            if not STRUCTURE_HEADER <= length <= end - position:
                break
            structures.append(unpack_structure(data[position : position + length], position))
            position += length
        return cls(header, tuple(structures), data[position:end], data[end:])

    def pack(self) -> bytes:
        """The bytes of the table, Length and Checksum as the header has them."""
        body = b"".join(structure.pack() for structure in self.structures)
        return self.header.pack_fields() + body + self.rest + self.trailing

    def sealed(self) -> Table:
        """The table with Length and Checksum made right and all offsets counted anew.

        TableError if a structure has become longer than its Length field can say.
        """
        for number, each in enumerate(self.structures):
            if each.length > 0xFFFF:
                raise TableError(f"structure {number}: {each.length} bytes are too many for Length")
        length = FIXED_PART + sum(each.length for each in self.structures) + len(self.rest)
        header = replace(self.header, table_length=length, checksum=0)
        unsummed = replace(self, header=header)
        checksum = -sum(unsummed.pack()[:length]) & 0xFF
        return Table.parse(replace(self, header=replace(header, checksum=checksum)).pack())

    @property
    def size(self) -> int:
        """Bytes given, which may be more or less than Length."""
        return self.rest_place.offset + len(self.rest) + len(self.trailing)

    @cached_property
    def rest_place(self) -> Place:
        """Where the bytes lie that the walk could not cut into structures."""
        return Place(FIXED_PART + sum(each.length for each in self.structures), len(self.rest))

    @property
    def truncated(self) -> bool:
        """Whether Length promises more bytes than there are."""
        return self.header.table_length > self.size

    @cached_property
    def byte_sum(self) -> int:
        """Sum of the bytes inside Length, modulo 256; 0 for a right checksum."""
        return sum(self.pack()[: self.header.table_length]) & 0xFF

    def _repr_svg_(self) -> str:
        """In a notebook: bytes and fields side by side, with what the rules find."""
        from vtd.dmar.rules import check  # noqa: PLC0415 - only notebooks need it
        from vtd.dmar.table_picture import table_svg  # noqa: PLC0415

        return table_svg(self, check(self), f"DMAR table of {self.size} bytes")

    def all(self, kind: type[S]) -> tuple[S, ...]:
        """The structures of one kind, in table order."""
        found = self._by_kind.get(kind)
        if found is None:
            found = tuple(each for each in self.structures if isinstance(each, kind))
            self._by_kind[kind] = found
        return found

    @cached_property
    def _by_kind(self) -> dict[type[Structure], tuple[Any, ...]]:
        """What was asked for, since nearly every rule asks."""
        return {}

    @cached_property
    def units(self) -> tuple[Drhd, ...]:
        """The remapping units, in table order."""
        return self.all(Drhd)

    @cached_property
    def scoped(self) -> tuple[ScopedStructure, ...]:
        """The structures that have a device scope."""
        return self.all(ScopedStructure)

    @cached_property
    def entries(self) -> tuple[tuple[ScopedStructure, DeviceScope], ...]:
        """Every device scope entry with the structure it is in."""
        return tuple((each, entry) for each in self.scoped for entry in each.scopes)

    def segment_units(self, segment: int) -> tuple[Drhd, ...]:
        """The remapping units of one PCI segment."""
        return tuple(unit for unit in self.units if unit.segment == segment)
