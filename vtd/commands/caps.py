"""``vtd caps``: capability registers decoded, compared and checked for contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Annotated, Any

import typer

from vtd.commands.images import capabilities_of, parse_number
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.rows import Hex
from vtd.unit.registers.capabilities import Capabilities

CONTRADICTION = 1
"""Exit code when registers contradict themselves."""


def caps(
    values: Annotated[
        list[int],
        typer.Argument(
            parser=parse_number, metavar="CAP ECAP [CAP ECAP ...]", help="Pairs, one per unit."
        ),
    ],
    version: Annotated[
        int | None,
        typer.Option(parser=parse_number, metavar="VER", help="VER_REG of every unit [0x10]."),
    ] = None,
    host_width: Annotated[
        int | None,
        typer.Option("--host-address-width", help="HAW in bits; MGAW is held against it."),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Decode CAP_REG and ECAP_REG; of several units, what differs.

    Exit code 0: no contradiction. 1: registers contradict themselves. 2: wrong use.
    """
    if len(values) % 2:
        raise typer.BadParameter("every CAP needs an ECAP", param_hint="CAP ECAP")
    with unusable_input("caps"):
        units = [
            capabilities_of(cap, ecap, host_width, 0x10 if version is None else version)
            for cap, ecap in zip(values[::2], values[1::2], strict=True)
        ]
    fields = [_fields(unit) for unit in units]
    differing = [name for name in fields[0] if len({str(each[name]) for each in fields}) > 1]
    found = [unit.check() for unit in units]
    rows = [
        {
            "cap": Hex(unit.cap),
            "ecap": Hex(unit.ecap),
            "fields": {name: int(value) for name, value in each.items()},
            "contradictions": contradictions,
        }
        for unit, each, contradictions in zip(units, fields, found, strict=True)
    ]
    document = {"units": rows, "differ": differing}
    show(CommandAnswer(document, rows, _lines(units, fields, differing, found)), format)
    if any(found):
        raise typer.Exit(CONTRADICTION)


def _fields(unit: Capabilities) -> dict[str, Any]:
    return {
        **{f"CAP.{name.upper()}": value for name, value in unit.cap.fields().items()},
        **{f"ECAP.{name.upper()}": value for name, value in unit.ecap.fields().items()},
    }


def _lines(
    units: list[Capabilities],
    fields: list[dict[str, Any]],
    differing: list[str],
    found: list[list[str]],
) -> Iterator[str]:
    for unit, each in zip(units, fields, strict=True):
        yield f"CAP {unit.cap:#018x} ECAP {unit.ecap:#018x}"
        yield from (f"  {line}" for line in _summary(unit))
        if len(units) == 1:
            yield from (f"  {name:14} {_text(value)}" for name, value in each.items())
    if len(units) > 1:
        yield "differ in: " + (", ".join(differing) or "nothing")
        for name in differing:
            yield f"  {name:14} " + " | ".join(_text(each[name]) for each in fields)
    for number, contradictions in enumerate(found, 1):
        where = f"unit {number}: " if len(units) > 1 else ""
        yield from (f"contradiction: {where}{text}" for text in contradictions)


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
