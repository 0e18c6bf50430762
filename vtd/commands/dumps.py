"""A unit from the dumps of Linux: a debugfs folder, or the collection that holds one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from pagetables.unchanged import UnchangedMemory
from vtd.commands.reading import read_files
from vtd.dmar.table import Table
from vtd.inspection import collection
from vtd.inspection.collection import Files
from vtd.inspection.debugfs import (
    LARGEST_DUMP,
    DebugfsError,
    DumpedUnit,
    dumped_units,
    is_debugfs,
)
from vtd.layouts.registers import GlobalStatus
from vtd.recordings.capture import MANIFEST, Capture
from vtd.software.registers import start
from vtd.unit.departures import QEMU, SPECIFICATION
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.unit import RemappingUnit

DUMPS = ("dmar_translation_struct", "domain_translation_struct", "ir_translation_struct")
_HEADING = re.compile(
    rb"Root Table Address: 0x|(?:Remapped|Posted) Interrupt supported on IOMMU|\tIOVA_PFN\t|"
    rb"Register Base Address: "
)
"""What one of the files of debugfs begins with."""
_REGISTERS = re.compile(rb"Register Base Address: ")
START = 4096


class Inspected(NamedTuple):
    """A unit that nobody changes, and where it comes from."""

    unit: RemappingUnit
    capture: Capture | None

    @property
    def status(self) -> GlobalStatus:
        return self.unit.registers[GlobalStatus]


def open_debugfs(path: Path, *, as_specified: bool = False) -> Inspected | None:
    """The unit of a folder of dumps or a collection; None for anything else.

    A unit of version 1.x with scalable mode is QEMU's, which departs from the specification in
    places; ``as_specified`` shows what the specification says.

    Behind ``@`` is the name of the unit, ``FOLDER@dmar1``, where there are several.
    """
    folder, _, name = str(path).rpartition("@")
    place = Path(folder) if folder and not path.exists() else path
    if (place / MANIFEST).exists():
        return None
    files = read_files(place) or _posted(place)
    if files is None:
        return None
    if not (_has_dumps(files) or is_debugfs(files.contents)):
        if files.is_collection:
            raise DebugfsError("it has no dumps of debugfs, which tell what units translate")
        return None
    found = _named(_units(place, files), name if place != path else None)
    if found.untold:
        say = f"page tables of {', '.join(found.untold)} are not in the dumps"
        typer.echo(f"vtd: {place}: {say} (domain_translation_struct): unknown", err=True)
    return Inspected(_unit(found, _address_bits(files), as_specified), None)


def _units(place: Path, files: Files) -> list[DumpedUnit]:
    """The units of dumps; without their registers they are taken for those of a Xeon."""
    try:
        return dumped_units(files.contents)
    except DebugfsError:
        if not _has_dumps(files) or any(map(_REGISTERS.search, files.contents.values())):
            raise
    xeon = PROFILES["xeon"]
    ecap = xeon.ecap.replace(hpts=True, ptrs=True)  # so that none of their bits is reserved
    try:
        units = dumped_units(files.contents, {"VER": xeon.version, "CAP": xeon.cap, "ECAP": ecap})
    except DebugfsError as error:
        raise DebugfsError(
            "dumps of debugfs need iommu_regset beside them: give a folder with all files"
        ) from error
    say = "no iommu_regset in it: capabilities are taken for those of a Xeon"
    typer.echo(f"vtd: {place}: {say}, and what has a table for switched on", err=True)
    return units


def _has_dumps(files: Files) -> bool:
    names = {name.rpartition("/")[2] for name in files.contents}
    return not names.isdisjoint(DUMPS)


def _posted(place: Path) -> Files | None:
    """A text with dumps in it, as people post them, as if it were each of the files."""
    if not place.is_file() or place.stat().st_size > LARGEST_DUMP:
        return None
    with place.open("rb") as stream:
        if _HEADING.search(stream.read(START)) is None:
            return None
    data = place.read_bytes()
    names = ("iommu_regset", *DUMPS) if _REGISTERS.search(data) else DUMPS
    return Files(dict.fromkeys(names, data))


def open_named_dumps(files: Files) -> Iterator[tuple[str, RemappingUnit]]:
    """Every unit of a folder of dumps or a collection, by its name."""
    for each in dumped_units(files.contents):
        yield each.name, _unit(each, _address_bits(files), as_specified=False)


def _named(units: list[DumpedUnit], name: str | None) -> DumpedUnit:
    names = ", ".join(each.name for each in units)
    if name is None and len(units) == 1:
        return units[0]
    for each in units:
        if each.name == name:
            return each
    raise DebugfsError(f"name one of the units behind @: {names}")


def _address_bits(files: Files) -> int | None:
    """The host address width of the table in a collection."""
    for path, data in files.below(collection.TABLES).contents.items():
        if path.startswith("DMAR") and len(data) >= 48:
            return Table.parse(data).header.address_bits
    return None


def _unit(dumped: DumpedUnit, address_bits: int | None, as_specified: bool) -> RemappingUnit:
    """A unit that stands as the dumped one; without a table its MGAW is its address width."""
    registers = dumped.registers
    numbers = (registers[each] for each in ("VER", "CAP", "ECAP"))
    version, cap, ecap = numbers
    widest = Capabilities.of(version, cap, ecap, 52)
    bits = address_bits or max(12, min(52, widest.max_guest_address_width))
    capabilities = Capabilities.of(version, cap, ecap, bits)
    emulated = capabilities.major_version == 1 and bool(capabilities.ecap.smts)
    options = Options(departures=QEMU if emulated and not as_specified else SPECIFICATION)
    unit = RemappingUnit(capabilities, UnchangedMemory(dumped.memory), options)
    start(unit, GlobalStatus(registers["GSTS"]), registers["RTADDR"], registers["IRTA"])
    return unit
