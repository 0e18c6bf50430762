"""``vtd caps``: capability registers decoded, compared and checked for contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.inputs import Inputs
from vtd.commands.reading import read_files, read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.inspection.capability_rows import (
    Decoded,
    capabilities_row,
    capability_lines,
    listed_pairs,
)
from vtd.inspection.collection import LOG, Files
from vtd.inspection.debugfs import dump_text
from vtd.inspection.register_listings import ListedUnit, listed_units, sysfs_units
from vtd.numbers import parse_hexadecimal


def caps(
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="CAP ECAP [CAP ECAP ...] | LOG",
            help="Pairs, one per unit, in hexadecimal with or without 0x; or a boot log, a "
            "dump of registers or of their memory, debugfs or sysfs; - is stdin.",
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
    inputs = Inputs()
    with unusable_input("caps"):
        given = None if version is None else _version(version)
        units = [Decoded.of(each, given, host_width) for each in _listed(values, inputs)]
    if not units:
        inputs.end(found=False)
    document = capabilities_row(units)
    show(CommandAnswer(document, document["units"], capability_lines(units)), format)
    inputs.end(found=any(each.contradictions for each in units))


def _version(text: str) -> int:
    """VER_REG as a register, or as major:minor, which is how kernels print it."""
    major, found, minor = text.partition(":")
    if not found:
        return parse_hexadecimal(text)
    return parse_hexadecimal(major) << 4 | parse_hexadecimal(minor)


def _listed(values: list[str], inputs: Inputs) -> list[ListedUnit]:
    """The units that the arguments give, or the files they name; ValueError if there is none."""
    if not any(value == "-" or {"/", "."} & set(value) or Path(value).exists() for value in values):
        return listed_pairs(values)
    units: list[ListedUnit] = []
    for value in values:
        with inputs.reading(value):
            units += _read(value)
    return list(dict.fromkeys(units))


def _read(file: str) -> list[ListedUnit]:
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
