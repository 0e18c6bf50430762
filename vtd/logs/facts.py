"""What a log tells of the platform: memory map, units, reserved regions, I/O APICs, PCI functions.

Reads the lines that Linux and Xen print at boot; all of it may be missing, or be only part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from devices.source_id import Bdf, SourceIdError
from vtd.dmar.listing.kernel_log import function_in
from vtd.dmar.memory_map import is_reserved
from vtd.dmar.pci_tree import PciFunction, PciTree
from vtd.dmar.ranges import RangeSet

WORDS = (
    r"Linux version |BIOS-e820|reg_base_addr|RMRR base:|DRHD base|RMRR address range|RMRR:? \[|"
    r"RMRR region: base|identity map for device|\(XEN\) +[0-9a-f]{16} - |PCI bridge to \[bus|"
    r": \[[0-9a-f]{4}:[0-9a-f]{4}\] type |has no mapping iommu"
)
"""Regular expression that finds the lines to read."""

_E820 = re.compile(
    r"(?:BIOS-e820: |\(XEN\) +(?=[0-9a-f]{16} - ))(?:\[mem )?"
    r"(?:0x)?([0-9a-f]{8,16}) ?- ?(?:0x)?([0-9a-f]{8,16})(\])? \(?([\w ]+)",
    re.ASCII,
)
_VERSION = re.compile(r"Linux version (\d+\.\d+(?:\.\d+)?)", re.ASCII)
_UNIT = re.compile(
    r"reg_base_addr ([0-9a-f]{1,16}) ver [0-9a-f]+:[0-9a-f]+ cap ([0-9a-f]{1,16}) "
    r"ecap ([0-9a-f]{1,16})",
    re.ASCII,
)
_DRHD = re.compile(r"DRHD base: (?:0x)?([0-9a-f]{1,16}) flags", re.ASCII)
_REGION = re.compile(
    r"RMRR base: (?:0x)?([0-9a-f]{1,16}) end: (?:0x)?([0-9a-f]{1,16})|"
    r"RMRR address range (?:0x)?([0-9a-f]{1,16})\.\.(?:0x)?([0-9a-f]{1,16})|"
    r"RMRR region: base_addr ([0-9a-f]{1,16}) end_add?r(?:ess)? ([0-9a-f]{1,16})|"
    r"RMRR:? \[(?:0x)?([0-9a-f]{1,16}), ?(?:0x)?([0-9a-f]{1,16})\]",
    re.ASCII,
)
_IO_APIC = re.compile(r"(IOAPIC|HPET) id (\d+) under DRHD base +(?:0x)?([0-9a-f]{1,16})", re.ASCII)
_UNLISTED = re.compile(r"ioapic (\d+) has no mapping iommu", re.ASCII)
_IDENTITY = re.compile(
    r"identity map for device (\S+) \[(?:0x)?([0-9a-f]{1,16}) - (?:0x)?([0-9a-f]{1,16})\]",
    re.ASCII,
)


class Region(NamedTuple):
    """A reserved region, half-open, and the device it is for where the log tells."""

    start: int
    end: int
    device: Bdf | None = None


class SystemDevice(NamedTuple):
    """An I/O APIC or HPET of the log."""

    kind: str
    number: int
    register_base: int
    """Of its unit."""


@dataclass
class Facts:
    """What was read; empty where the log does not tell."""

    kernel: str = ""
    reserved_memory: RangeSet = field(default_factory=RangeSet)
    has_memory_map: bool = False
    units: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    """CAP and ECAP of units by register base; None for a unit that only the table names."""
    regions: dict[Region, None] = field(default_factory=dict)
    system_devices: dict[SystemDevice, None] = field(default_factory=dict)
    unlisted: dict[int, None] = field(default_factory=dict)
    """I/O APICs, by id, that the kernel found under no unit."""
    _functions: dict[Bdf, PciFunction] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """What a line tells."""
        for word, pattern, take in _READERS:
            if word in line and (match := pattern.search(line)):
                take(self, match)
                return
        function = function_in(line)
        if function is not None:
            known = self._functions.get(function.bdf)
            self._functions[function.bdf] = known.merged(function) if known else function

    @property
    def pci(self) -> PciTree | None:
        """The PCI functions of the log; None if it lists none."""
        return PciTree(self._functions.values()) if self._functions else None

    def _version(self, match: re.Match[str]) -> None:
        self.kernel = self.kernel or match[1]

    def _unit(self, match: re.Match[str]) -> None:
        base, cap, ecap = (int(number, 16) for number in match.groups())
        self.units[base] = cap, ecap

    def _drhd(self, match: re.Match[str]) -> None:
        self.units.setdefault(int(match[1], 16), None)

    def _region(self, match: re.Match[str]) -> None:
        start, last = (int(number, 16) for number in match.groups() if number)
        if last >= start:
            self.regions[Region(start, last + 1)] = None

    def _identity(self, match: re.Match[str]) -> None:
        device, start, last = _bdf(match[1]), int(match[2], 16), int(match[3], 16)
        if device is not None and last >= start:
            self.regions[Region(start, last + 1, device)] = None

    def _system_device(self, match: re.Match[str]) -> None:
        device = SystemDevice(match[1], int(match[2]), int(match[3], 16))
        self.system_devices[device] = None

    def _no_unit(self, match: re.Match[str]) -> None:
        self.unlisted[int(match[1])] = None

    def _memory(self, match: re.Match[str]) -> None:
        self.has_memory_map = True
        start, end = int(match[1], 16), int(match[2], 16) + bool(match[3])
        if end > start and (is_reserved(match[4]) or match[4].startswith("type 20")):
            self.reserved_memory.add(start, end)


_READERS: tuple[tuple[str, re.Pattern[str], Callable[[Facts, re.Match[str]], None]], ...] = (
    ("e820", _E820, Facts._memory),
    ("(XEN)", _E820, Facts._memory),
    ("reg_base_addr", _UNIT, Facts._unit),
    ("RMRR", _REGION, Facts._region),
    ("under DRHD", _IO_APIC, Facts._system_device),
    ("DRHD base:", _DRHD, Facts._drhd),
    ("no mapping iommu", _UNLISTED, Facts._no_unit),
    ("identity map", _IDENTITY, Facts._identity),
    ("Linux version", _VERSION, Facts._version),
)
"""Word, pattern and what takes up a match, for each kind of line."""


def _bdf(text: str) -> Bdf | None:
    try:
        return Bdf.parse(text)
    except SourceIdError:
        return None
