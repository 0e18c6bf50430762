"""Capability registers of units from lines that name them, or from reads of their memory.

Reads what firmware, FreeBSD, chipsec, sysfs and people print, a register to a line or several, and
what memory tools print: ``devmem2``, the UEFI shell's ``mm`` and ``dmem``, U-Boot's ``md``. Numbers
are hexadecimal, with or without 0x.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vtd.dmar.hex_dump import dump_lines
from vtd.layouts.registers import Capability

_NAMED = re.compile(
    r"(?:^|[^a-z0-9])(?P<name>(?:extended |e)?cap(?:abilit(?:y|ies))?|ver(?:sion)?)"
    r"(?:[_ ]reg(?:ister)?)?(?![a-z])[^0-9a-z]{1,12}"
    r"(?:0x)?(?P<value>[0-9a-f]{1,16})(?![0-9a-z])(?:[:.](?P<minor>\d+))?",
    re.IGNORECASE | re.ASCII,
)
_UNIT = re.compile(r"\bdmar\d+\b", re.ASCII)
_BASE = re.compile(
    r"(?:address:|regs@|base(?: address)?\s*[:=]\s*|DRHD )(?:0x)?([0-9a-f]{8,16})\b",
    re.IGNORECASE | re.ASCII,
)
_READ = re.compile(
    r"\b(?:0x)?([0-9a-f]{6,16})(?:\s*\(0x[0-9a-f]+\))?\s*[:=]\s*0x([0-9a-f]{1,16})\s*$",
    re.IGNORECASE | re.ASCII,
)
"""Address and value of one read, of 4 or of 8 bytes."""
_PAIRS = re.compile(r"(?:\s*(?:0x)?[0-9a-f]{5,16}){2,}\s*", re.IGNORECASE | re.ASCII)
_FILE = re.compile(
    r"(/intel-iommu/(?:address|cap|ecap|version))(?: <==)?[ \t]*\n[\s>|]*([0-9a-f:]+)(?=\s|$)"
)
"""A file of sysfs by its name, and what is in it on the next line."""
_PROMPT = re.compile(r"\bdevmem2?[ \t]+(?:0x)?([0-9a-f]{6,16})\b.*\n(?=[ \t>|]*0x)", re.IGNORECASE)
"""A read that busybox's ``devmem`` answers with the value alone."""
_UNDERSCORE = re.compile(r"(?<=[0-9a-f]{8})_(?=[0-9a-f]{8}\b)", re.IGNORECASE)
"""Between the halves of a number."""
PAGE = 0x1000
LEAST_CAP, LEAST_ECAP = 1 << 24, 1 << 8
"""Registers are larger: the places of fault records and of IOTLB registers are in them."""


class NamedRegisters(NamedTuple):
    """What a text says of one unit; None for what it does not."""

    name: str
    base: int | None
    version: int | None
    cap: int
    ecap: int


def named_registers(text: str) -> list[NamedRegisters]:
    """The units whose registers are named; else those whose memory is shown, or bare pairs."""
    text = _UNDERSCORE.sub("", _PROMPT.sub(r"\1: ", text))
    return [*_named(_FILE.sub(r"\1:\2", text))] or [*_shown(text)] or [*_pairs(text)]


class _Unit:
    """Registers by name as the lines give them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, int] = {}


def _named(text: str) -> Iterator[NamedRegisters]:
    units = [_Unit("unit")]
    for line in text.splitlines():
        if found := _UNIT.search(line):
            named = [each for each in units if each.name == found[0]]
            units.append(named[0] if named else _Unit(found[0]))
        if match := _BASE.search(line):
            units[-1].values.setdefault("base", int(match[1], 16))
        for register, value in _registers(line):
            if register in units[-1].values and not found:
                units.append(_Unit("unit"))
            units[-1].values[register] = value
    for unit in dict.fromkeys(units):
        base, version, cap, ecap = map(unit.values.get, ("base", "version", "cap", "ecap"))
        if cap is not None and ecap is not None:
            yield NamedRegisters(unit.name, base, version, cap, ecap)


def _registers(line: str) -> Iterator[tuple[str, int]]:
    """The registers that a line names, with values that they can have."""
    for match in _NAMED.finditer(line):
        name, value = match["name"].lower(), int(match["value"], 16)
        if name.startswith("ver"):
            yield "version", value << 4 | int(match["minor"]) if match["minor"] else value
        elif name.startswith("e") and value >= LEAST_ECAP:
            yield "ecap", value
        elif name.startswith("c") and value >= LEAST_CAP:
            yield "cap", value


def _shown(text: str) -> Iterator[NamedRegisters]:
    """Units at pages whose first registers are shown, where they can be those of a unit."""
    memory: dict[int, int] = {}
    for start, data in (*dump_lines(text), *_reads(text)):
        memory.update(enumerate(data, start))
    for page in sorted({each - each % PAGE for each in memory if each % PAGE == 8}):
        version, cap, ecap = (
            _number(memory, page + offset, size) for offset, size in ((0, 4), (8, 8), (16, 8))
        )
        if cap is None or ecap is None or (version is not None and not 0x10 <= version <= 0x7F):
            continue
        if cap >= LEAST_CAP and ecap >= LEAST_ECAP and Capability(cap).sagaw:
            yield NamedRegisters("unit", page or None, version, cap, ecap)


def _reads(text: str) -> Iterator[tuple[int, bytes]]:
    """Reads of single addresses; one of 8 bytes if the upper half is not read by itself."""
    found = {int(match[1], 16): int(match[2], 16) for match in map(_READ.search, text.splitlines())
             if match}  # fmt: skip
    for address, value in found.items():
        wide = value >> 32 or (address % 8 == 0 and address + 4 not in found)
        yield address, value.to_bytes(8 if wide else 4, "little")


def _number(memory: Mapping[int, int], address: int, size: int) -> int | None:
    data = [memory[each] for each in range(address, address + size) if each in memory]
    return int.from_bytes(bytes(data), "little") if len(data) == size else None


def _pairs(text: str) -> Iterator[NamedRegisters]:
    """CAP and ECAP in turn and nothing else, as somebody reads files of sysfs."""
    words = text.split()
    if len(words) % 2 == 0 and _PAIRS.fullmatch(text):
        numbers = [int(word, 16) for word in words]
        for cap, ecap in zip(numbers[::2], numbers[1::2], strict=True):
            yield NamedRegisters("unit", None, None, cap, ecap)
