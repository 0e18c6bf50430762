"""``vtd caps``: capability registers decoded, compared and checked for contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from vtd.commands.images import capabilities_of
from vtd.commands.numbers import parse_hexadecimal
from vtd.commands.reading import read_files, read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.inspection.collection import LOG, Files
from vtd.inspection.debugfs import dump_text
from vtd.inspection.register_listings import OLDEST, ListedUnit, listed_units, sysfs_units
from vtd.rows import Hex
from vtd.unit.registers.capabilities import Capabilities

CONTRADICTION = 1
"""Exit code when registers contradict themselves."""


class Decoded(NamedTuple):
    """A unit, what to call it, and what there is to say about it."""

    name: str
    unit: Capabilities

    @property
    def fields(self) -> dict[str, Any]:
        """Values by name of the register and the field."""
        return _fields(self.unit)

    @property
    def contradictions(self) -> list[str]:
        return self.unit.contradictions()

    @property
    def notes(self) -> list[str]:
        return [*self.unit.remnants(), *self.unit.consequences()]


def caps(
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="CAP ECAP [CAP ECAP ...] | LOG",
            help="Pairs, one per unit, in hexadecimal with or without 0x; or a boot log or "
            "debugfs iommu_regset to take them from, - is stdin.",
        ),
    ],
    version: Annotated[
        str | None,
        typer.Option(metavar="VER", help="VER_REG of every unit, hexadecimal or 1:0 [0x10]."),
    ] = None,
    host_width: Annotated[
        int | None,
        typer.Option("--host-address-width", help="HAW in bits, decimal; MGAW is held against it."),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Decode CAP_REG and ECAP_REG; of several units, what differs.

    Notes are what units of older revisions show. Exit code 0: no contradiction. 1: registers
    contradict themselves. 2: wrong use.
    """
    with unusable_input("caps"):
        given = None if version is None else _version(version)
        units = [_decoded(each, given, host_width) for each in _listed(values)]
    differing = [
        name for name in units[0].fields if len({str(each.fields[name]) for each in units}) > 1
    ]
    rows = [_row(each) for each in units]
    document = {"units": rows, "differ": differing}
    show(CommandAnswer(document, rows, _lines(units, differing)), format)
    if any(each.contradictions for each in units):
        raise typer.Exit(CONTRADICTION)


def _version(text: str) -> int:
    """VER_REG as a register, or as major:minor, which is how kernels print it."""
    major, found, minor = text.partition(":")
    if not found:
        return parse_hexadecimal(text)
    return parse_hexadecimal(major) << 4 | parse_hexadecimal(minor)


def _listed(values: list[str]) -> list[ListedUnit]:
    """The units that the arguments give, or the files they name; ValueError if there is none."""
    if any(value == "-" or Path(value).exists() for value in values):
        units = [unit for value in values for unit in _read(value)]
        return list(dict.fromkeys(units))
    numbers = [parse_hexadecimal(value) for value in values]
    if len(numbers) % 2:
        raise ValueError("every CAP needs an ECAP")
    return [
        ListedUnit("", None, OLDEST, cap, ecap)
        for cap, ecap in zip(numbers[::2], numbers[1::2], strict=True)
    ]


def _read(file: str) -> list[ListedUnit]:
    with unusable_input(file):
        files = read_files(file)
        units = _units_in(files) if files else listed_units(read_text(file))
        if not units:
            raise ValueError("no line with cap and ecap of a unit")
        return units


def _units_in(files: Files) -> list[ListedUnit]:
    """The units of a folder: from debugfs, from sysfs, else from the log of a collection."""
    texts = [dump_text(*each) for each in files.contents.items() if "iommu_regset" in each[0]]
    units = [unit for text in texts for unit in listed_units(text)]
    return units or sysfs_units(files.contents) or listed_units(files.text(LOG) or "")


def _decoded(listed: ListedUnit, version: int | None, host_width: int | None) -> Decoded:
    number = listed.version if version is None else version
    return Decoded(listed.name, capabilities_of(listed.cap, listed.ecap, host_width, number))


def _row(each: Decoded) -> dict[str, Any]:
    return {
        "name": each.name,
        "cap": Hex(each.unit.cap),
        "ecap": Hex(each.unit.ecap),
        "fields": {name: int(value) for name, value in each.fields.items()},
        "contradictions": each.contradictions,
        "notes": each.notes,
    }


def _fields(unit: Capabilities) -> dict[str, Any]:
    return {
        **{f"CAP.{name.upper()}": value for name, value in unit.cap.fields().items()},
        **{f"ECAP.{name.upper()}": value for name, value in unit.ecap.fields().items()},
    }


def _lines(units: list[Decoded], differing: list[str]) -> Iterator[str]:
    for each in units:
        name = f"{each.name}: " if each.name else ""
        yield f"{name}CAP {each.unit.cap:#018x} ECAP {each.unit.ecap:#018x}"
        yield from (f"  {line}" for line in _summary(each.unit))
        if len(units) == 1:
            yield from (f"  {name:14} {_text(value)}" for name, value in each.fields.items())
    if len(units) > 1:
        yield "differ in: " + (", ".join(differing) or "nothing")
        for field in differing:
            yield f"  {field:14} " + " | ".join(_text(each.fields[field]) for each in units)
    for number, each in enumerate(units, 1):
        where = f"unit {number}: " if len(units) > 1 else ""
        yield from (f"contradiction: {where}{text}" for text in each.contradictions)
        yield from (f"note: {where}{text}" for text in each.notes)


def _summary(unit: Capabilities) -> Iterator[str]:
    """What the fields come to, for people."""
    features = unit.features
    widths = ", ".join(str(30 + 9 * code) for code in sorted(unit.address_widths)) or "none"
    pages = ["4 KiB"] + [
        size for name, size in (("sslps_2m", "2 MiB"), ("sslps_1g", "1 GiB")) if name in features
    ]
    modes = ["legacy"] + (["scalable"] if "smts" in features else [])
    yield f"modes: {', '.join(modes)}; pass-through: {'yes' if 'pt' in features else 'no'}"
    yield f"second stage: {widths} bits, pages of {', '.join(pages)}"
    if "fsts" in features:
        yield f"first stage: {'48 and 57' if 'fs5lp' in features else '48'} bits"
    yield f"guest address width {unit.max_guest_address_width}, domain-ids of {unit.did_width} bits"
    yield (
        f"{unit.fault_records} fault records at {unit.fault_recording_offset:#x}, "
        f"IOTLB registers at {unit.iotlb_offset:#x}"
    )


def _text(value: Any) -> str:
    if isinstance(value, IntEnum | IntFlag) and value.name:
        return f"{int(value)} ({value.name})"
    return f"{value:#x}" if value > 9 else str(int(value))
