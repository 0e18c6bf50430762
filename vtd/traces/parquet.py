"""Traces as Parquet: columns by the names and types of a row, zstd, addresses as differences.

Any tool that reads Parquet reads them. Files of others need ``time``, ``source_id``, ``address``
and ``length``, of any integer type whose values fit; what else is missing has its default. Both
ways a row group is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from devices.dma import READ
from vtd.batch.columns import NO_PASID, REQUESTS, Requests
from vtd.traces.places import opened, replacing
from vtd.traces.rows import ROWS_AT_A_TIME, TraceError, checked, wrong

READ_AT_A_TIME = 1 << 17
"""Rows; less than a row group, of which the packed form is in memory too."""
MAGIC = b"PAR1"
COLUMNS: tuple[str, ...] = REQUESTS.names or ()
REQUIRED = ("time", "source_id", "address", "length")
DEFAULTS = {"pasid": NO_PASID, "access": READ}
"""Of columns that a file does not have; 0 for the others."""
DIFFERENCES = ("time", "address", "target", "length")
"""Columns whose values are stored as differences; the others as numbers of distinct values."""
SCHEMA = pa.schema(
    [pa.field(name, pa.from_numpy_dtype(REQUESTS[name]), nullable=False) for name in COLUMNS],
    metadata={"vtd": "trace-1"},
)


def write(place: str, arrays: Iterable[Requests]) -> int:
    """Write checked rows to a file; how many there were. The file appears when all is written."""
    count = 0
    with replacing(place) as stream, _writer(stream) as writer:
        for rows in _regrouped(checked(arrays)):
            columns = [pa.array(np.ascontiguousarray(rows[name])) for name in COLUMNS]
            writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), ROWS_AT_A_TIME)
            count += len(rows)
    return count


def _writer(stream: BinaryIO) -> Any:
    return pq.ParquetWriter(
        stream,
        SCHEMA,
        compression="zstd",
        use_dictionary=[name for name in COLUMNS if name not in DIFFERENCES],
        column_encoding=dict.fromkeys(DIFFERENCES, "DELTA_BINARY_PACKED"),
    )


def _regrouped(arrays: Iterable[Requests]) -> Iterator[Requests]:
    """The same rows in arrays of ROWS_AT_A_TIME, the last of fewer."""
    waiting: list[Requests] = []
    count = 0
    for rows in arrays:
        waiting.append(rows)
        count += len(rows)
        if count >= ROWS_AT_A_TIME:
            every = np.concatenate(waiting)
            whole = count - count % ROWS_AT_A_TIME
            for start in range(0, whole, ROWS_AT_A_TIME):
                yield every[start : start + ROWS_AT_A_TIME]
            waiting, count = [every[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def read(place: str, size: int = READ_AT_A_TIME) -> Iterator[Requests]:
    """The rows of a file, checked, in arrays of at most ``size``; TraceError, OSError."""
    for columns in read_columns(place, size=size):
        rows = np.empty(len(columns["time"]), REQUESTS)
        for name in COLUMNS:
            rows[name] = columns[name]
        yield rows


class Part(NamedTuple):
    """Row groups of a file that follow each other."""

    place: str
    first: int
    """The number of the first row."""
    groups: tuple[int, ...]


def parts_of(place: str, rows: int) -> list[Part]:
    """A file in parts of at least so many rows, but for the last one."""
    found: list[Part] = []
    first, count, groups = 0, 0, []
    sizes = group_sizes(place)
    for group, size in enumerate(sizes):
        groups.append(group)
        count += size
        if count >= rows or group == len(sizes) - 1:
            found.append(Part(place, first, tuple(groups)))
            first, count, groups = first + count, 0, []
    return found


def read_columns(
    place: str,
    part: Part | None = None,
    columns: Sequence[str] = COLUMNS,
    size: int = READ_AT_A_TIME,
) -> Iterator[dict[str, NDArray[Any]]]:
    """The rows of a file, or of a part of it, with an array for each column that is wanted."""
    with opened(place) as stream:
        first = 0 if part is None else part.first
        yield from checked(_read(stream, part, columns, size), first)


def _read(
    stream: BinaryIO, part: Part | None, columns: Sequence[str], size: int
) -> Iterator[dict[str, NDArray[Any]]]:
    what = "no Parquet file, or only a part of one"
    try:
        file = pq.ParquetFile(stream)
        names = [name for name in _columns(file.schema_arrow) if name in columns]
        first, groups = (
            (0, range(file.num_row_groups)) if part is None else (part.first, part.groups)
        )
        for group in groups:  # all at once, their packed forms would pile up
            what = f"damaged from row {first} on"
            for batch in file.iter_batches(size, [group], names, use_threads=False):
                yield _arrays(batch, columns, first)
                first += batch.num_rows
                what = f"damaged from row {first} on"
    except (pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise TraceError(f"{what}: {why}") from error


def _columns(schema: Any) -> list[str]:
    for name in REQUIRED:
        if name not in schema.names:
            raise TraceError(f"column {name}: missing; the file has {', '.join(schema.names)}")
    known = [name for name in COLUMNS if name in schema.names]
    for name in known:
        kind = schema.field(name).type
        if not pa.types.is_integer(kind):
            raise TraceError(f"row 0, column {name}: of type {kind}, not {SCHEMA.field(name).type}")
    return known


def _arrays(batch: Any, columns: Sequence[str], first: int) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in columns:
        kind = REQUESTS[name]
        if name not in batch.schema.names:
            found[name] = np.full(batch.num_rows, DEFAULTS.get(name, 0), kind)
            continue
        column = batch.column(name)
        if column.null_count:
            at = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise wrong(first + at, name, "no value")
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype != kind:
            bad = (values < 0) | (values > np.iinfo(kind).max)
            if np.any(bad):
                at = int(np.argmax(bad))
                raise wrong(first + at, name, f"{values[at]} is no {kind}")
            values = values.astype(kind)
        found[name] = values
    return found


def group_sizes(place: str) -> list[int]:
    """How many rows each row group of a file has, from its end."""
    with opened(place) as stream:
        try:
            told = pq.read_metadata(stream)
        except (pa.ArrowException, OSError) as error:
            raise TraceError("no Parquet file, or only a part of one") from error
    return [told.row_group(group).num_rows for group in range(told.num_row_groups)]
