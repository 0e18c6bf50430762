"""Xen in front of Linux: its image, how QEMU starts both, and the checks that it leaves to Linux.

Xen has the units. Linux is its first domain: it drives the devices, without an IOMMU of its own.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CONSOLE = "hvc0"
"""Linux's console, which Xen prints."""
ALWAYS = "console=com1 com1=115200,8n1 loglvl=all iommu=verbose dom0_mem=600M"
"""Words for Xen."""
WORKING = "(XEN) I/O virtualisation enabled"
"""What Xen prints once its units translate."""
WITHOUT_IOMMU = (
    *("nvme", "filesystem", "rebind", "rescan", "reset", "virtio", "ioat"),
    *("network", "network_tcp", "ethtool", "nvme_virtual"),
)
"""Checks that Linux passes without an IOMMU."""
STRAY = "stray"
"""The check that provokes a fault by the registers of a device."""
MAGIC = (0x1BADB002).to_bytes(4, "little")
SEARCHED = 8192
"""Bytes from the start of an image in which a multiboot header has to begin."""
ELF32 = b"\x7fELF\x01"


class XenError(ValueError):
    """An image of Xen that is not there or can't be started: the message names it."""


@dataclass(frozen=True)
class Xen:
    """An image as QEMU starts it, and by which name it is told apart."""

    name: str
    image: bytes


def read_xen(path: Path) -> Xen:
    """An image as distributions package it, compressed or not."""
    try:
        data = path.read_bytes()
        image = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise XenError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not image.startswith(ELF32) or MAGIC not in image[:SEARCHED]:
        raise XenError(f"{path}: no image of Xen that starts by multiboot")
    return Xen(path.name.removesuffix(".gz"), image)


def possible(checks: Iterable[str]) -> tuple[str, ...]:
    """Those of ``checks``, lines as guests run them, that are left to Linux."""
    return tuple(line for line in checks if line.partition(" ")[0] in (*WITHOUT_IOMMU, STRAY))


def qemu_arguments(xen: Path, words: str, kernel: Path, line: str, initrd: Path) -> list[str]:
    """What QEMU starts by multiboot: Xen, and as its modules a kernel and the first file system."""
    module = f"{kernel} {line}".replace(",", ",,")  # a comma ends a module
    return [
        *("-kernel", str(xen), "-append", f"{ALWAYS} {words}".rstrip()),
        *("-initrd", f"{module},{str(initrd).replace(',', ',,')}"),
    ]
