"""How commands are given traces: where they are, what form they have, who may be in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vtd.commands.names import check_name
from vtd.commands.reading import unusable_input

if TYPE_CHECKING:
    from vtd.batch.columns import Requests

TraceFile = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="Parquet, JSON lines, CSV, a live recording, or a log of QEMU, HyperSIO or Linux; "
        "- is stdin, and an address such as s3://... is opened by fsspec.",
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--from", help="parquet, jsonl, csv, recording, qemu, linux, block. Default: as it looks."
    ),
]
Source = Annotated[
    str | None,
    typer.Option(metavar="BDF", help="The device, where the log does not name it."),
]
Sort = Annotated[bool, typer.Option("--sort", help="Sort rows by time, in memory.")]


def open_rows(
    place: str, form: str | None = None, source: str | None = None, *, sort: bool = False
) -> Iterator[Requests]:
    """The rows of a trace; what is wrong with it ends the command with one line."""
    from vtd.traces.reading import FORMS, Reading, read_trace  # noqa: PLC0415 - needs an extra
    from vtd.traces.rows import parse_source  # noqa: PLC0415

    if form is not None:
        check_name(form, FORMS, "--from")
    try:
        number = None if source is None else parse_source(source)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--source") from error
    stdin = sys.stdin.buffer if sys.stdin is not None else None
    with unusable_input(place):
        yield from read_trace(place, Reading(form, number, sort), stdin)


def known_sources(machine: str) -> frozenset[int]:
    """The values of column ``source_id`` that functions of a machine can have."""
    from vtd.commands.machine import load_machine  # noqa: PLC0415 - all devices and units

    assembly = load_machine(machine)
    topology = assembly.platform.topology
    return frozenset(
        segment << 16 | number
        for segment in {unit.segment for unit in assembly.table.units} | {0}
        for function in topology.functions(segment)
        for number in topology.aliases(function)
    )
