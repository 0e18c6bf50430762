"""Kernels and modules that hold no more than what is read of them."""

from __future__ import annotations

import lzma
from pathlib import Path

RELEASE = "6.9.1-test"
BUSYBOX = b"\x7fELF" + bytes(60)
"""A program without an interpreter: it has no program header at all."""


def image(release: str = RELEASE) -> bytes:
    """The header of a bzImage."""
    data = bytearray(0x1000)
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = (0x300).to_bytes(2, "little")
    data[0x500 : 0x500 + len(release) + 8] = release.encode() + b" (maker)"
    return bytes(data)


def module(*depends: str) -> bytes:
    """A module that says what it depends on."""
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=x\0"


def kernel_folder(folder: Path) -> Path:
    """An unpacked package with the modules that guests load."""
    (folder / "boot").mkdir(parents=True)
    (folder / "boot" / f"vmlinuz-{RELEASE}").write_bytes(image())
    modules = folder / "lib" / "modules" / RELEASE
    drivers = modules / "kernel" / "drivers"
    drivers.mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/lib/crc16.ko\n")
    for name, content in {
        "nvme-core": module("crc16"),
        "nvme": module("nvme-core"),
        "vfio": module(),
        "vfio_iommu_type1": module("vfio"),
        "vfio-pci": module("vfio"),
    }.items():
        (drivers / f"{name}.ko.xz").write_bytes(lzma.compress(content))
    return folder
