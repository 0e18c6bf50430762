"""Memory images: raw files, ELF cores, LiME dumps and captures, copied into physical memory.

The format is found by content. An image is checked before memory changes, zero frames stay
untouched memory, and nothing is allocated on the word of a header that the file does not bear out.
Left out: compressed dumps, and everything in a capture but its memory. Memory that another process
keeps writing is not copied but mapped: :meth:`pagetables.memory.PhysicalMemory.map_region`.
"""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Any, NamedTuple

from pagetables.memory import ADDRESS_WIDTH, FRAME_SIZE, PhysicalMemory

CHUNK = 256 * FRAME_SIZE
ELF_MAGIC = b"\x7fELF"
ELF_SEGMENT_SIZES = {32: 32, 64: 56}
COMPRESSED = (b"KDUMP   ", b"makedump")
"""How dumps that are compressed page by page begin: kdump's files, and the same as a stream."""
LIME_MAGIC = b"EMiL"
LIME_HEADER = struct.Struct("<4sIQQ8s")


class ImageError(ValueError):
    """An image that can't be loaded; the text names the file and the field."""


class ImageFormat(Enum):
    """What an image can be."""

    RAW = "raw"
    ELF_CORE = "ELF core"
    LIME = "LiME"
    CAPTURE = "capture"


class Image(NamedTuple):
    """What has been loaded."""

    format: ImageFormat
    regions: tuple[tuple[int, int], ...]
    """The regions added to memory: start and end, ascending."""


class _Span(NamedTuple):
    """Bytes of an image and where they belong."""

    start: int
    length: int
    """Bytes of memory; those the file does not have are zero."""
    offset: int
    """Where the file has the first byte."""
    stored: int
    """How many bytes the file has."""
    field: str
    """What to call it in a message."""

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.start + self.length


def load_image(memory: PhysicalMemory, path: Path, *, base: int | None = None) -> Image:
    """Load a file or, for a capture, a folder into memory that has no region there yet.

    With ``base`` the file is taken as a raw image for that address; without it the content has to
    say what it is. ImageError if the image is truncated, contradicts itself or overlaps memory.
    """
    with _bad(path, OSError):
        folder = path.is_dir()
    if folder:
        return load_capture(memory, path)
    if base is not None:
        return load_raw(memory, path, base)
    with _open(path) as file:
        magic = file.read(8)
    if magic.startswith(ELF_MAGIC):
        return load_elf_core(memory, path)
    if magic.startswith(LIME_MAGIC):
        return load_lime(memory, path)
    if magic in COMPRESSED:
        raise ImageError(
            f"{path}: compressed; dump as ELF (makedumpfile -E, virsh dump --format elf)"
        )
    raise ImageError(f"{path}: neither an ELF core nor LiME; a raw image needs a base address")


def load_raw(memory: PhysicalMemory, path: Path, base: int) -> Image:
    """Load a file as memory from address ``base`` on."""
    with _open(path) as file:
        size = _size(file)
        if size == 0:
            raise ImageError(f"{path}: the file is empty")
        spans = [_Span(base, size, 0, size, f"base {base:#x}")]
        return _copy(memory, path, file, ImageFormat.RAW, spans)


def load_lime(memory: PhysicalMemory, path: Path) -> Image:
    """Load a LiME dump: headers with an address range, each followed by that memory."""
    spans = []
    with _open(path) as file:
        size, offset = _size(file), 0
        while offset < size:
            where = f"header at offset {offset:#x}"
            header = file.read(LIME_HEADER.size)
            if len(header) < LIME_HEADER.size:
                raise ImageError(f"{path}: {where}: truncated")
            magic, version, start, last, _ = LIME_HEADER.unpack(header)
            if magic != LIME_MAGIC:
                raise ImageError(f"{path}: {where}: magic: {magic.hex()} is not LiME's")
            if version != 1:
                raise ImageError(f"{path}: {where}: version: {version} is not 1")
            if last < start:
                raise ImageError(f"{path}: {where}: e_addr: {last:#x} is before s_addr {start:#x}")
            offset += LIME_HEADER.size
            length = last + 1 - start
            spans.append(_Span(start, length, offset, length, where))
            offset += length
            if offset <= size:
                file.seek(offset)
        return _copy(memory, path, file, ImageFormat.LIME, spans)


