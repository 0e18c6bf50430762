"""Translations of a logical processor, found by region identifier (SDM volume 2, 4.1).

There is no second translation under VT-i: what is in here leads to machine addresses, and the
monitor put it there. Translations of all virtual processors of a logical one are in here at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vtd.guest.itanium.registers import TranslationEntry


class Translation(NamedTuple):
    """One translation register or cached translation."""

    rid: int
    start: int
    """Offset in the region, without the region number of the address."""
    size: int
    entry: TranslationEntry
    key: int

    def output(self, offset: int) -> int:
        """The address that an offset in the region leads to."""
        return self.entry.ppn & -self.size | offset & self.size - 1

    def overlaps(self, rid: int, start: int, size: int) -> bool:
        """Whether it is of the region and shares an address with the range."""
        return self.rid == rid and self.start < start + size and start < self.start + self.size


REGION_OFFSET = (1 << 61) - 1
PAGE_SIZES = frozenset({12, 13, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32})
"""Page sizes that can be inserted, as powers of two."""


class Translations:
    """A set of translations in which no two overlap."""

    def __init__(self) -> None:
        self._all: list[Translation] = []

    def __iter__(self) -> Iterator[Translation]:
        return iter(self._all)

    def insert(self, rid: int, address: int, shift: int, entry: int, key: int = 0) -> None:
        """Insert a translation; those that overlap go."""
        start, size = address & REGION_OFFSET & -(1 << shift), 1 << shift
        self.purge(rid, address, shift)
        self._all.append(Translation(rid, start, size, TranslationEntry(entry), key))

    def purge(self, rid: int, address: int, shift: int) -> None:
        """Remove what overlaps a range."""
        start, size = address & REGION_OFFSET & -(1 << shift), 1 << shift
        self._all = [each for each in self._all if not each.overlaps(rid, start, size)]

    def purge_regions(self, rids: range) -> None:
        """Remove what is of these regions."""
        self._all = [each for each in self._all if each.rid not in rids]

    def find(self, rid: int, address: int) -> Translation | None:
        """The translation of an address."""
        offset = address & REGION_OFFSET
        return next((each for each in self._all if each.overlaps(rid, offset, 1)), None)
