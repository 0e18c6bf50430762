"""What a machine does not show is noted under its name, with the reason."""

from pathlib import Path

import pytest

from vtd.inspection import collecting
from vtd.inspection.collecting import ACPI, DEBUGFS, NAMESPACE, PCI, UNITS, collect
from vtd.inspection.collection import MANIFEST


def test_what_is_missing_is_noted_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LARGEST_FILE", 1 << 20)
    tables, units, devices = tmp_path / ACPI, tmp_path / UNITS, tmp_path / PCI
    for folder in (tables, units, devices / "0000:00:02.0", tmp_path / NAMESPACE / "button"):
        folder.mkdir(parents=True)
    (tables / "APIC").write_bytes(bytes(44))
    (tables / "SSDT").write_bytes(bytes(44))  # not asked for
    (devices / "0000:00:02.0" / "config").write_bytes(bytes(64))
    (devices / "0000:00:02.0" / "resource").write_bytes(bytes(1 << 20 | 1))
    (devices / "0000:00:02.0" / "driver").symlink_to("../drivers/e1000e")
    (tmp_path / DEBUGFS / "deeper").mkdir(parents=True)
    (tmp_path / DEBUGFS / "deeper" / "dump").write_bytes(b"dump")
    (tmp_path / DEBUGFS / "pipe").symlink_to("nowhere")
    files, missing = collect(tmp_path, {"lspci.txt": "not installed", "dmesg.txt": b"a line"})
    assert missing == {
        "acpi/DMAR": "firmware has no DMAR table",
        "pci/0000:00:02.0/resource": "more than 1 MiB",
        "capabilities of PCI functions": "configuration space needs root",
        "iommu/": "nothing in /sys/class/iommu",
        "iomem.txt": "No such file or directory",
        "lspci.txt": "not installed",
    }
    assert {*files.contents} == {
        "acpi/APIC", "pci/0000:00:02.0/config", "debugfs/deeper/dump", "dmesg.txt", MANIFEST,
    }  # fmt: skip
    assert files.links == {"pci/0000:00:02.0/driver": "../drivers/e1000e"}


def test_a_machine_that_shows_nothing_says_so_of_everything(tmp_path: Path) -> None:
    files, missing = collect(tmp_path, {})
    assert {*files.contents} == {MANIFEST}
    assert len(missing) > 4
    assert {*missing.values()} == {"No such file or directory"}
