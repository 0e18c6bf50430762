"""Rows of a trace: made one by one from a log, and checked before anybody believes them.

The columns are those of :mod:`vtd.batch.columns`. Rows are counted from 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from devices.dma import EXECUTE_REQUESTED, NO_SNOOP, READ, WRITE
from devices.source_id import Bdf, SourceId
from vtd.batch.columns import NO_PASID, REQUESTS, Requests, RowKind

ROWS_AT_A_TIME = 1 << 18
"""Rows of a row group: some 10 MB in memory."""
LARGEST_PASID = (1 << 20) - 1
Columns = Mapping[str, NDArray[Any]] | Requests
"""Rows as columns by name: arrays of their own, or of one array of rows."""
C = TypeVar("C", bound=Columns)
KNOWN_ACCESS = READ | WRITE | EXECUTE_REQUESTED | NO_SNOOP
KNOWN_ATTRIBUTES = 0b111
CHECKED = ("time", "address", "length", "pasid", "kind", "access", "attributes")
CHECKED_AT_ONCE = 1 << 13
"""Rows; arrays of more would be new pages for each comparison, which cost more than it."""


class TraceError(ValueError):
    """A trace that can't be used; the message names row and column, or the line of a log."""


def wrong(row: int, column: str, why: str) -> TraceError:
    """What is wrong with one value."""
    return TraceError(f"row {row}, column {column}: {why}")


class TraceRow(NamedTuple):
    """One row, in the order of the columns."""

    time: int
    address: int
    target: int = 0
    length: int = 0
    pasid: int = NO_PASID
    source_id: int = 0
    kind: int = RowKind.DMA
    access: int = READ
    attributes: int = 0


assert TraceRow._fields == REQUESTS.names


def source_text(source_id: int) -> str:
    """``0000:00:02.0``, of a value of column ``source_id``."""
    return str(Bdf(source_id >> 16, SourceId(source_id & 0xFFFF)))


def parse_source(text: str) -> int:
    """The value of column ``source_id`` for ``[segment:]bus:device.function``; ValueError."""
    segment, source_id = Bdf.parse(text)
    return segment << 16 | source_id


def in_arrays(rows: Iterable[TraceRow], size: int = ROWS_AT_A_TIME) -> Iterator[Requests]:
    """The rows as arrays of at most ``size``; TraceError for a value that has no place in one."""
    numbered = iter(rows)
    first = 0
    while some := list(itertools.islice(numbered, size)):
        try:
            yield np.array(some, REQUESTS)
        except (OverflowError, ValueError) as error:
            raise _misfit(some, first) from error
        first += len(some)


def _misfit(rows: list[TraceRow], first: int) -> TraceError:
    for number, row in enumerate(rows, first):
        for name, value in zip(TraceRow._fields, row, strict=True):
            if not 0 <= value <= np.iinfo(REQUESTS[name]).max:
                return wrong(number, name, f"{value} does not fit in {REQUESTS[name]} bits")
    return TraceError(f"rows from {first}: not numbers")


def checked(arrays: Iterable[C], first: int = 0) -> Iterator[C]:
    """The same arrays, each judged first: TraceError names the first row and column at fault.

    ``first`` is the number of their first row.
    """
    before = 0
    for rows in arrays:
        times = rows["time"]
        for start in range(0, len(times), CHECKED_AT_ONCE):
            some = slice(start, start + CHECKED_AT_ONCE)
            _check({name: rows[name][some] for name in CHECKED}, first + start, before)
            before = int(times[some][-1])
        yield rows
        first += len(times)


def follows(row: int, times: NDArray[np.uint64], before: int) -> None:
    """Rows from number ``row`` on have these times; TraceError if the first is ``before`` that."""
    if times[0] < before:
        raise wrong(row, "time", f"{times[0]} is less than {before}, the row before")


def _check(rows: Mapping[str, NDArray[Any]], first: int, before: int) -> None:
    times = rows["time"]
    follows(first, times, before)
    if np.any(times[1:] < times[:-1]):
        at = int(np.argmax(times[1:] < times[:-1])) + 1
        follows(first + at, times[at:], int(times[at - 1]))
    dma = rows["kind"] == RowKind.DMA
    pasid, access = rows["pasid"], rows["access"]
    idle = (access & (READ | WRITE) == 0) | (access | KNOWN_ACCESS != KNOWN_ACCESS)
    end = rows["address"] + np.maximum(rows["length"], 1).astype(np.uint64) - np.uint64(1)
    for column, bad, why in (
        ("kind", rows["kind"] > max(RowKind), f"not one of 0 to {max(RowKind)}"),
        (
            "pasid",
            (pasid > LARGEST_PASID) & (pasid != NO_PASID),
            f"above {LARGEST_PASID:#x}, and not {NO_PASID:#x}, which is none",
        ),
        (
            "access",
            dma & idle,
            "no access of a request",
        ),
        ("length", dma & (end < rows["address"]), "beyond the end of all addresses"),
        ("attributes", rows["attributes"] > KNOWN_ATTRIBUTES, "bits that mean nothing"),
    ):
        if np.any(bad):
            at = int(np.argmax(bad))
            raise wrong(first + at, column, f"{rows[column][at]}: {why}")


def in_order(arrays: Iterable[Requests]) -> Iterator[Requests]:
    """All rows sorted by time, those of the same time in the order that they had; all in memory."""
    every = np.concatenate([np.empty(0, REQUESTS), *arrays])
    every = every[np.argsort(every["time"], kind="stable")]
    for start in range(0, len(every), ROWS_AT_A_TIME):
        yield every[start : start + ROWS_AT_A_TIME]
