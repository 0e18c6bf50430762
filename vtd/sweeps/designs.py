"""Cache designs to try, as they are written on the command line.

``sets=16..256 ways=1..16 policy=lru,fifo``: a list has commas, a range of sets doubles, a range of
ways counts. Each design is one combination of an IOTLB, a paging-structure cache, a page size,
levels of tables and what invalidates.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from vtd.unit.caching.cache import OFF, Replacement, Shape

PAGE_SIZES = {"4K": 12, "2M": 21, "1G": 30}
TABLES = {"3-level": 3, "4-level": 4, "5-level": 5, "nested": 4}
"""Levels of the stage that addresses meet first; nested: 4 levels, each through 4 of the second."""
LARGEST = 1 << 20
"""Places of a cache."""
_RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)


class Invalidating(IntEnum):
    """What invalidates; the numbers are those of the kernel."""

    NONE = 0
    TRACE = 1
    STRICT = 2
    STRICT_LEAVES = 3
    DEFERRED = 4

    @property
    def text(self) -> str:
        """As it is written."""
        return self.name.lower().replace("_", "-")


INVALIDATING = {each.text: each for each in Invalidating}


class Design(NamedTuple):
    """One design."""

    iotlb: Shape
    structures: Shape
    page_size: str
    tables: str
    invalidation: Invalidating


class Pass(NamedTuple):
    """Designs that one run through a trace gives: their ways differ (LRU), or their tables."""

    iotlb: Shape
    """Without ways."""
    ways: tuple[int, ...]
    """Ascending."""
    structures: Shape
    page_size: str
    levels: int
    invalidation: Invalidating

    @property
    def key(self) -> str:
        """A name for it, for a file of what is done."""
        return (
            f"{shape_text(self.iotlb)} ways {','.join(map(str, self.ways))} "
            f"structures {shape_text(self.structures)} {self.page_size} {self.levels} levels "
            f"{self.invalidation.text}"
        )


def shape_text(shape: Shape) -> str:
    """``64x8 lru``, ``off``; ``^n`` behind the sets where their index leaves out n bits."""
    if shape.ways == 0:
        return "off"
    index = f"^{shape.index}" if shape.index else ""
    return f"{shape.sets}{index}x{shape.ways} {shape.replacement.value}"


@dataclass(frozen=True)
class Space:
    """All designs: every combination of these."""

    iotlbs: tuple[Shape, ...]
    structures: tuple[Shape, ...] = (OFF,)
    page_sizes: tuple[str, ...] = ("4K",)
    tables: tuple[str, ...] = ("4-level",)
    invalidation: tuple[Invalidating, ...] = (Invalidating.TRACE,)

    def designs(self) -> Iterator[Design]:
        """In the order in which they are written."""
        for each in itertools.product(
            self.invalidation, self.tables, self.page_sizes, self.structures, self.iotlbs
        ):
            invalidation, tables, page_size, structures, iotlb = each
            yield Design(iotlb, structures, page_size, tables, invalidation)

    def passes(self) -> list[Pass]:
        """The fewest runs through the trace that give all designs."""
        found: dict[Pass, set[int]] = {}
        for design in self.designs():
            found.setdefault(pass_of(design), set()).add(design.iotlb.ways or 0)
        return [key._replace(ways=tuple(sorted(ways))) for key, ways in found.items()]


def pass_of(design: Design) -> Pass:
    """The pass that a design belongs to, without its ways, which under LRU have others beside."""
    shape = design.iotlb
    one = shape if shape.replacement is not Replacement.LRU else replace(shape, ways=1)
    levels = TABLES[design.tables]
    return Pass(one, (), design.structures, design.page_size, levels, design.invalidation)


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """The shapes of ``sets=1..64 ways=1..16 policy=lru``, or of ``off``; ValueError says why not.

    ``index`` leaves that many low bits of the page number, or table number, out of the set's.
    """
    if text.strip() == "off":
        return (OFF,)
    told: dict[str, str] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in ("sets", "ways", "policy", "index"):
            raise ValueError(f"{word!r}: not one of sets=, ways=, policy=, index=")
        told[name] = value
    if "ways" not in told:
        raise ValueError(f"{text!r}: ways= is missing")
    policies = [_replacement(each) for each in told.get("policy", "lru").split(",")]
    shapes = tuple(
        Shape(ways, sets, policy, index=index)
        for policy in policies
        for index in _numbers("index", told.get("index", "0"), 40, least=0)
        for sets in _numbers("sets", told.get("sets", "1"), LARGEST, doubling=True)
        for ways in _numbers("ways", told["ways"], LARGEST)
    )
    for shape in shapes:
        if shape.sets * (shape.ways or 0) > LARGEST:
            raise ValueError(f"{shape_text(shape)}: more than {LARGEST} entries")
    return shapes


def _replacement(text: str) -> Replacement:
    try:
        return Replacement(text)
    except ValueError as error:
        known = ", ".join(each.value for each in Replacement)
        raise ValueError(f"policy={text}: not one of {known}") from error


def _numbers(
    name: str, text: str, most: int, *, least: int = 1, doubling: bool = False
) -> list[int]:
    """The numbers of a list with ranges, each once."""
    found: list[int] = []
    for part in text.split(","):
        ends = _RANGE.fullmatch(part)
        first, last = (ends[1], ends[2]) if ends else (part, part)
        if not first.isascii() or not first.isdecimal():
            raise ValueError(f"{name}={text}: not a number, or a range such as 1..16")
        low, high = int(first), int(last)
        if not least <= low <= high <= most:
            raise ValueError(f"{name}={text}: not in {least}..{most}, the lower one first")
        while low <= high:
            found.append(low)
            low = low * 2 if doubling else low + 1
    return list(dict.fromkeys(found))


def chosen(name: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """The words of a list, each among those that are known; ValueError."""
    words = tuple(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in known:
            raise ValueError(f"{name}: {word!r} is none of {', '.join(known)}")
    return words
