"""Images of Xen are read or refused by name; QEMU is told of Xen, its words, and what it starts."""

import gzip
from pathlib import Path

import pytest

from vtd.live.cells import all_cells, under_xen
from vtd.live.xen import ALWAYS, STRAY, XenError, possible, qemu_arguments, read_xen

IMAGE = b"\x7fELF\x01" + bytes(99) + (0x1BADB002).to_bytes(4, "little") + bytes(999)

PACKED = gzip.compress(IMAGE, mtime=0)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_image_is_read_compressed_or_not(pack: type[bytes], tmp_path: Path) -> None:
    path = tmp_path / "xen-4.20-amd64.gz"
    path.write_bytes(pack(IMAGE))
    xen = read_xen(path)
    assert (xen.name, xen.image) == ("xen-4.20-amd64", IMAGE)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no image of Xen that starts by multiboot"),
        (b"\x7fELF\x02" + IMAGE[5:], "no image of Xen that starts by multiboot"),
        (IMAGE[:5] + bytes(9000) + IMAGE[5:], "no image of Xen that starts by multiboot"),
        (PACKED[:-9], "Compressed file ended"),
        (PACKED[:-4] + b"size", "Incorrect length"),
    ],
    ids=["empty", "64 bits", "no header near the start", "cut", "another length"],
)
def test_another_file_is_no_image(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(XenError, match=why) as refused:
        read_xen(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(XenError, match="image: No such file"):
        read_xen(tmp_path / "image")


def test_commas_end_no_module() -> None:
    said = qemu_arguments(Path("x"), "iommu=no-qinval", Path("k"), "a=1,2 b", Path("f/i,n"))
    named = dict(zip(said[::2], said[1::2], strict=True))
    assert named == {
        "-kernel": "x",
        "-append": f"{ALWAYS} iommu=no-qinval",
        "-initrd": "k a=1,,2 b,f/i,,n",
    }


def test_what_needs_the_units_is_not_left_to_linux() -> None:
    assert possible(("units 2", "nvme every", "vfio", "stray")) == ("nvme every", "stray")
    cells = under_xen(all_cells())
    assert cells["two-units"].boot.checks == (
        *("nvme", "filesystem", "rebind", "rescan", "reset"),
        STRAY,
    )
    assert not {"intx", "sva", "kexec", "kit", "interrupts-xapic"} & set(cells)
    assert not any(cell.noticed or cell.linux_faults for cell in cells.values())
