"""The guest's first file system: what it holds, that its scripts are sound, and the MADT."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vtd.live.kernel_files import BUSYBOX, kernel_folder, module
from tests.vtd.live.newc import read_newc
from vtd.live import madt
from vtd.live.initramfs import FILES, build
from vtd.live.kernel import find_kernel


def test_it_has_a_shell_the_modules_in_order_and_the_checks(tmp_path: Path) -> None:
    kernel = find_kernel(kernel_folder(tmp_path))
    entries = read_newc(
        build(kernel, BUSYBOX, ["units 2", "nvme"], programs={"bin/checks": b"program"})
    )
    assert entries["bin/busybox"].content == BUSYBOX
    assert entries["checks"].content == b"units 2\nnvme\n"
    assert entries["bin/checks"].content == b"program"
    order = entries["modules/order"].content.decode().split()
    assert order == [
        *("nvme_core.ko", "nvme.ko", "vfio.ko", "vfio_pci.ko", "vfio_iommu_type1.ko"),
    ]
    assert all(f"modules/{name}" in entries for name in order)
    assert "script" not in entries


def test_drivers_are_there_for_the_checks_that_need_them_and_for_scripts(tmp_path: Path) -> None:
    folder = kernel_folder(tmp_path)
    drivers = ("ext4", "igb", "ioatdma", "idxd")
    for name in drivers:
        (next(folder.rglob("nvme.ko*")).parent / f"{name}.ko").write_bytes(module())
    kernel = find_kernel(folder)
    script = {"script": b"#!/bin/sh"}
    for checks, programs, there in (
        (["units"], {}, set()),
        (["units", "sva 3"], {}, {"idxd"}),
        (["filesystem", "network igbvf"], {}, {"ext4", "igb"}),
        (["units"], script, {"ext4", "igb", "ioatdma"}),
    ):
        entries = read_newc(build(kernel, BUSYBOX, checks, programs=programs))
        assert {name for name in drivers if f"modules/{name}.ko" in entries} == there
        order = entries["modules/order"].content.decode().split()
        assert there <= {each.removesuffix(".ko") for each in order}


def test_tables_come_first_where_a_kernel_looks_for_them(tmp_path: Path) -> None:
    kernel = find_kernel(kernel_folder(tmp_path))
    data = build(
        kernel, BUSYBOX, [], programs={"script": b"#!/bin/sh"}, acpi_tables={"madt.aml": b"APIC"}
    )
    assert list(read_newc(data))[:4] == [
        *("kernel", "kernel/firmware", "kernel/firmware/acpi", "kernel/firmware/acpi/madt.aml"),
    ]
    assert read_newc(data)["script"].content == b"#!/bin/sh"


@pytest.mark.parametrize("cpus", [1, 2, 5])
def test_the_madt_has_processors_and_no_io_apic(cpus: int) -> None:
    table = madt.without_io_apic(cpus)
    assert table[:4] == b"APIC"
    assert int.from_bytes(table[4:8], "little") == len(table)
    assert sum(table) & 0xFF == 0
    kinds, at = [], 44
    while at < len(table):
        kinds.append(table[at])
        at += table[at + 1]
    assert kinds == [0] * cpus + [4]
    assert at == len(table)


@pytest.mark.parametrize("name", ["init", "checks.sh"])
def test_the_scripts_of_the_guest_are_sound(name: str) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run([shell, "-n"], input=(FILES / name).read_bytes(), check=False)
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_program_of_the_guest_compiles_without_a_warning() -> None:
    command = ["cc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-xc", "-"]
    source = (FILES / "checks.c").read_bytes()
    done = subprocess.run(command, input=source, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
