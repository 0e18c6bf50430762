"""What commands know of the platform: options for its files, or the collection they are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from vtd.commands.reading import (
    LARGEST_TABLE_FILE,
    Lspci,
    read_bytes,
    read_files,
    read_part,
    read_pci_tree,
    tree_in,
    unusable_input,
)
from vtd.dmar.inputs import acpi_tables
from vtd.dmar.memory_map import parse_memory_map
from vtd.dmar.platform_data import (
    PlatformData,
    UnitRegisters,
    parse_hpet,
    parse_madt,
    parse_namespace,
    parse_registers,
    parse_srat,
)
from vtd.dmar.ranges import RangeSet
from vtd.dmar.table import TableError
from vtd.inspection import collection
from vtd.inspection.collection import Files
from vtd.inspection.register_listings import ListedUnit, sysfs_units
from vtd.layouts.registers import Capability, ExtendedCapability

T = TypeVar("T")

MemoryMap = Annotated[
    Path | None,
    typer.Option(help="Memory map: /proc/iomem (as root), E820 lines of a boot log, or JSON."),
]
Registers = Annotated[
    list[str] | None, typer.Option(metavar="BASE:CAP:ECAP[:VER]", help="Registers of a unit, hex.")
]


@dataclass(frozen=True)
class PlatformFiles:
    """Where the data of the platform is; None for what was not given."""

    memory_map: MemoryMap = None
    madt: Annotated[Path | None, typer.Option(help="MADT (APIC) table.")] = None
    hpet: Annotated[Path | None, typer.Option(help="HPET table or tables.")] = None
    srat: Annotated[Path | None, typer.Option(help="SRAT table.")] = None
    lspci: Lspci = None
    namespace: Annotated[
        Path | None, typer.Option(help="Names of ACPI objects, one per line (sysfs acpi paths).")
    ] = None
    registers: Registers = None


NOTHING = PlatformFiles()


def read_platform(given: PlatformFiles = NOTHING, beside: str | None = None) -> PlatformData:
    """The data of the platform: from the files given, else from the collection of the table."""
    files = _collection(beside)
    with unusable_input(beside or ""):
        held = _held(files) if files else PlatformData()
    return PlatformData(
        _first(_map(given.memory_map), held.reserved_memory),
        _first(_acpi(given.madt, b"APIC", _io_apics), held.io_apics),
        _first(_acpi(given.hpet, b"HPET", _hpets), held.hpets),
        _first(_acpi(given.srat, b"SRAT", _domains), held.proximity_domains),
        _first(read_pci_tree(given.lspci), held.pci),
        _first(_registers(given.registers), held.registers),
        _first(_text(given.namespace, collection.NAMESPACE, parse_namespace), held.namespace),
    )


def _map(file: Path | None) -> RangeSet | None:
    return _text(file, collection.MEMORY_MAP, parse_memory_map)


def _io_apics(tables: list[bytes]) -> frozenset[int]:
    return parse_madt(tables[0])


def _hpets(tables: list[bytes]) -> frozenset[int]:
    return frozenset(map(parse_hpet, tables))


def _domains(tables: list[bytes]) -> frozenset[int]:
    return parse_srat(tables[0])


def _first(given: T | None, held: T | None) -> T | None:
    return held if given is None else given


def _collection(file: str | Path | None) -> Files | None:
    if file is None:
        return None
    with unusable_input(str(file)):
        files = read_files(file)
    return files if files and files.is_collection else None


def _held(files: Files) -> PlatformData:
    """What a collection holds of the platform; parts that an ordinary user can't read are None."""
    tables = files.below(collection.TABLES).contents

    def acpi(signature: str) -> list[bytes]:
        return [data for path, data in tables.items() if path.startswith(signature)]

    madt, hpet, srat = acpi("APIC"), acpi("HPET"), acpi("SRAT")
    listed = sysfs_units(files.below(collection.UNITS).contents)
    return PlatformData(
        reserved_memory=_parsed(files.text(collection.MEMORY_MAP), parse_memory_map),
        io_apics=parse_madt(madt[0]) if madt else None,
        hpets=frozenset(map(parse_hpet, hpet)) if hpet else None,
        proximity_domains=parse_srat(srat[0]) if srat else None,
        pci=tree_in(files),
        registers=dict(map(_of_unit, listed)) if listed else None,
        namespace=_parsed(files.text(collection.NAMESPACE), parse_namespace),
    )


def _of_unit(listed: ListedUnit) -> tuple[int, UnitRegisters]:
    registers = Capability(listed.cap), ExtendedCapability(listed.ecap), listed.version
    return listed.base or 0, UnitRegisters(*registers)


def _parsed(text: str | None, parse: Callable[[str], T]) -> T | None:
    return parse(text) if text and text.strip() else None


def _text(file: Path | None, name: str, parse: Callable[[str], T]) -> T | None:
    """What ``parse`` makes of a file, or of the file with this name of a collection."""
    if file is None:
        return None
    with unusable_input(str(file)):
        return parse(read_part(file, name))


def _acpi(file: Path | None, signature: bytes, parse: Callable[[list[bytes]], T]) -> T | None:
    """What ``parse`` makes of the tables with a signature in a file or folder."""
    if file is None:
        return None
    with unusable_input(str(file)):
        files = read_files(file)
        if files is None:
            blobs = acpi_tables(read_bytes(str(file), LARGEST_TABLE_FILE))
        else:
            blobs = list(files.contents.values())
        tables = [each for each in blobs if each[:4] == signature]
        if not tables:
            raise TableError(f"no {signature.decode()} table")
        return parse(tables)


def _registers(texts: list[str] | None) -> dict[int, UnitRegisters] | None:
    if not texts:
        return None
    with unusable_input("--registers"):
        return dict(map(parse_registers, texts))
