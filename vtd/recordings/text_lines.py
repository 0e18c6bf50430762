"""Numbered lines of a text file, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from vtd.recordings.values import ScenarioError

LONGEST_LINE = 1 << 26
"""Bytes; a recording has lines of a few KiB at most, a platform log perhaps whole memories."""
CUT = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a gzipped file that is cut or damaged raises."""


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[tuple[int, str]]]:
    """The lines of a text file, gzipped or not, with their numbers from 1 on.

    ScenarioError, when it comes to it, for a line that is no text or too long, and where a gzipped
    file ends before its end.
    """
    with path.open("rb") as file, unzipped(file) as stream:
        yield _numbered(stream)


def unzipped(file: BinaryIO) -> BinaryIO:
    """What is in a file that may be gzipped."""
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(LONGEST_LINE + 1)
            line = raw.decode().strip()
        except CUT as error:
            raise ScenarioError(f"line {number}: the compressed file is cut: {error}") from error
        except UnicodeDecodeError as error:
            raise ScenarioError(f"line {number}: no text: {error.reason}") from error
        if len(raw) > LONGEST_LINE:
            raise ScenarioError(f"line {number}: longer than {LONGEST_LINE >> 20} MiB")
        if not raw:
            return
        yield number, line
