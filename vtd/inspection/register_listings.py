"""Capability registers of units as kernels and hypervisors print them.

Reads boot logs of Linux (both spellings), Xen and FreeBSD, the debugfs file ``iommu_regset``, and
the files that sysfs has for a unit; of a text with none of these, what
:mod:`vtd.inspection.register_lines` reads. Numbers are hexadecimal, with or without 0x.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from vtd.inspection.register_lines import named_registers
from vtd.mail import unquoted

_QUOTE = " \t>|"
_HEX = r"(?:0x)?([0-9a-fA-F]+)"
_LINUX = re.compile(
    rf"(?:DMAR: (\S+): reg_base_addr|IOMMU(?: \d+)?(?:: reg_base_addr)?) {_HEX}:? ver (\d+):(\d+) "
    rf"cap {_HEX} ecap {_HEX}"
)
_FREEBSD = re.compile(
    rf"(dmar\d+|DMAR\d+): .*?(?:base|regs) {_HEX}.*?ver(?:sion)? ?=?(\d+)[:.](\d+).*?"
    rf"cap(?:abilities)? ?=?{_HEX}.*?ecap ?=?{_HEX}",
    re.IGNORECASE,
)
_HALVES = re.compile(
    r"\b(e?cap=)([0-9a-f]{1,8})(<[^<>]*>)?,([0-9a-f]{1,8})(<[^<>]*>)?, (?=ndoms=|mhmw=)", re.ASCII
)
"""A register as FreeBSD prints it: the lower half, then the upper one, each with names of bits."""
_XEN_BASE = re.compile(rf"drhd->address = {_HEX}")
_XEN = re.compile(rf"\bcap = {_HEX} ecap = {_HEX}")
_REGSET = re.compile(rf"IOMMU: (\S+) Register Base Address: {_HEX}")
_REGISTER = re.compile(rf"\s*([A-Z_]+\w*)\s+0x[0-9a-f]+\s+{_HEX}\s*")
OLDEST = 0x10
"""VER_REG of units whose listing does not say."""


class ListedUnit(NamedTuple):
    """The registers of one unit as a listing gives them."""

    name: str
    base: int | None
    version: int
    cap: int
    ecap: int


def listed_units(text: str) -> list[ListedUnit]:
    """The units that a text speaks of, each once, in the order of the text."""
    text = _HALVES.sub(_whole, unquoted(text))
    found = [*_log_lines(text), *_regsets(text)]
    if not found:
        found = [
            ListedUnit(
                each.name if each.base is None or each.name != "unit" else f"{each.base:x}",
                each.base,
                OLDEST if each.version is None else each.version,
                each.cap,
                each.ecap,
            )
            for each in named_registers(text)
        ]
    return list({(each.base, each.cap, each.ecap): each for each in found}.values())


def _whole(match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[4], 16):x}{int(match[2], 16):08x}{match[3] or ''}, "


def _log_lines(text: str) -> Iterator[ListedUnit]:
    base = None
    for line, following in pairwise([*text.splitlines(), ""]):
        wrapped = f"{line} {following.lstrip(_QUOTE)}"
        if match := _LINUX.search(line) or _FREEBSD.search(line) or _LINUX.search(wrapped):
            name, address, major, minor, cap, ecap = match.groups()
            version = int(major) << 4 | int(minor)
            where = int(address, 16)
            yield ListedUnit(name or f"{where:x}", where, version, int(cap, 16), int(ecap, 16))
        elif match := _XEN_BASE.search(line):
            base = int(match[1], 16)
        elif match := _XEN.search(line):
            name = "unit" if base is None else f"{base:x}"
            yield ListedUnit(name, base, OLDEST, int(match[1], 16), int(match[2], 16))


def _regsets(text: str) -> Iterator[ListedUnit]:
    """The units of ``iommu_regset``, which prints every register under the name of its unit."""
    for name, base, registers in regsets(text):
        if "CAP" in registers and "ECAP" in registers:
            version = registers.get("VER", OLDEST)
            yield ListedUnit(name, base, version, registers["CAP"], registers["ECAP"])


def regsets(text: str) -> Iterator[tuple[str, int, dict[str, int]]]:
    """Name, register base and all registers by mnemonic of the units in ``iommu_regset``."""
    heading: re.Match[str] | None = None
    registers: dict[str, int] = {}
    for line in text.splitlines():
        if match := _REGSET.search(line):
            if heading is not None:
                yield heading[1], int(heading[2], 16), registers
            heading, registers = match, {}
        elif match := _REGISTER.fullmatch(line):
            registers[match[1]] = int(match[2], 16)
    if heading is not None:
        yield heading[1], int(heading[2], 16), registers


def sysfs_units(files: Mapping[str, bytes]) -> list[ListedUnit]:
    """The units of a copy of ``/sys/class/iommu``, by the paths of the files."""
    units = []
    for path, content in sorted(files.items()):
        folder, _, last = path.rpartition("/")
        if last != "ecap" or f"{folder}/cap" not in files:
            continue
        texts = {each: files.get(f"{folder}/{each}", b"") for each in ("address", "version", "cap")}
        name = folder.removesuffix("/intel-iommu").rpartition("/")[2]
        try:
            major, _, minor = texts["version"].decode().strip().partition(":")
            version = int(major) << 4 | int(minor) if minor else OLDEST
            base = int(texts["address"], 16) if texts["address"].strip() else None
            units.append(ListedUnit(name, base, version, int(texts["cap"], 16), int(content, 16)))
        except ValueError:
            continue
    return units
