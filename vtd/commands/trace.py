"""``vtd trace``: make, convert and look at DMA traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from vtd.commands.command_group import command_group
from vtd.commands.counted import counted
from vtd.commands.design_options import DesignCommand
from vtd.commands.extras import needing
from vtd.commands.file_names import parquet_or
from vtd.commands.reading import read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.progress import StatusLine
from vtd.commands.trace_explain import explain
from vtd.commands.trace_files import Form, Sort, Source, TraceFile, known_sources, open_rows
from vtd.rows import Hex

if TYPE_CHECKING:
    from vtd.batch.columns import Requests
    from vtd.traces.summary import Summary

OutputTrace = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        help="File to write: JSON lines if .jsonl, else Parquet.",
        callback=parquet_or(".jsonl"),
    ),
]
app = command_group("Make, convert and look at DMA traces.")


@app.command("convert")
def convert(
    file: TraceFile,
    output: OutputTrace,
    form: Form = None,
    source: Source = None,
    sort: Sort = False,
    format: Output = Format.TEXT,
) -> None:
    """Make a trace of a log, or bring one into another form.

    Exit code 2 for a trace that is wrong, with row and column; then nothing is written.
    """
    with needing("batch", "trace convert"):
        _write(output, open_rows(file, form, source, sort=sort), format)


@app.command("generate")
def generate(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD.toml", help="What sends what.")],
    output: OutputTrace,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of the trace, instead of the workload's.")
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Generate a trace: sequential, random, NIC and NVMe streams, by one TOML file."""
    with needing("batch", "trace generate"):
        from dataclasses import replace  # noqa: PLC0415

        from vtd.traces.workload import Workload  # noqa: PLC0415 - needs an extra

        with unusable_input(workload):
            wanted = Workload.parse(read_text(workload))
        wanted = wanted if rows is None else replace(wanted, rows=rows)
        _write(output, wanted.arrays(), format)


@app.command("info")
def info(
    file: TraceFile,
    form: Form = None,
    source: Source = None,
    sort: Sort = False,
    machine: Annotated[
        str | None,
        typer.Option(metavar="MACHINE.toml", help="Every source has to be a function of it."),
    ] = None,
    format: Output = Format.TEXT,
) -> None:
    """Check every row, and count: kinds, requesters, pages, bytes, time."""
    with needing("batch", "trace info"):
        from vtd.traces.summary import summarize  # noqa: PLC0415 - needs an extra

        known = None if machine is None else known_sources(machine)
        arrays = _shown(open_rows(file, form, source, sort=sort))
        with unusable_input(file):
            found = summarize(arrays, known)
    row = _summary_row(file, found)
    show(CommandAnswer(row, [row], _summary_lines(file, found)), format)


@app.command("head")
def head(
    file: TraceFile,
    count: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 10,
    first: Annotated[int, typer.Option(min=0, help="The first row, counted from 0.")] = 0,
    form: Form = None,
    source: Source = None,
    sort: Sort = False,
    format: Output = Format.TEXT,
) -> None:
    """Show rows, by the names of their columns."""
    with needing("batch", "trace head"):
        from vtd.traces.text import fields_of  # noqa: PLC0415 - needs an extra

        arrays = open_rows(file, form, source, sort=sort)
        every = (row for rows in arrays for row in rows)
        found = [
            {"row": number, **fields_of(row)}
            for number, row in enumerate(islice(every, first, first + count), first)
        ]
        arrays.close()  # type: ignore[attr-defined]
    lines = map(_row_line, found)
    show(CommandAnswer(found, found, lines), format)


app.command("explain", cls=DesignCommand)(explain)


def _row_line(row: dict[str, object]) -> str:
    tag = f" PASID {row['pasid']:#x}" if "pasid" in row else ""
    access = f", {row['access']}" if "access" in row else ""
    target = f" -> {row['target']}" if "target" in row else ""
    return (
        f"{row['row']:>8}  {row['time']:>12} ns  {row['kind']:<10} {row['source_id']}{tag}  "
        f"{row['address']}  {row['length']} bytes{access}{target}"
    )


def _write(output: str, arrays: Iterable[Requests], form: Format) -> None:
    from vtd.traces import parquet  # noqa: PLC0415 - needs an extra
    from vtd.traces.places import replacing, size_of  # noqa: PLC0415
    from vtd.traces.rows import checked  # noqa: PLC0415
    from vtd.traces.text import json_lines  # noqa: PLC0415

    with unusable_input(output):
        if output.endswith(".jsonl"):
            rows = 0
            with replacing(output) as stream:
                for line in json_lines(checked(_shown(arrays))):
                    stream.write(line.encode())
                    rows += 1
        else:
            rows = parquet.write(output, _shown(arrays))
        size = size_of(output)
    row = {"file": output, "rows": rows, "bytes": size}
    line = f"{output}: {counted(rows, 'row')}, {counted(size, 'byte')}"
    show(CommandAnswer(row, [row], [line]), form)


def _shown(arrays: Iterable[Requests]) -> Iterator[Requests]:
    """The same arrays, with the count of rows on the terminal."""
    count = 0
    with StatusLine() as status:
        for rows in arrays:
            yield rows
            count += len(rows)
            status.show(f"{count} rows")


def _summary_row(file: str, found: Summary) -> dict[str, object]:
    from vtd.traces.rows import source_text  # noqa: PLC0415 - needs an extra

    return {
        "file": file,
        "rows": found.rows,
        "kinds": found.kinds,
        "writes": found.written,
        "bytes": found.bytes,
        "duration": found.duration,
        "gigabits": round(found.gigabits, 3),
        "sources": [source_text(each) for each in sorted(found.sources)],
        "pasids": found.pasids,
        "pages": found.pages,
        "lowest": Hex(found.lowest),
        "highest": Hex(found.highest),
    }


def _summary_lines(file: str, found: Summary) -> Iterator[str]:
    from vtd.traces.rows import source_text  # noqa: PLC0415 - needs an extra

    kinds = ", ".join(f"{count} {name}" for name, count in found.kinds.items() if count)
    yield f"{file}: {counted(found.rows, 'row')}: {kinds or 'nothing'}"
    sources = [source_text(each) for each in sorted(found.sources)]
    some = ", ".join(sources[:4]) + (", ..." if len(sources) > 4 else "")
    tagged = f", {counted(found.pasids, 'PASID')}" if found.pasids else ""
    yield f"  {counted(len(sources), 'source')}: {some}{tagged}"
    if found.kinds["dma"]:
        pages = (
            "more pages than are counted" if found.pages is None else (counted(found.pages, "page"))
        )
        yield (
            f"  requests: {counted(found.bytes, 'byte')}, {found.written} write, {pages} of 4 KiB "
            f"from {found.lowest:#x} to {found.highest:#x}"
        )
    yield f"  {found.duration / 1e6:.3f} ms, {found.gigabits:.3f} Gb/s"
