"""The oracle: translation written for reading, slow and recursive, to compare the walk with.

VT-d 3.6 to 3.8 and 9.7, 9.8 by bit numbers. It shares no code with ``pagetables.walk``, and works
on quadwords in a dict, in which it sets the accessed and dirty flags that the unit has to set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass
class Words:
    """Memory: quadwords by address, in frames that exist; other quadwords of those are 0."""

    frames: frozenset[int]
    words: dict[int, int] = field(default_factory=dict)
    read_only: frozenset[int] = frozenset()

    def read(self, address: int) -> int | None:
        """The quadword, or None where there is no memory."""
        return self.words.get(address, 0) if address // 4096 in self.frames else None


@dataclass(frozen=True)
class Tables:
    """One stage: where its tables are and what the unit makes of them."""

    kind: str
    """``"first"`` or ``"second"``."""
    levels: int
    root: int
    """Address of the top table."""
    haw: int
    features: frozenset[str]
    flags: bool = False
    """Whether A and D are set."""
    extended: bool = False
    """Whether EA is set along with A."""
    snooped: bool = True


@dataclass(frozen=True)
class Mapped:
    """A translation that exists; the request's rights are another question."""

    physical: int
    size: int
    read: bool
    write: bool
    user: bool
    entry_at: int
    """Physical address of the leaf entry."""
    listed_at: int
    """The same as the tables have it: a guest physical address under nesting."""
    guest: int | None = field(default=None, compare=False)
    """The guest physical address in between, under nesting."""


@dataclass(frozen=True)
class Failed:
    """The rule that ends the translation, in which stage, at which level counted from 1."""

    rule: str
    kind: str
    level: int


@dataclass(frozen=True)
class Nesting:
    """The second stage under a first stage."""

    second: Tables
    width: int
    """Guest physical address bits."""


class _Stop(Exception):  # noqa: N818 - how a translation ends, not an error
    def __init__(self, rule: str, kind: str, level: int) -> None:
        super().__init__(rule)
        self.failed = Failed(rule, kind, level)


def translate(
    words: Words, tables: Tables, address: int, nesting: Nesting | None = None
) -> Mapped | Failed:
    """Translate an input address; with ``nesting`` through both stages."""
    try:
        outer = _walk(words, tables, nesting, address)
        if nesting is None:
            return outer
        if outer.physical >= 2**nesting.width:
            raise _Stop("TABLE_BEYOND_WIDTH", "first", _level_of(outer.size))
        inner = _walk(words, nesting.second, None, outer.physical)
    except _Stop as stop:
        return stop.failed
    return replace(
        outer,
        physical=inner.physical,
        size=min(outer.size, inner.size),
        read=inner.read,
        write=outer.write and inner.write,
        guest=outer.physical,
    )


def set_dirty(
    words: Words, tables: Tables, address: int, nesting: Nesting | None = None
) -> Failed | None:
    """Set D in the entry that maps ``address``, as a write that has been permitted does."""
    try:
        outer = _walk(words, tables, nesting, address)
        _set_flags(words, tables, nesting, _level_of(outer.size), outer.listed_at, _dirty(tables))
    except _Stop as stop:
        return stop.failed
    return None if nesting is None else set_dirty(words, nesting.second, outer.physical)


def _walk(words: Words, tables: Tables, nesting: Nesting | None, address: int) -> Mapped:
    everything = (True, True, True)
    return _descend(words, tables, nesting, tables.levels, tables.root, address, everything)


