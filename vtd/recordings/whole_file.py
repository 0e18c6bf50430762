"""The bytes of a file, gzipped or not, as long as there are no more than memory has room for."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import BinaryIO

LARGEST = 256 << 20
"""Bytes, unpacked; a scenario or a list of mappings has some MiB."""


def read_whole(path: Path) -> bytes:
    """The file, unpacked; ValueError if it has more than :data:`LARGEST`, as a device may."""
    with path.open("rb") as file:
        data = read_some(file)
    if data[:2] != b"\x1f\x8b":
        return data
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return read_some(file)


def read_some(file: BinaryIO | gzip.GzipFile) -> bytes:
    """All that a file has; ValueError if that is more than :data:`LARGEST`."""
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"more than {LARGEST >> 20} MiB")
    return data
