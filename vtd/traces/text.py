"""Traces as text: JSON lines, an object a row, or CSV with a line of column names.

Numbers are decimal, or hexadecimal with 0x; a source is ``0000:00:02.0``, a kind and an access are
words. What is not told has its default; no time is the time of the row before, and a first row
without one is at 0.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from devices.dma import READ, WRITE
from vtd.batch.columns import NO_PASID, Requests, RowKind
from vtd.traces.rows import TraceError, TraceRow, parse_source, source_text

KINDS = {kind.name.lower(): kind for kind in RowKind}
ACCESSES = {"read": READ, "write": WRITE, "read-write": READ | WRITE}
_KIND_NAMES = {int(kind): name for name, kind in KINDS.items()}
_ACCESS_NAMES = {value: name for name, value in ACCESSES.items()}
_GRANTED: dict[int, int] = {RowKind.DMA: READ, RowKind.MAP: READ | WRITE}
"""Access of a row that does not tell it."""
SOURCE_NAMES = ("source_id", "source", "device", "bdf")
"""Columns that may hold the source, by the names that people give them."""


def fields_of(row: Any) -> dict[str, object]:
    """A row by the names of its columns, without what is at its default."""
    fields: dict[str, object] = {
        "time": int(row["time"]),
        "kind": _KIND_NAMES[int(row["kind"])],
        "source_id": source_text(int(row["source_id"])),
    }
    if row["pasid"] != NO_PASID:
        fields["pasid"] = int(row["pasid"])
    fields["address"] = hex(row["address"])
    if row["target"]:
        fields["target"] = hex(row["target"])
    fields["length"] = int(row["length"])
    if row["kind"] in (RowKind.DMA, RowKind.MAP):
        fields["access"] = _ACCESS_NAMES.get(int(row["access"]), int(row["access"]))
    if row["attributes"]:
        fields["attributes"] = int(row["attributes"])
    return fields


def json_lines(arrays: Iterable[Requests]) -> Iterator[str]:
    """Each row as an object on a line."""
    for rows in arrays:
        for row in rows:
            yield json.dumps(fields_of(row)) + "\n"


def read_json_lines(lines: Iterable[tuple[int, str]]) -> Iterator[TraceRow]:
    """The rows of numbered lines; TraceError names line and column."""
    time = 0
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"line {number}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise TraceError(f"line {number}: not an object")
        row = row_of(value, number, time)
        time = row.time
        yield row


def read_csv(lines: Iterable[tuple[int, str]]) -> Iterator[TraceRow]:
    """The rows of a file with a line of column names; TraceError names line and column."""
    reader = csv.DictReader(line for _, line in lines)
    time = 0
    try:
        for fields in reader:
            told = {name.strip().lower(): value for name, value in fields.items() if name and value}
            row = row_of(told, reader.line_num, time)
            time = row.time
            yield row
    except csv.Error as error:
        raise TraceError(f"line {reader.line_num}: {error}") from error


def row_of(fields: Mapping[str, object], line: int, time: int) -> TraceRow:
    """A row from what is told of it."""

    def told(name: str, otherwise: int, words: Mapping[str, int] | None = None) -> int:
        value = fields.get(name)
        if value is None:
            return otherwise
        try:
            if words is not None and str(value).lower() in words:
                return words[str(value).lower()]
            return _number(value)
        except ValueError as error:
            raise TraceError(f"line {line}, column {name}: {error}") from error

    if "address" not in fields:
        raise TraceError(f"line {line}, column address: missing")
    name = next((name for name in SOURCE_NAMES if name in fields), "source_id")
    source = fields.get(name, 0)
    try:
        source_id = parse_source(source) if isinstance(source, str) and ":" in source else None
    except ValueError as error:
        raise TraceError(f"line {line}, column {name}: {error}") from error
    kind = told("kind", RowKind.DMA, KINDS)
    granted = _GRANTED.get(kind, 0)
    return TraceRow(
        time=told("time", time),
        address=told("address", 0),
        target=told("target", 0),
        length=told("length", 0),
        pasid=told("pasid", NO_PASID),
        source_id=told(name, 0) if source_id is None else source_id,
        kind=kind,
        access=told("access", granted, ACCESSES),
        attributes=told("attributes", 0),
    )


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str | np.integer):
        raise ValueError(f"{value!r} is no number")
    try:
        number = int(value, 0) if isinstance(value, str) else int(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is no number: decimal, or hexadecimal with 0x") from error
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{value!r} does not fit in 64 bits")
    return number
