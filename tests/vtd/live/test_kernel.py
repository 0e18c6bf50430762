"""Kernels are found as packages have them; modules come after what they depend on."""

import gzip
from pathlib import Path

import pytest

from tests.vtd.live.kernel_files import RELEASE, image, kernel_folder, module
from vtd.live.kernel import KernelError, dependencies, find_kernel, image_release, read_module


def test_a_module_comes_after_what_it_depends_on(tmp_path: Path) -> None:
    kernel = find_kernel(kernel_folder(tmp_path))
    order = list(kernel.load_order(["nvme", "vfio-pci", "vfio_iommu_type1"]))
    assert order == ["nvme_core", "nvme", "vfio", "vfio_pci", "vfio_iommu_type1"]
    assert kernel.has("crc16")
    assert kernel.has("vfio-pci")
    assert not kernel.has("ext4")
    assert kernel.release == RELEASE


def test_a_kernel_beside_its_modules_is_found_too(tmp_path: Path) -> None:
    kernel_folder(tmp_path / "old")
    modules = tmp_path / "new" / "usr" / "lib" / "modules" / RELEASE
    modules.parent.mkdir(parents=True)
    (tmp_path / "old" / "lib" / "modules" / RELEASE).rename(modules)
    (modules / "vmlinuz").write_bytes(image())
    assert find_kernel(tmp_path / "new").modules == modules
    assert find_kernel(modules / "vmlinuz").modules == modules
    old = tmp_path / "old" / "boot" / f"vmlinuz-{RELEASE}"
    assert find_kernel(old, modules).modules == modules


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = kernel_folder(tmp_path / "kernel")
    drivers = folder / "lib" / "modules" / RELEASE / "kernel" / "drivers"
    (drivers / "ext4.ko").write_bytes(module("jbd2"))
    kernel = find_kernel(folder)
    with pytest.raises(KernelError, match="no module jbd2, which ext4 needs"):
        kernel.load_order(["ext4"])
    with pytest.raises(KernelError, match=r"no module edu$"):
        kernel.load_order(["edu"])
    with pytest.raises(KernelError, match="no kernel image in it"):
        find_kernel(drivers)
    (folder / "boot" / "vmlinuz-6.9.2").write_bytes(image("6.9.2"))
    with pytest.raises(KernelError, match="several kernels"):
        find_kernel(folder)
    with pytest.raises(KernelError, match=r"no modules of 6\.9\.2"):
        find_kernel(folder / "boot" / "vmlinuz-6.9.2")
    with pytest.raises(KernelError, match="no modules in it"):
        find_kernel(folder / "boot" / "vmlinuz-6.9.2", folder)


@pytest.mark.parametrize("content", [b"", b"MZ", bytes(0x1000)])
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    with pytest.raises(KernelError, match="no kernel image of Linux for x86"):
        image_release(path)
    with pytest.raises(KernelError, match="No such file"):
        image_release(tmp_path / "absent")


def test_modules_are_unpacked_or_named(tmp_path: Path) -> None:
    (tmp_path / "a.ko.gz").write_bytes(gzip.compress(module("b", "c")))
    assert dependencies(read_module(tmp_path / "a.ko.gz")) == ["b", "c"]
    assert dependencies(module()) == []
    assert dependencies(b"no module") == []
    (tmp_path / "b.ko.xz").write_bytes(b"broken")
    with pytest.raises(KernelError, match=r"b\.ko\.xz: "):
        read_module(tmp_path / "b.ko.xz")
