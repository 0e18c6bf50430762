"""Images: what is loaded is what the file says, and lies are refused with memory untouched."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagetables.images import (
    Image,
    ImageError,
    ImageFormat,
    load_capture,
    load_elf_core,
    load_image,
    load_lime,
)
from pagetables.memory import BusError, PhysicalMemory

PAGE = 4096
CONTENT = bytes(range(256)) * 48
"""Three pages."""


def lime(*ranges: tuple[int, bytes], version: int = 1) -> bytes:
    """A LiME dump of these ranges."""
    return b"".join(
        struct.pack("<IIQQQ", 0x4C694D45, version, start, start + len(data) - 1, 0) + data
        for start, data in ranges
    )


def elf_core(*segments: tuple[int, bytes, int], kind: int = 4, **changes: int) -> bytes:
    """An ELF core; segments are physical address, content, size in memory."""
    count = changes.get("phnum", len(segments))
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack(
        "<HHIQQQIHHHHHH",
        kind,
        62,
        1,
        0,
        64,
        0,
        0,
        64,
        changes.get("phentsize", 56),
        count,
        64,
        0,
        0,
    )
    offset = 64 + 56 * len(segments)
    table, contents = b"", b""
    for start, data, size in segments:
        at = changes.get("offset", offset + len(contents))
        stored = changes.get("filesz", len(data))
        table += struct.pack("<IIQQQQQQ", 1, 7, at, start, start, stored, size, 1)
        contents += data
    return header + table + contents


def load(tmp_path: Path, data: bytes, base: int | None = None) -> tuple[PhysicalMemory, Image]:
    path = tmp_path / "image"
    path.write_bytes(data)
    memory = PhysicalMemory()
    return memory, load_image(memory, path, base=base)


def refused(tmp_path: Path, data: bytes, message: str, base: int | None = None) -> None:
    """The image is refused, names its file, and changes nothing."""
    path = tmp_path / "image"
    path.write_bytes(data)
    memory = PhysicalMemory()
    memory.add_region(0x70_0000, PAGE)
    with pytest.raises(ImageError, match=message) as caught:
        load_image(memory, path, base=base)
    assert str(path) in str(caught.value)
    assert [region.start for region in memory.regions] == [0x70_0000]


def test_a_raw_image_is_loaded_at_its_base(tmp_path: Path) -> None:
    memory, image = load(tmp_path, CONTENT + b"tail", base=0x10_0000)
    assert image == Image(ImageFormat.RAW, ((0x10_0000, 0x10_4000),))
    assert memory.read(0x10_0000, len(CONTENT) + 8) == CONTENT + b"tail" + bytes(4)


def test_a_raw_image_may_begin_and_end_anywhere_in_a_page(tmp_path: Path) -> None:
    memory, image = load(tmp_path, CONTENT, base=0x123)
    assert image.regions == ((0, 4 * PAGE),)
    assert memory.read(0, 0x123 + len(CONTENT)) == bytes(0x123) + CONTENT
    memory, _ = load(tmp_path, CONTENT * 200, base=0x123)  # read in several pieces
    assert memory.read(0x123, len(CONTENT) * 200) == CONTENT * 200


def test_zero_pages_are_memory_that_takes_no_memory(tmp_path: Path) -> None:
    memory, _ = load(tmp_path, bytes(PAGE) + b"\1" + bytes(1 << 21), base=0)
    assert set(memory.snapshot()) == {1}
    assert memory.read(1 << 21, 1) == b"\0"


def test_lime_ranges_are_loaded_even_if_they_share_a_page(tmp_path: Path) -> None:
    data = lime((0x1000, CONTENT[:0x800]), (0x1800, b"next"), (0x10_0000, CONTENT))
    memory, image = load(tmp_path, data)
    assert image == Image(ImageFormat.LIME, ((0x1000, 0x2000), (0x10_0000, 0x10_3000)))
    assert memory.read(0x1000, 0x804) == CONTENT[:0x800] + b"next"
    assert memory.read(0x10_0000, len(CONTENT)) == CONTENT


def test_a_core_is_loaded_with_its_zero_memory(tmp_path: Path) -> None:
    data = elf_core((0x10_0000, CONTENT, 1 << 40), (0x4000, b"low", 3), (0x8000, b"", 0))
    memory, image = load(tmp_path, data)
    assert image.format is ImageFormat.ELF_CORE
    assert image.regions == ((0x4000, 0x5000), (0x10_0000, 0x10_0000 + (1 << 40)))
    assert memory.read(0x10_0000, len(CONTENT)) == CONTENT
    assert memory.read(1 << 39, 1) == b"\0"
    assert memory.read(0x4000, 4) == b"low\0"


@pytest.mark.parametrize(("size", "loads"), [(32, True), (31, False)])
def test_a_core_of_32_bits_has_segment_headers_of_32_bytes(
    tmp_path: Path, size: int, loads: bool
) -> None:
    header = b"\x7fELF\1\1\1" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 4, 3, 1, 0, 52, 0, 0, 52, size, 1, 40, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 84, 0x4000, 0x4000, 3, PAGE, 7, 1)
    if loads:
        memory, image = load(tmp_path, header + segment + b"low")
        assert image == Image(ImageFormat.ELF_CORE, ((0x4000, 0x5000),))
        assert memory.read(0x4000, 4) == b"low\0"
    else:
        refused(tmp_path, header + segment + b"low", "e_phentsize: 31 is too small")


def test_cores_need_an_extra_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    refused(tmp_path, elf_core((0, b"x", 1)), r"in the clone, .* or pip install '\.\[cores\]'$")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither an ELF core nor LiME"),
        (b"nothing known", "a raw image needs a base address"),
        (b"KDUMP   " + bytes(4096), "compressed; dump as ELF"),
        (b"makedumpfile" + bytes(4096), "compressed; dump as ELF"),
        (b"EMiL", "header at offset 0x0: truncated"),
        (lime((0, CONTENT))[:-1], "header at offset 0x0: .* the file ends at"),
        (lime((0, CONTENT)) + b"x", "header at offset 0x3020: truncated"),
        (lime((0, CONTENT)) + bytes(32), "offset 0x3020: magic: 00000000"),
        (lime((0, CONTENT), version=2), "version: 2 is not 1"),
        (lime((0x1000, CONTENT), (0x2000, CONTENT)), "overlaps header at offset 0x0"),
        (lime((0x70_0000 - PAGE, CONTENT)), "overlaps memory that is there already"),
        (lime(((1 << 52) - PAGE, CONTENT)), "outside 52 address bits"),
        (struct.pack("<IIQQQ", 0x4C694D45, 1, 8, 6, 0), "e_addr: 0x6 is before s_addr 0x8"),
        (struct.pack("<IIQQQ", 0x4C694D45, 1, 0, (1 << 64) - 1, 0), "the file ends at 0x20"),
        (b"\x7fELF", "ELF header"),
        (b"\x7fELF" + bytes(60), "ELF header"),
        (elf_core((0, b"x", 1))[:80], "e_phnum: the file ends before"),
        (elf_core((0, b"x", 1), phnum=65535), "no memory in this image"),
        (elf_core((0, b"x", 1), phnum=60000), "e_phnum: the file ends before"),
        (elf_core((0, b"x", 1), phentsize=0, phnum=60000), "e_phentsize: 0 is too small"),
        (elf_core((0, b"x", 1), kind=2), "e_type: ET_EXEC is not ET_CORE"),
        (elf_core((0, b"x", 1), kind=0x4242), "e_type: 16962 is not ET_CORE"),
        (elf_core(), "no memory in this image"),
        (elf_core((0, b"xyz", 2)), "segment 0: p_memsz 0x2 is less than p_filesz 0x3"),
        (elf_core((0, b"x", 1 << 50), filesz=1 << 49), "segment 0: .* the file ends at"),
        (elf_core((0, b"x", 1), offset=(1 << 64) - 1), "segment 0: .* the file ends at"),
        (elf_core((0, b"x", 1), (0, b"y", 1)), "segment 1: .* overlaps PT_LOAD segment 0"),
        (elf_core((1 << 60, b"x", 1)), "outside 52 address bits"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    refused(tmp_path, data, message)


@pytest.mark.parametrize(
    ("data", "base", "message"),
    [
        (b"", 0, "the file is empty"),
        (b"x", -1, "outside 52 address bits"),
        (b"xx", (1 << 52) - 1, "outside 52 address bits"),
        (CONTENT, 0x70_0000 - 1, "overlaps memory that is there already"),
    ],
)
def test_a_raw_image_that_does_not_fit_is_refused(
    tmp_path: Path, data: bytes, base: int, message: str
) -> None:
    refused(tmp_path, data, message, base)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(ImageError, match=str(path)):
            load_image(PhysicalMemory(), path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagetables.images._size", lambda file: 3 * len(CONTENT))
    refused(tmp_path, CONTENT, "truncated while reading", base=0)


def write_capture(
    folder: Path,
    pages: list[tuple[int, bytes]],
    zero_pages: list[int],
    index: dict[str, Any] | None = None,
) -> None:
    """A capture folder; ``index`` replaces fields of the index."""
    fields = {
        "page_size": PAGE,
        "pages": [[hex(address), "root"] for address, _ in pages],
        "zero_pages": [[hex(address), "irt"] for address in zero_pages],
    }
    (folder / "index.json").write_text(json.dumps(fields | (index or {})))
    (folder / "pages.bin.gz").write_bytes(gzip.compress(b"".join(data for _, data in pages)))


ONE, TWO = b"\1" * PAGE, b"\2" * PAGE


def test_a_capture_is_exactly_its_pages(tmp_path: Path) -> None:
    write_capture(tmp_path, [(0x1000, ONE), (0x3000, TWO)], [0x2000])
    memory = PhysicalMemory()
    assert load_image(memory, tmp_path) == Image(ImageFormat.CAPTURE, ((0x1000, 0x4000),))
    assert memory.read(0x1000, 3 * PAGE) == ONE + bytes(PAGE) + TWO
    with pytest.raises(BusError):
        memory.read(0x4000, 1)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"page_size": 8192}, "index.json: page_size: has to be 4096"),
        ({"pages": None}, "index.json: pages: has to be a list"),
        ({"zero_pages": {}}, "index.json: zero_pages: has to be a list"),
        ({"pages": [["0x1000", "root"], 5]}, r"pages\[1\]: has to be a hexadecimal address"),
        ({"pages": [["0x1000"]]}, r"pages\[0\]: has to be a hexadecimal address"),
        ({"pages": [[4096, "root"]]}, r"pages\[0\]: has to be a hexadecimal address"),
        ({"pages": [["x", "root"]]}, r"pages\[0\]: has to be a hexadecimal address"),
        ({"pages": [["0x1001", "root"]]}, r"pages\[0\]: 0x1001 is not the address of a page"),
        ({"pages": [["-0x1000", "root"]]}, r"pages\[0\]: .* outside 52 address bits"),
        ({"pages": [["0x10000000000000", "root"]]}, r"pages\[0\]: .* outside 52 address bits"),
        ({"pages": [["0x1000", ""], ["0x1000", ""]]}, r"pages\[1\]: .* overlaps pages\[0\]"),
        ({"zero_pages": [["0x1000", ""]]}, r"overlaps"),
        ({"pages": [["0x700000", "root"]]}, "overlaps memory that is there already"),
        ({"pages": [["0x1000", ""], ["0x2000", ""], ["0x3000", ""]]}, r"pages\[2\]: truncated"),
        ({"pages": [["0x1000", ""]]}, "more than the 1 pages of the index"),
    ],
)
def test_a_capture_that_lies_is_refused(
    tmp_path: Path, index: dict[str, Any], message: str
) -> None:
    write_capture(tmp_path, [(0x1000, ONE), (0x3000, TWO)], [], index)
    memory = PhysicalMemory()
    memory.add_region(0x70_0000, PAGE)
    with pytest.raises(ImageError, match=message):
        load_capture(memory, tmp_path)
    assert len(memory.regions) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("index.json", b"{", "index.json: "),
        ("index.json", b"\xff", "index.json: "),
        ("index.json", b"[" * 100_000, "index.json: "),
        ("index.json", b"[]", "page_size"),
        ("pages.bin.gz", b"not gzip", "pages.bin.gz: "),
        ("pages.bin.gz", gzip.compress(ONE + TWO, mtime=0)[:-9], "pages.bin.gz: "),
        ("pages.bin.gz", gzip.compress(ONE + TWO, mtime=0)[:12] + b"\xff" * 40, "pages.bin.gz: "),
    ],
)
def test_a_capture_with_a_broken_file_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    write_capture(tmp_path, [(0x1000, ONE), (0x3000, TWO)], [])
    (tmp_path / name).write_bytes(data)
    memory = PhysicalMemory()
    with pytest.raises(ImageError, match=message):
        load_capture(memory, tmp_path)
    assert memory.regions == ()


def test_a_capture_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"index\.json"):
        load_image(PhysicalMemory(), tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from([load_lime, load_elf_core]),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 255)), max_size=4),
    st.integers(0, 300),
)
def test_damaged_headers_load_or_are_refused(
    tmp_path: Path, loader: Any, damage: list[tuple[int, int]], cut: int
) -> None:
    if loader is load_lime:
        data = bytearray(lime((0x1000, b"a" * 100), (0x5000, b"b" * 50)))
    else:
        data = bytearray(elf_core((0x1000, b"a" * 40, 100), (0x5000, b"b" * 20, 1 << 30)))
    for at, value in damage:
        if at < len(data):
            data[at] = value
    path = tmp_path / "damaged"
    path.write_bytes(data[:cut])
    memory = PhysicalMemory()
    try:
        loader(memory, path)
    except ImageError:
        assert memory.regions == ()
    else:
        assert memory.regions


def test_a_raw_image_may_end_where_memory_begins(tmp_path: Path) -> None:
    memory = PhysicalMemory()
    memory.add_region(0x70_0000, PAGE)
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    load_image(memory, path, base=0x70_0000 - len(CONTENT))
    assert memory.read(0x70_0000 - PAGE, PAGE) == CONTENT[-PAGE:]