def _descend(
    words: Words,
    tables: Tables,
    nesting: Nesting | None,
    level: int,
    table: int,
    address: int,
    granted: tuple[bool, bool, bool],
) -> Mapped:
    """Read the entry of one level and, if it points to a table, go on there."""
    size = 4096 * 512 ** (level - 1)
    where = table + 8 * (address // size % 512)
    found = _locate(words, tables, nesting, level, where)
    word = words.read(found)
    if word is None:
        raise _Stop("READ_ERROR", tables.kind, level)
    one = _rights(tables, word)
    granted = (granted[0] and one[0], granted[1] and one[1], granted[2] and one[2])
    if not granted[0] and (tables.kind == "first" or not granted[1]):
        raise _Stop("NOT_PRESENT", tables.kind, level)
    page = level == 1 or (level < 4 and _bit(word, 7))
    if any(_bit(word, number) for number in reserved_bits(tables, level, page)):
        raise _Stop("RESERVED", tables.kind, level)
    _set_flags(words, tables, nesting, level, where, _accessed(tables))
    target = word % 2**52
    if not page:
        return _descend(words, tables, nesting, level - 1, target // 4096 * 4096, address, granted)
    return Mapped(target // size * size + address % size, size, *granted, found, where)


def reserved_bits(tables: Tables, level: int, page: bool) -> set[int]:
    """Numbers of the bits that have to be 0 in a present entry."""
    numbers = set(range(tables.haw, 52))
    if page:
        first_free = 13 if tables.kind == "first" else 12
        numbers |= set(range(first_free, 12 + 9 * (level - 1)))
        support = {
            ("first", 3): "fs1gp",
            ("second", 3): "sslps_1g",
            ("second", 2): "sslps_2m",
        }.get((tables.kind, level))
        if support is not None and support not in tables.features:
            numbers.add(7)
    elif level >= 4:
        numbers.add(7)
    if tables.kind == "second":
        if not (page and "sc" in tables.features):
            numbers.add(11)
        if "ssirwe" not in tables.features:
            numbers.add(62)
    return numbers


def _locate(words: Words, tables: Tables, nesting: Nesting | None, level: int, where: int) -> int:
    """The physical address of the entry at ``where``, for reading it."""
    if nesting is None:
        return where
    if where >= 2**nesting.width:
        raise _Stop("TABLE_BEYOND_WIDTH", tables.kind, level)
    found = _walk(words, nesting.second, None, where)
    if not found.read or (nesting.second.flags and not found.write):
        raise _Stop("TABLE_NOT_READABLE", tables.kind, level)
    return found.physical


def _set_flags(
    words: Words, tables: Tables, nesting: Nesting | None, level: int, where: int, flags: int
) -> None:
    """Set flags in the entry at ``where``, a guest physical address under ``nesting``."""
    if nesting is None:
        _store(words, tables, level, where, flags)
        return
    found = _walk(words, nesting.second, None, where)
    if words.words.get(found.physical, 0) & flags == flags:
        return
    if not tables.snooped:
        raise _Stop("NOT_SNOOPED", tables.kind, level)
    if not found.write:
        raise _Stop("TABLE_NOT_WRITABLE", tables.kind, level)
    second = nesting.second
    _store(words, second, _level_of(found.size), found.entry_at, _dirty(second))
    _store(words, tables, level, found.physical, flags)


def _store(words: Words, tables: Tables, level: int, where: int, flags: int) -> None:
    word = words.words.get(where, 0)
    if word & flags == flags:
        return
    if not tables.snooped:
        raise _Stop("NOT_SNOOPED", tables.kind, level)
    if where // 4096 in words.read_only:
        raise _Stop("UPDATE_ERROR", tables.kind, level)
    words.words[where] = word | flags


def _rights(tables: Tables, word: int) -> tuple[bool, bool, bool]:
    """Read, write and user access of one entry."""
    if tables.kind == "first":
        return _bit(word, 0), _bit(word, 1), _bit(word, 2)
    if "ssirwe" in tables.features:
        return _bit(word, 61), _bit(word, 62), True
    return _bit(word, 0), _bit(word, 1), True


def _accessed(tables: Tables) -> int:
    if not tables.flags:
        return 0
    if tables.kind == "second":
        return 2**8
    return 2**5 + (2**10 if tables.extended else 0)


def _dirty(tables: Tables) -> int:
    if not tables.flags:
        return 0
    return 2**9 if tables.kind == "second" else 2**6


def _bit(word: int, number: int) -> bool:
    return word >> number & 1 == 1


def _level_of(size: int) -> int:
    return {2**12: 1, 2**21: 2, 2**30: 3}[size]
