"""What else is known of a platform: memory map, other ACPI tables, PCI tree, capabilities.

The K rules (:mod:`vtd.dmar.rules.platform`) use whatever part was given. ACPI tables follow the
ACPI specification 6.5 (5.2.12 MADT, 5.2.16 SRAT) and the HPET specification 1.0a; capability
registers VT-d 11.4.2 and 11.4.3, as far as the rules need them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from construct import Bytes, Int8ul, Int16ul, Int32ul, Padding, Struct

from pagetables.bits import BitRecord, Bits
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.ranges import RangeSet
from vtd.dmar.records import padded_name


class PlatformDataError(ValueError):
    """Data of the platform that can't be used; the message says what and where."""


class Capability(BitRecord, width=64):
    """The part of CAP that says where fault records are (11.4.2)."""

    nfr = Bits(47, 40)  # number of fault records, minus 1
    fro = Bits(33, 24, shift=4)  # offset of the first one


class ExtendedCapability(BitRecord, width=64):
    """The part of ECAP that a DMAR table has to agree with (11.4.3)."""

    irreq = Bits(62, as_=bool)  # interrupt remapping required
    eimer = Bits(61, as_=bool)  # extended interrupt mode required
    iro = Bits(17, 8, shift=4)  # offset of the IOTLB registers
    dt = Bits(2, as_=bool)  # Device-TLBs


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


_IOMEM = re.compile(r"\s*([0-9a-f]+)-([0-9a-f]+) : (.*)", re.ASCII)
_RESERVED_NAMES = ("reserved", "acpi non-volatile storage", "acpi nvs", "efi runtime", "efiruntime")
_E820_RESERVED, _E820_NVS = 2, 4


def parse_memory_map(text: str) -> RangeSet:
    """Reserved memory of ``/proc/iomem`` or of E820 entries in JSON.

    A JSON entry has ``start`` (or ``base``), ``end`` (last byte) or ``length`` (or ``size``), and
    ``type``: an E820 number or a name such as ``reserved``, ``ACPI NVS`` or an EFI runtime type.
    Numbers may be hexadecimal strings.
    """
    read = _e820_ranges if text.lstrip()[:1] in ("[", "{") else _iomem_ranges
    reserved = RangeSet()
    for start, end in read(text):
        reserved.add(start, end)
    return reserved


def _iomem_ranges(text: str) -> Iterator[tuple[int, int]]:
    lines = [match for match in map(_IOMEM.fullmatch, text.splitlines()) if match]
    if not lines:
        raise PlatformDataError("memory map: no line of the form START-END : NAME")
    if not any(int(line[2], 16) for line in lines):
        raise PlatformDataError("memory map: all addresses are 0, read /proc/iomem as root")
    for line in lines:
        if line[3].strip().lower().startswith(_RESERVED_NAMES):
            yield int(line[1], 16), int(line[2], 16) + 1


def _e820_ranges(text: str) -> Iterator[tuple[int, int]]:
    for number, entry in enumerate(_objects(text, "memory map", "e820")):
        where = f"memory map entry {number}"
        start = _number(entry, where, "start", "base")
        if "end" in entry:
            end = _number(entry, where, "end") + 1
        else:
            end = start + _number(entry, where, "length", "size")
        kind = str(entry.get("type", "")).strip().lower()
        codes = (str(_E820_RESERVED), str(_E820_NVS))
        if kind in codes or kind.replace("_", " ").startswith(_RESERVED_NAMES):
            yield start, end


def _objects(text: str, what: str, key: str) -> list[dict[str, object]]:
    """The list of objects in JSON ``text``, either itself or under ``key``."""
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PlatformDataError(f"{what}: not JSON: {error}") from error
    if isinstance(data, dict):
        data = data.get(key)
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise PlatformDataError(f"{what}: a list of objects is needed")
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
    raise PlatformDataError(f"{where}: {names[0]} is no number")


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
