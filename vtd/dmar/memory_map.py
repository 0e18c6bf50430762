"""Reserved memory of a platform, from the memory map in whatever form it was kept.

Reads ``/proc/iomem``, ``/sys/firmware/memmap``, the E820 or EFI lines of a boot log (Linux, Xen,
FreeBSD, coreboot, SeaBIOS), the UEFI shell's ``memmap``, and E820 entries in JSON. Reserved is what
firmware keeps to itself at run time: E820 types 2 and 4, and EFI's reserved, runtime and ACPI NVS
memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise

from vtd.dmar.json_text import is_json, json_list
from vtd.dmar.ranges import RangeSet
from vtd.mail import unquoted

E820_RESERVED, E820_NVS = 2, 4
RESERVED_NAMES = (
    "reserved",
    "device reserved",  # Linux 7
    "acpi non-volatile storage",
    "acpi nvs",
    "acpi memory nvs",
    "efi runtime",
    "efiruntime",
    "runtime code",
    "runtime data",
    "rt code",
    "rt data",
)
"""How the names of reserved memory begin, in lower case with spaces."""

_NUMBER = r"(?:0x)?([0-9a-fA-F]{4,16})"
_FORMS = (
    # Linux from 3.1 on, then older ones, whose end is the first byte after the range
    (re.compile(rf"BIOS-e820: \[mem {_NUMBER}-{_NUMBER}\] +(\S.*)"), 1),
    (re.compile(rf"BIOS-(?:e820|88|e801): +{_NUMBER} - {_NUMBER} \((.*)\)"), 0),
    # Xen, new and old
    (re.compile(rf"\(XEN\) +\[{_NUMBER}, {_NUMBER}\] \((.*)\)"), 1),
    (re.compile(rf"\(XEN\) +{_NUMBER} - {_NUMBER} \((.*)\)"), 0),
    # coreboot, SeaBIOS
    (re.compile(r"\d\. ([0-9a-f]{16})-([0-9a-f]{16}): (\S.*)"), 1),
    (re.compile(r"\d: ([0-9a-f]{16}) - ([0-9a-f]{16}) = (\d+)"), 0),
)
"""Lines of boot logs: start, end, name; and what to add to the end to have it exclusive."""
_CUT = re.compile(r"BIOS-e820: \[mem[^\]]*(?:\](?: ACPI)?)?\s*$")
"""A line that a mail wrapped."""
_EFI = re.compile(rf"efi: mem\d+: \[?([\w ]+?) *\|.*range=\[{_NUMBER}-{_NUMBER}([\])])")
_OLD_EFI = re.compile(rf"EFI: mem\d+: type=(\d+), .*range=\[{_NUMBER}-{_NUMBER}\)")
EFI_TYPES = {"0": "reserved", "5": "runtime code", "6": "runtime data", "10": "acpi nvs"}
_SYSFS = re.compile(r"/memmap/(\d+)/(start|end|type):\s*(?:0x)?(.*?)\s*$", re.ASCII)
_SHELL = re.compile(r"[\s>|]*([A-Za-z_]+) +([0-9A-F]{16})-([0-9A-F]{16}) +[0-9A-F]{16}\b.*")
_FREEBSD = re.compile(r"SMAP type=0*([0-9a-f]+) base=([0-9a-f]+) len=([0-9a-f]+)")
_IOMEM = re.compile(r"[\s>|]*([0-9a-f]+)-([0-9a-f]+) : (.*)", re.ASCII)


class MemoryMapError(ValueError):
    """Text that is no memory map; the message says what it lacks."""


def parse_memory_map(text: str) -> RangeSet:
    """Reserved memory in a text of any form; MemoryMapError if there is none of them.

    A JSON entry has ``start`` (or ``base``), ``end`` (last byte) or ``length`` (or ``size``), and
    ``type``: an E820 number or a name such as ``reserved``, ``ACPI NVS`` or an EFI runtime type.
    Numbers may be hexadecimal strings.
    """
    reserved = RangeSet()
    for start, end in _ranges(text):
        reserved.add(start, end)
    return reserved


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    if is_json(text):
        return _json_ranges(text)
    lines = unquoted(text).splitlines()
    for read in (_logged, _efi, _freebsd, _shell, _sysfs):
        found = list(read(lines))
        if found:
            return ((start, end) for start, end, kind in found if is_reserved(kind))
    return _iomem(lines)


def is_reserved(kind: str) -> bool:
    """Whether memory of this kind, a name or an E820 number, is firmware's at run time."""
    name = kind.strip().lower().replace("_", " ")
    return name in (str(E820_RESERVED), str(E820_NVS)) or name.startswith(RESERVED_NAMES)


def _logged(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    for line, following in pairwise([*lines, ""]):
        whole = f"{line} {following.lstrip(' >|')}" if _CUT.search(line) else line
        for form, last in _FORMS:
            if match := form.search(whole):
                yield int(match[1], 16), int(match[2], 16) + last, match[3]
                break


def _efi(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    for match in filter(None, map(_OLD_EFI.search, lines)):
        yield int(match[2], 16), int(match[3], 16), EFI_TYPES.get(match[1], "")
    for match in filter(None, map(_EFI.search, lines)):
        yield int(match[2], 16), int(match[3], 16) + (match[4] == "]"), match[1]


def _freebsd(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    for match in filter(None, map(_FREEBSD.search, lines)):
        start = int(match[2], 16)
        yield start, start + int(match[3], 16), str(int(match[1], 16))


def _shell(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    for match in filter(None, map(_SHELL.fullmatch, lines)):
        yield int(match[2], 16), int(match[3], 16) + 1, match[1]


def _sysfs(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    entries: dict[str, dict[str, str]] = {}
    for match in filter(None, map(_SYSFS.search, lines)):
        entries.setdefault(match[1], {})[match[2]] = match[3]
    for each in entries.values():
        with suppress(KeyError, ValueError):
            yield int(each["start"], 16), int(each["end"], 16) + 1, each["type"]


def _iomem(texts: list[str]) -> Iterator[tuple[int, int]]:
    lines = [match for match in map(_IOMEM.fullmatch, texts) if match]
    if not lines:
        raise MemoryMapError("memory map: no line of the form START-END : NAME, nor E820 lines")
    if not any(int(line[2], 16) for line in lines):
        raise MemoryMapError("memory map: all addresses are 0, read /proc/iomem as root")
    for line in lines:
        if is_reserved(line[3]):
            yield int(line[1], 16), int(line[2], 16) + 1


def _json_ranges(text: str) -> Iterator[tuple[int, int]]:
    for number, entry in enumerate(_objects(text)):
        where = f"memory map entry {number}"
        start = _number(entry, where, "start", "base")
        if "end" in entry:
            end = _number(entry, where, "end") + 1
        else:
            end = start + _number(entry, where, "length", "size")
        if is_reserved(str(entry.get("type", ""))):
            yield start, end


def _objects(text: str) -> list[dict[str, object]]:
    """The list of objects, either itself or under ``e820``."""
    try:
        data = json_list(text, "e820")
    except ValueError as error:
        raise MemoryMapError(f"memory map: {error}") from error
    if not all(isinstance(entry, dict) for entry in data):
        raise MemoryMapError("memory map: a list of objects is needed")
    return data


def _number(entry: Mapping[str, object], where: str, *names: str) -> int:
    for name in names:
        value = entry.get(name)
        if isinstance(value, int):
            return value
        if isinstance(value, str):
            try:
                return int(value, 0)
            except ValueError:
                break
    raise MemoryMapError(f"{where}: {names[0]} is no number")
