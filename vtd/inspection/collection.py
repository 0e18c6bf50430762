"""What ``vtd collect`` gathers of a machine: named files, in a folder or a tar archive.

The same names in a folder and in an archive. Readers take what they need by name; what is missing,
and why, is in the manifest.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vtd.dmar.listing.sysfs import ADDRESS_NAME, FILES

T = TypeVar("T")

MANIFEST = "vtd-collection.json"
TABLES = "acpi/"
LSPCI, PCI = "lspci.txt", "pci/"
MEMORY_MAP, LOG, NAMESPACE = "iomem.txt", "dmesg.txt", "namespace.txt"
UNITS, DEBUGFS = "iommu/", "debugfs/"
LARGEST = 256 << 20
"""Bytes of all files together; a large server's collection has a few MiB."""
MOST_FILES = 100_000
GZIP = b"\x1f\x8b"
LINKS = ("physfn", "iommu_group")
"""Links of a PCI function that say something of it."""


class CollectionError(ValueError):
    """A folder or archive that is no collection; the message says why."""


@dataclass(frozen=True)
class Files:
    """Contents of files and targets of links, by their path below one folder."""

    contents: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be read, and why."""

    @property
    def is_collection(self) -> bool:
        return MANIFEST in self.contents

    def below(self, folder: str) -> Files:
        """What is below a folder, by the rest of the path."""
        return Files(
            _below(folder, self.contents),
            _below(folder, self.links),
            _below(folder, self.unreadable),
        )

    def text(self, name: str) -> str | None:
        """The text of a file, None if there is no such file."""
        data = self.contents.get(name)
        return None if data is None else data.decode("utf-8", "replace")

    def archive(self) -> bytes:
        """All of it as a gzipped tar archive, the same bytes for the same files."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as archive:
            for path, data in sorted(self.contents.items()):
                entry = tarfile.TarInfo(path)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
            for path, target in sorted(self.links.items()):
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
        return packed.getvalue()


def _below(folder: str, files: Mapping[str, T]) -> dict[str, T]:
    return {path[len(folder) :]: each for path, each in files.items() if path.startswith(folder)}


def manifest(missing: Mapping[str, str]) -> bytes:
    """The file that makes a folder a collection: what is missing in it, and why."""
    return json.dumps({"format": 1, "missing": dict(missing)}, indent=1).encode()


def read_folder(folder: Path) -> Files:
    """All files and links below a folder; CollectionError if there are too many."""
    contents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    size = 0
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        try:
            if path.is_symlink():
                links[name] = str(path.readlink())
            if path.is_file():
                with path.open("rb") as stream:
                    contents[name] = stream.read(LARGEST + 1 - size)
                size += len(contents[name])
        except OSError as error:
            unreadable[name] = error.strerror or str(error)
        if size > LARGEST or len(contents) > MOST_FILES:
            raise CollectionError("too much to be a collection or a copy of sysfs")
    return Files(contents, links, unreadable)


def _walk(folder: Path) -> Iterator[Path]:
    """What is in a folder; behind links, only the functions of ``/sys/bus/pci/devices``."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
            continue
        yield path
        if path.is_symlink() and ADDRESS_NAME.fullmatch(path.name) and path.is_dir():
            yield from (path / name for name in FILES if (path / name).is_file())
            yield from (path / name for name in LINKS if (path / name).is_symlink())


def is_archive(data: bytes) -> bool:
    """Whether the first bytes of a file are those of a tar archive, gzipped or not."""
    return data[:2] == GZIP or data[257:262] == b"ustar"


def read_archive(data: bytes) -> Files:
    """The files of a tar archive, a folder around all of them taken off; CollectionError."""
    contents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                if entry.issym():
                    links[entry.name] = entry.linkname
                stream = archive.extractfile(entry) if entry.isfile() else None
                if stream is None:
                    continue
                contents[entry.name] = stream.read(LARGEST + 1 - size)
                size += len(contents[entry.name])
                if size > LARGEST or len(contents) > MOST_FILES:
                    raise CollectionError("too much to be a collection")
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        only = "; unpack a file that is only compressed first" if data[:2] == GZIP else ""
        raise CollectionError(f"no readable archive{only}") from error
    return _without_top(Files(contents, links))


def _without_top(files: Files) -> Files:
    for path in files.contents:
        if path.rpartition("/")[2] == MANIFEST:
            return files.below(path.removesuffix(MANIFEST))
    return files
