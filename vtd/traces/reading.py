"""A trace of any form: told apart by how it begins, read as checked arrays of rows.

Parquet, JSON lines and CSV hold rows; logs and recordings are made into rows as they are read. gzip
around text does not matter.
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from vtd.batch.columns import Requests
from vtd.recordings.live import begins_live
from vtd.traces import block_log, linux_log, parquet, qemu_log, recorded, text
from vtd.traces.places import is_address, opened
from vtd.traces.rows import ROWS_AT_A_TIME, TraceError, TraceRow, checked, in_arrays, in_order

Lines = Iterable[tuple[int, str]]
GZIP = b"\x1f\x8b"
BEGINNING = 100_000
"""Lines among which one has to say what kind of log it is."""
LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Reading:
    """How a trace is to be read."""

    form: str | None = None
    """One of :data:`FORMS`; None: as it looks."""
    source: int | None = None
    """The source where the log does not name it."""
    sort: bool = False
    """Whether rows are sorted by time first, in memory."""


FORMS = {
    "parquet": "columns of rows",
    "jsonl": "a row a line, as JSON",
    "csv": "a row a line, after a line of names",
    "recording": "live-1, what our units saw",
    "qemu": "QEMU's vtd_* trace lines, HyperSIO's logs",
    "linux": "iommu and dma events: ftrace, trace-cmd, perf script",
    "block": "block requests: blkparse, ftrace, perf script",
}


def read_trace(
    place: str, how: Reading = Reading(), stdin: BinaryIO | None = None
) -> Iterator[Requests]:
    """The rows of a trace, ``-`` for ``stdin``; TraceError says what is wrong and where."""
    form = how.form
    if place == "-":
        if stdin is None:
            raise TraceError("stdin is closed")
        arrays = _text(stdin, form, how)
    else:
        with opened(place) as stream:
            start = stream.read(1 << 12)
        form = form or ("parquet" if start.startswith(parquet.MAGIC) else None)
        if form == "parquet":
            arrays = parquet.read(place)
        elif form == "recording" or (form is None and begins_live(_plain(start))):
            if is_address(place):
                raise TraceError("a recording has to be a file of this machine")
            arrays = in_arrays(recorded.read(Path(place)))
        else:
            arrays = _text_file(place, form, how)
    return in_order(arrays) if how.sort else checked(arrays)


def _plain(start: bytes) -> bytes:
    return zlib.decompressobj(47).decompress(start) if start.startswith(GZIP) else start


def _text_file(place: str, form: str | None, how: Reading) -> Iterator[Requests]:
    with opened(place) as stream:
        yield from _text(stream, form, how)


def _text(stream: BinaryIO, form: str | None, how: Reading) -> Iterator[Requests]:
    with _cut():
        lines = _lines(stream)
        beginning = list(itertools.islice(lines, BEGINNING))
        if not any(line.strip() for _, line in beginning):
            raise TraceError("empty")
        form = form or _form([line for _, line in beginning])
        rows = _reader(form, how.source)(itertools.chain(beginning, lines))
        first = next(rows, None)
        if first is None:
            raise TraceError(f"no row in it: {FORMS[form]}")
        yield from in_arrays(itertools.chain([first], rows), ROWS_AT_A_TIME)


@contextmanager
def _cut() -> Iterator[None]:
    """A compressed file that ends early, as a TraceError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"not all of a gzip file: {error}") from error


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    buffered = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
    start = buffered.peek(2)[:2] if isinstance(buffered, io.BufferedReader) else b""
    plain = gzip.GzipFile(fileobj=buffered) if start == GZIP else buffered
    number = 0
    while line := plain.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise TraceError(f"line {number}: longer than {LONGEST_LINE >> 20} MiB")
        yield number, line.decode("utf-8", "replace").rstrip("\r\n")


def _form(lines: list[str]) -> str:
    first = next(line.strip() for line in lines if line.strip())
    if first.startswith("{"):
        return "jsonl"
    if "address" in first.lower().split(","):
        return "csv"
    for name, recognizes in _RECOGNIZES.items():
        if any(recognizes(line) for line in lines):
            return name
    raise TraceError(f"line 1: none of {', '.join(FORMS)}: {first[:60]!r}")


_RECOGNIZES: dict[str, Callable[[str], bool]] = {
    "qemu": qemu_log.recognizes,
    "linux": linux_log.recognizes,
    "block": block_log.recognizes,
}


def _reader(form: str, source: int | None) -> Callable[[Lines], Iterator[TraceRow]]:
    readers: dict[str, Callable[[Lines], Iterator[TraceRow]]] = {
        "jsonl": text.read_json_lines,
        "csv": text.read_csv,
        "qemu": qemu_log.read,
        "linux": partial(linux_log.read, source=source),
        "block": partial(block_log.read, source=source),
    }
    return readers[form]
