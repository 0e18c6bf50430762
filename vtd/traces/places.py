"""Where traces and results lie: a path, or an address that fsspec opens (``s3://...``).

A file appears under its name when all of it is written, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def is_address(place: str) -> bool:
    """Whether fsspec has to open it."""
    return "://" in place


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """A file to read; OSError or ValueError if it can't be."""
    if not is_address(place):
        with Path(place).open("rb") as stream:
            yield stream
        return
    import fsspec  # noqa: PLC0415 - an extra

    with _missing_packages(), fsspec.open(place, "rb") as stream:
        yield stream


@contextmanager
def replacing(place: str) -> Iterator[BinaryIO]:
    """A file to write, that takes its place when the block ends, and leaves nothing if it fails."""
    if is_address(place):
        yield from _replacing_remote(place)
        return
    path = Path(place)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as stream:
            yield stream
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _replacing_remote(place: str) -> Iterator[Any]:
    import fsspec  # noqa: PLC0415 - an extra

    with _missing_packages():
        system, path = fsspec.core.url_to_fs(place)
    with system.transaction, system.open(path, "wb") as stream:
        yield stream


@contextmanager
def _missing_packages() -> Iterator[None]:
    """What fsspec says if a file system needs a package that is not there, as a ValueError."""
    try:
        yield
    except ImportError as error:
        raise ValueError(str(error)) from error


def size_of(place: str) -> int:
    """Bytes."""
    if not is_address(place):
        return Path(place).stat().st_size
    import fsspec  # noqa: PLC0415 - an extra

    system, path = fsspec.core.url_to_fs(place)
    return int(system.size(path))
