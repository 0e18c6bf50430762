"""What somebody pasted or dropped: bytes, recognised as one of the things that commands read.

Nothing is told by its name. What is most particular is tried first: a table has its signature, a
listing has functions, a log may say anything.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from enum import StrEnum

from vtd.dmar.description import build
from vtd.dmar.inputs import Found, find_tables
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.memory_map import parse_memory_map
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.ranges import RangeSet
from vtd.dmar.records import FIXED_PART
from vtd.dmar.rules.header import SIGNATURES
from vtd.inspection.capability_rows import listed_pairs
from vtd.inspection.register_listings import ListedUnit, listed_units
from vtd.logs.log import Log, read_log
from vtd.logs.reading import lines_of

LARGEST = 64 << 20
"""Bytes of one input; a page has less memory than a command."""
_SEPARATORS = re.compile(r"[\s,:=;]+")
_VALUE = re.compile(r"(?:0x)?[0-9a-f_]{1,19}", re.ASCII)
_SHORTEST_CAP = 6
"""Digits; no CAP_REG has fewer, and few numbers in a text that is none have as many."""


class Kind(StrEnum):
    """What an input may be."""

    TABLE = "DMAR table"
    VALUES = "capability registers"
    LISTING = "PCI listing"
    LOG = "log"
    MEMORY_MAP = "memory map"


class UnknownInputError(ValueError):
    """An input that is none of the kinds; the message says what was looked for."""


@dataclass(frozen=True)
class Given:
    """One input, and what is in it: the field of its kind, and the units that a log names."""

    name: str
    kind: Kind
    tables: tuple[Found, ...] = ()
    tree: PciTree | None = None
    log: Log | None = None
    units: tuple[ListedUnit, ...] = ()
    reserved_memory: RangeSet | None = None


def recognised(name: str, data: bytes) -> Given:
    """The input as what it is; UnknownInputError if it is nothing that can be answered."""
    if not data.strip():
        raise UnknownInputError(f"{name}: empty")
    if len(data) > LARGEST:
        raise UnknownInputError(f"{name}: more than {LARGEST >> 20} MiB")
    for read in (_table, _values, _listing, _log, _memory_map, _other_table):
        try:
            found = read(name, data)
        except ValueError:
            continue
        if found is not None:
            return found
    raise UnknownInputError(
        f"{name}: neither a DMAR table, nor CAP and ECAP values, lspci output, a memory map or a "
        "log that speaks of DMA remapping"
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _table(name: str, data: bytes) -> Given | None:
    if b"[[structure]]" in data:
        return Given(name, Kind.TABLE, tables=(Found(build(_text(data)).pack()),))
    tables = tuple(find_tables(data))
    known = 0 in data[:FIXED_PART] or tables[0].data[:4] in SIGNATURES
    return Given(name, Kind.TABLE, tables=tables) if known else None


def _other_table(name: str, data: bytes) -> Given | None:
    """A dump of what has another signature, which is a finding."""
    tables = tuple(find_tables(data))
    return Given(name, Kind.TABLE, tables=tables) if len(tables[0].data) >= FIXED_PART else None


def _values(name: str, data: bytes) -> Given | None:
    """Pairs of numbers, with or without names before them."""
    if len(data) > 1 << 16:
        return None
    words = [each for each in _SEPARATORS.split(_text(data).lower()) if each]
    values = [each for each in words if each.removesuffix("_reg") not in ("cap", "ecap")]
    caps = values[::2]
    if not all(map(_VALUE.fullmatch, values)) or min(map(len, caps), default=0) < _SHORTEST_CAP:
        return None
    return Given(name, Kind.VALUES, units=tuple(listed_pairs(values)))


def _listing(name: str, data: bytes) -> Given:
    return Given(name, Kind.LISTING, tree=parse_pci_tree(_text(data)))


def _log(name: str, data: bytes) -> Given | None:
    log = read_log(lines_of(io.BytesIO(data)))
    units = tuple(listed_units(_text(data)))
    if not (log.faults or log.messages or units):
        return None
    return Given(name, Kind.LOG, log=log, units=units)


def _memory_map(name: str, data: bytes) -> Given:
    return Given(name, Kind.MEMORY_MAP, reserved_memory=parse_memory_map(_text(data)))
