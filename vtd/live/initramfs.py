"""The first file system of the guest: a shell, the modules it needs, and the checks.

An archive of ACPI tables comes first where a table is to take the place of the firmware's; the
kernel looks for it there before anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources

from vtd.live.cpio import Archive
from vtd.live.kernel import Kernel

MODULES = ("nvme", "vfio_pci", "vfio_iommu_type1")
OPTIONAL_MODULES = ("crct10dif_generic", "crc64_rocksoft_generic", "crc32c_generic")
"""Checksums that older kernels look for by another name than their modules have."""
OF_CHECKS: Mapping[str, tuple[str, ...]] = {
    "filesystem": ("ext4",),
    "ioat": ("ioatdma",),
    "network": ("igb", "igbvf"),
    "network_tcp": ("igb",),
    "ethtool": ("igb", "igbvf"),
    "collect": ("igb",),
    "sva": ("idxd",),
    "virtio": ("virtio_pci", "virtio_blk"),
}
"""Drivers by the check that needs them: each costs a guest time."""
OF_SCRIPTS = ("ext4", "ioatdma", "igb", "igbvf", "virtio_pci", "virtio_blk")
"""What a script of the user's may need; idxd complains where it has nothing to do."""
WITH_TOOLS = frozenset({"ethtool", "nvme_virtual"})
"""Checks that run programs of a distribution."""
FILES = resources.files("vtd.live") / "guest"
_CHECK = re.compile(r"^check_(\w+)\(\)", re.MULTILINE)


def known_checks() -> tuple[str, ...]:
    """The checks that a guest has, by name."""
    return tuple(_CHECK.findall((FILES / "checks.sh").read_text()))


def build(
    kernel: Kernel,
    busybox: bytes,
    checks: Sequence[str],
    *,
    programs: Mapping[str, bytes] | None = None,
    extra: Mapping[str, bytes] | None = None,
    acpi_tables: Mapping[str, bytes] | None = None,
) -> bytes:
    """The archive for ``kernel``; KernelError if it lacks a module.

    ``checks`` are lines as ``guest/init`` reads them; ``programs`` are files that can be executed:
    at ``bin/checks`` ``guest/checks.c``, compiled, at ``script`` what runs after the checks.
    ``extra`` are further files.
    """
    archive = Archive()
    archive.character_device("dev/console", 5, 1)
    archive.add("bin/busybox", busybox, executable=True)
    archive.add("init", (FILES / "init").read_bytes(), executable=True)
    archive.add("checks.sh", (FILES / "checks.sh").read_bytes())
    archive.add("checks", "".join(f"{line}\n" for line in checks).encode())
    wanted = [each for line in checks for each in OF_CHECKS.get(line.partition(" ")[0], ())]
    wanted += OF_SCRIPTS if "script" in (programs or {}) else ()
    modules = kernel.load_order((*filter(kernel.has, (*OPTIONAL_MODULES, *wanted)), *MODULES))
    archive.add("modules/order", "".join(f"{name}.ko\n" for name in modules).encode())
    for name, content in modules.items():
        archive.add(f"modules/{name}.ko", content)
    for path, content in (programs or {}).items():
        archive.add(path, content, executable=True)
    for path, content in (extra or {}).items():
        archive.add(path, content)
    tables = Archive()
    for name, content in (acpi_tables or {}).items():
        tables.add(f"kernel/firmware/acpi/{name}", content)
    return (tables.pack() if acpi_tables else b"") + archive.pack()