def load_elf_core(memory: PhysicalMemory, path: Path) -> Image:
    """Load the PT_LOAD segments of an ELF core at their physical addresses.

    Needs pyelftools (the extra ``cores``).
    """
    try:
        from elftools.common.exceptions import ELFError  # noqa: PLC0415 - an optional extra
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415
    except ImportError as error:
        raise ImageError(
            f"{path}: ELF cores need the cores extra: "
            "in the clone, uv tool install '.[cores]' or pip install '.[cores]'"
        ) from error
    with _open(path) as file:
        spans = []
        try:
            elf = ELFFile(file)
            kind, headers = elf["e_type"], elf.num_segments() * elf["e_phentsize"]
            if elf["e_phentsize"] < ELF_SEGMENT_SIZES[elf.elfclass]:
                raise ImageError(f"{path}: e_phentsize: {elf['e_phentsize']} is too small")
            if elf["e_phoff"] + headers > _size(file):
                raise ImageError(f"{path}: e_phnum: the file ends before the last segment header")
            for index, segment in enumerate(elf.iter_segments("PT_LOAD")):
                where = f"PT_LOAD segment {index}"
                start, stored, length, offset = (
                    segment[name] for name in ("p_paddr", "p_filesz", "p_memsz", "p_offset")
                )
                if length < stored:
                    raise ImageError(
                        f"{path}: {where}: p_memsz {length:#x} is less than p_filesz {stored:#x}"
                    )
                if length:
                    spans.append(_Span(start, length, offset, stored, where))
        except ImageError:
            raise
        except (ELFError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ImageError(f"{path}: ELF header: {error}") from error
        if kind != "ET_CORE":
            raise ImageError(f"{path}: e_type: {kind} is not ET_CORE")
        return _copy(memory, path, file, ImageFormat.ELF_CORE, spans)


def load_capture(memory: PhysicalMemory, folder: Path) -> Image:
    """Load the memory of a capture folder: ``index.json`` and ``pages.bin.gz``."""
    index_path, pages_path = folder / "index.json", folder / "pages.bin.gz"
    with _open(index_path) as file, _bad(index_path, ValueError, RecursionError):
        index = json.load(file)
    if not isinstance(index, dict) or index.get("page_size") != FRAME_SIZE:
        raise ImageError(f"{index_path}: page_size: has to be {FRAME_SIZE}")
    stored = _page_addresses(index_path, index, "pages")
    zero = _page_addresses(index_path, index, "zero_pages")
    spans = [
        _Span(address, FRAME_SIZE, number * FRAME_SIZE, FRAME_SIZE, f"pages[{number}]")
        for number, address in enumerate(stored)
    ]
    spans += [
        _Span(address, FRAME_SIZE, 0, 0, f"zero_pages[{number}]")
        for number, address in enumerate(zero)
    ]
    regions = _regions(memory, index_path, spans)
    contents = []
    with (
        _open(pages_path) as packed,
        _bad(pages_path, OSError, EOFError, zlib.error),
        gzip.GzipFile(fileobj=packed) as file,
    ):
        for number in range(len(stored)):
            contents.append(file.read(FRAME_SIZE))
            if len(contents[-1]) < FRAME_SIZE:
                raise ImageError(f"{pages_path}: pages[{number}]: truncated")
        if file.read(FRAME_SIZE):
            raise ImageError(f"{pages_path}: more than the {len(stored)} pages of the index")
    _add(memory, regions)
    for address, data in zip(stored, contents, strict=True):
        memory.load(address, data)
    return Image(ImageFormat.CAPTURE, regions)


def _page_addresses(path: Path, index: dict[str, Any], field: str) -> list[int]:
    """The addresses of one list of the index, items ``[address, kinds]``."""
    items = index.get(field)
    if not isinstance(items, list):
        raise ImageError(f"{path}: {field}: has to be a list")
    addresses: list[int] = []
    for number, item in enumerate(items):
        try:
            text, _ = item
            address = int(text, 16)
        except (TypeError, ValueError) as error:
            raise ImageError(
                f"{path}: {field}[{number}]: has to be a hexadecimal address and a kind"
            ) from error
        if address % FRAME_SIZE:
            raise ImageError(f"{path}: {field}[{number}]: {text} is not the address of a page")
        addresses.append(address)
    return addresses


def _copy(
    memory: PhysicalMemory,
    path: Path,
    file: IO[bytes],
    format_: ImageFormat,
    spans: list[_Span],
) -> Image:
    """Add regions for the spans and copy into them, or ImageError and nothing done."""
    if not spans:
        raise ImageError(f"{path}: no memory in this image")
    size = _size(file)
    for span in spans:
        if span.offset + span.stored > size:
            raise ImageError(
                f"{path}: {span.field}: {span.stored:#x} bytes at offset {span.offset:#x}, "
                f"but the file ends at {size:#x}"
            )
    regions = _regions(memory, path, spans)
    _add(memory, regions)
    with _undo(memory, regions):
        for span in spans:
            file.seek(span.offset)
            _copy_span(memory, path, file.read, span)
    return Image(format_, regions)


def _copy_span(
    memory: PhysicalMemory, path: Path, read: Callable[[int], bytes], span: _Span
) -> None:
    done = 0
    while done < span.stored:
        address = span.start + done
        data = read(min(CHUNK, span.stored - done))
        if not data:
            raise ImageError(f"{path}: {span.field}: truncated while reading")
        for at in range(-(address % FRAME_SIZE), len(data), FRAME_SIZE):
            part = data[max(at, 0) : at + FRAME_SIZE]
            if part.strip(b"\0"):
                memory.load(address + max(at, 0), part)
        done += len(data)


def _regions(memory: PhysicalMemory, path: Path, spans: list[_Span]) -> tuple[tuple[int, int], ...]:
    """Whole-frame regions that hold the spans; ImageError if any two things overlap."""
    regions: list[tuple[int, int]] = []
    previous: _Span | None = None
    for span in sorted(spans):
        if not 0 <= span.start < span.end <= 1 << ADDRESS_WIDTH:
            raise ImageError(
                f"{path}: {span.field}: {span.start:#x}-{span.end:#x} "
                f"is outside {ADDRESS_WIDTH} address bits"
            )
        if previous is not None and span.start < previous.end:
            raise ImageError(
                f"{path}: {span.field}: {span.start:#x}-{span.end:#x} overlaps {previous.field}"
            )
        previous = span
        start, end = span.start & -FRAME_SIZE, -(-span.end & -FRAME_SIZE)
        if regions and start <= regions[-1][1]:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((start, end))
    known = [
        (region.start, region.end, "memory that is there already") for region in memory.regions
    ]
    everything = sorted([*known, *((start, end, "") for start, end in regions)])
    for (_, end, one), (start, _, other) in itertools.pairwise(everything):
        if start < end:
            raise ImageError(f"{path}: the range that meets {start:#x} overlaps {one or other}")
    return tuple(regions)


def _add(memory: PhysicalMemory, regions: tuple[tuple[int, int], ...]) -> None:
    for start, end in regions:
        memory.add_region(start, end - start)


@contextmanager
def _undo(memory: PhysicalMemory, regions: tuple[tuple[int, int], ...]) -> Iterator[None]:
    """Take the regions away again if what follows fails."""
    try:
        yield
    except (ImageError, OSError):
        for start, _ in regions:
            memory.remove_region(start)
        raise


@contextmanager
def _bad(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn these errors into ImageError."""
    try:
        yield
    except ImageError:
        raise
    except errors as error:
        raise ImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, whose errors become ImageError."""
    with _bad(path, OSError):
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: not a regular file")
        with path.open("rb") as file:
            yield file


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size
