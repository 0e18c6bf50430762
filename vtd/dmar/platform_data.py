"""What else is known of a platform: memory map, other ACPI tables, PCI tree, capabilities.

The K rules (:mod:`vtd.dmar.rules.platform`) use whatever part was given. ACPI tables follow the
ACPI specification 6.5 (5.2.12 MADT, 5.2.16 SRAT) and the HPET specification 1.0a.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from construct import Bytes, Int8ul, Int16ul, Int32ul, Padding, Struct

from vtd.dmar.pci_tree import PciTree
from vtd.dmar.ranges import RangeSet
from vtd.dmar.records import padded_name
from vtd.layouts.registers import Capability, ExtendedCapability


class PlatformDataError(ValueError):
    """Data of the platform that can't be used; the message says what and where."""


class UnitRegisters(NamedTuple):
    """What the registers of one unit read as."""

    cap: Capability
    ecap: ExtendedCapability
    ver: int = 0x10

    @property
    def answers(self) -> bool:
        """Whether there is a unit: absent hardware reads as all ones."""
        ones = (1 << 64) - 1
        return self.ver != 0xFFFFFFFF and not (self.cap == ones and self.ecap == ones)

    @property
    def domain_ids(self) -> int:
        """How many domain-ids there are (CAP.ND), without 0 where caching mode uses it (6.2.2)."""
        return (1 << min(4 + 2 * self.cap.nd, 16)) - self.cap.cm

    @property
    def end(self) -> int:
        """First offset after the fault records and the IOTLB registers."""
        return max(self.cap.fro + 16 * (self.cap.nfr + 1), self.ecap.iro + 16)


@dataclass(frozen=True)
class PlatformData:
    """What is known beside the table; None for what was not given."""

    reserved_memory: RangeSet | None = None
    """Addresses that the memory map reports as reserved, ACPI NVS or EFI runtime."""
    io_apics: frozenset[int] | None = None
    """I/O APIC ids of the MADT."""
    hpets: frozenset[int] | None = None
    """HPET numbers of the HPET tables."""
    proximity_domains: frozenset[int] | None = None
    """Proximity domains of the SRAT."""
    pci: PciTree | None = None
    registers: Mapping[int, UnitRegisters] | None = None
    """Registers of units by their base address."""
    namespace: frozenset[str] | None = None
    """Fully qualified names of ACPI objects."""


_AcpiHeader = Struct("signature" / Bytes(4), "length" / Int32ul, Padding(28))
_Entry = Struct("type" / Int8ul, "length" / Int8ul)
_Hpet = Struct(Padding(52), "number" / Int8ul, "minimum_tick" / Int16ul, "protection" / Int8ul)

_MADT_ENTRIES, _SRAT_ENTRIES = 44, 48
_IO_APIC, _IO_SAPIC = 1, 6


def _acpi_table(data: bytes, signature: bytes, shortest: int) -> bytes:
    """The bytes of an ACPI table inside its Length; PlatformDataError if it is another."""
    name = signature.decode()
    if len(data) < shortest or data[:4] != signature:
        raise PlatformDataError(f"{name}: no {name} table of at least {shortest} bytes")
    length = _AcpiHeader.parse(data).length
    if not shortest <= length <= len(data):
        raise PlatformDataError(f"{name}: length {length}, {len(data)} bytes given")
    return data[:length]


def _entries(data: bytes, position: int, name: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each entry of a MADT or SRAT."""
    while position < len(data):
        entry = _Entry.parse(data[position : position + 2].ljust(2, b"\0"))
        if not 2 <= entry.length <= len(data) - position:
            raise PlatformDataError(f"{name}: bad entry length {entry.length} at {position}")
        yield entry.type, data[position : position + entry.length]
        position += entry.length


def parse_madt(data: bytes) -> frozenset[int]:
    """The I/O APIC ids of a MADT."""
    madt = _acpi_table(data, b"APIC", _MADT_ENTRIES)
    return frozenset(
        entry[2]
        for type, entry in _entries(madt, _MADT_ENTRIES, "APIC")
        if type in (_IO_APIC, _IO_SAPIC) and len(entry) > 2
    )


def parse_hpet(data: bytes) -> int:
    """The HPET number of an HPET table."""
    number: int = _Hpet.parse(_acpi_table(data, b"HPET", 56)).number
    return number


def parse_srat(data: bytes) -> frozenset[int]:
    """The proximity domains of an SRAT."""
    srat = _acpi_table(data, b"SRAT", _SRAT_ENTRIES)
    return frozenset(
        domain
        for type, entry in _entries(srat, _SRAT_ENTRIES, "SRAT")
        if (domain := _proximity_domain(type, entry)) is not None
    )


def _proximity_domain(type: int, entry: bytes) -> int | None:
    """The domain an SRAT entry assigns, None for kinds without one."""
    if type == 0 and len(entry) >= 12:  # processor: bits 7:0 apart from bits 31:8
        return entry[2] | int.from_bytes(entry[9:12], "little") << 8
    if type in (1, 3) and len(entry) >= 6:  # memory, GICC
        return int.from_bytes(entry[2:6], "little")
    if type in (2, 5) and len(entry) >= 8:  # processor with an x2APIC, generic initiator
        return int.from_bytes(entry[4:8], "little")
    return None


_OBJECT_NAME = re.compile(r"\\?[A-Z_][A-Z0-9_]{0,3}(\.[A-Z_][A-Z0-9_]{0,3})*", re.ASCII)


def parse_namespace(text: str) -> frozenset[str]:
    """Object names, one per line, as ``cat /sys/bus/acpi/devices/*/path`` prints them.

    Names compare with all segments padded to four characters, as ACPI does.
    """
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not any(map(_OBJECT_NAME.fullmatch, names)):
        raise PlatformDataError("namespace: no object name, such as \\_SB.PCI0")
    return frozenset(map(padded_name, names))


def parse_registers(text: str) -> tuple[int, UnitRegisters]:
    """``BASE:CAP:ECAP`` or ``BASE:CAP:ECAP:VER`` in hexadecimal, as the base and its registers."""
    parts = text.split(":")
    try:
        base, cap, ecap, *ver = (int(part, 16) for part in parts)
        if len(ver) > 1 or min(base, cap, ecap) < 0:
            raise ValueError(text)
        return base, UnitRegisters(Capability(cap), ExtendedCapability(ecap), *ver)
    except ValueError as error:
        raise PlatformDataError(f"registers: {text!r} is not BASE:CAP:ECAP[:VER]") from error
