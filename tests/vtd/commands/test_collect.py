"""``vtd collect``: what a machine shows in one archive, which stands in for single files."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.vtd.commands.test_dmar_edit import TABLE
from tests.vtd.inspection.test_debugfs import FILES
from vtd.cli import main
from vtd.inspection.collection import MANIFEST

IOMEM = "7b000000-7f7fffff : Reserved\n"
SERIAL = bytes.fromhex("030001000011223344556677")
HOST, MAC = "secret-host", "02:1b:21:aa:bb:cc"


def config(bus: int | None = None) -> bytes:
    """Configuration space of a PCI Express function, a root port if it has a bus behind it."""
    data = bytearray(4096)
    data[0:4] = bytes.fromhex("86803412")
    data[6], data[0x34] = 0x10, 0x40
    data[0x0B] = 6 if bus else 2
    data[0x0A] = 4 if bus else 0
    data[0x40:0x44] = bytes([0x10, 0, 0x42 if bus else 0x02, 0])
    if bus:
        data[0x0E], data[0x19], data[0x1A] = 1, bus, bus
    data[0x100 : 0x100 + len(SERIAL)] = SERIAL
    return bytes(data)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root folder with what Linux shows of a small machine."""
    root = tmp_path / "root"
    files: dict[str, bytes] = {
        "sys/firmware/acpi/tables/DMAR": TABLE,
        "sys/devices/pci0000:00/0000:00:1c.0/config": config(1),
        "sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/config": config(),
        "sys/class/iommu/dmar0/intel-iommu/cap": b"80d2008c222f0606\n",
        "sys/class/iommu/dmar0/intel-iommu/ecap": b"f00f4a\n",
        "sys/class/iommu/dmar0/intel-iommu/version": b"1:0\n",
        "sys/class/iommu/dmar0/intel-iommu/address": b"fed90000\n",
        "sys/bus/acpi/devices/I2C0/path": b"\\_SB_.PCI0.I2C0\n",
        "sys/class/net/eth0/address": MAC.encode(),
        "proc/iomem": IOMEM.encode() + f"80000000-80000fff : {HOST} {MAC}\n".encode(),
        "etc/hostname": HOST.encode(),
    }
    files |= {f"sys/kernel/debug/iommu/intel/{name}": data for name, data in FILES.items()}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True)
    (bus / "0000:00:1c.0").symlink_to("../../../devices/pci0000:00/0000:00:1c.0")
    (bus / "0000:01:00.0").symlink_to("../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0")
    return root


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def collected(machine: Path, *options: str) -> Path:
    archive = machine.parent / "machine.tar.gz"
    result = run("collect", str(archive), "--root", str(machine), *options)
    assert result.exit_code == 0, result.output
    return archive


def unpacked(archive: Path) -> Path:
    folder = archive.parent / "unpacked"
    with tarfile.open(archive) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # as of Python 3.11.4
        packed.extractall(folder)
    return folder


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_every_command_answers_as_from_single_files(machine: Path, form: str) -> None:
    given = str(collected(machine) if form == "archive" else unpacked(collected(machine)))
    table = str(machine / "sys/firmware/acpi/tables/DMAR")
    pci = str(machine / "sys/bus/pci/devices")
    single = ["--lspci", pci, "--memory-map", str(machine / "proc/iomem")]
    registers = ["--registers", "fed90000:80d2008c222f0606:f00f4a:10"]
    (machine / "names").write_text("\\_SB_.PCI0.I2C0\n")
    names = ["--namespace", str(machine / "names")]
    assert findings(run("dmar", "validate", given, "--format", "json")) == findings(
        run("dmar", "validate", table, *single, *registers, *names, "--format", "json")
    )
    for command, bdf in (("scope", ["01:00.0"]), ("audit", [])):
        alone = run("dmar", command, table, *bdf, "--lspci", pci)
        assert run("dmar", command, given, *bdf).stdout == alone.stdout
    assert run("dmar", "rmrr", given).stdout == run("dmar", "rmrr", table, *single).stdout
    assert run("groups", given).stdout == run("groups", pci).stdout
    debugfs = str(machine / "sys/kernel/debug/iommu/intel")
    for command in ("mappings", "irte", "caps"):
        assert run(command, given).stdout == run(command, debugfs).stdout, command


def findings(result: Result) -> list[object]:
    assert result.stdout, result.output
    return [each["findings"] for each in json.loads(result.stdout)]


def test_names_addresses_and_serial_numbers_are_gone_on_request(machine: Path) -> None:
    folder = unpacked(collected(machine, "--redact"))
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for word in (HOST.encode(), MAC.encode(), MAC.replace(":", "").encode(), SERIAL[4:]):
            assert word not in data, path
    assert b"HOST MAC" in (folder / "iomem.txt").read_bytes()
    kept = unpacked(collected(machine))
    assert HOST.encode() in (kept / "iomem.txt").read_bytes()


def test_what_can_not_be_read_is_said(machine: Path) -> None:
    (machine / "proc/iomem").write_text("00000000-00000000 : Reserved\n")
    (machine / "sys/firmware/acpi/tables/DMAR").unlink()
    short = machine / "sys/devices/pci0000:00/0000:00:1c.0/config"
    short.write_bytes(config(1)[:64])
    archive = machine.parent / "machine.tar.gz"
    result = run("collect", str(archive), "--root", str(machine))
    assert result.exit_code == 0
    missing = json.loads((unpacked(archive) / MANIFEST).read_text())["missing"]
    assert missing["iomem.txt"] == "addresses need root"
    assert "needs root" in missing["capabilities of PCI functions"]
    assert "lspci.txt" in missing
    for name in missing:
        assert f"vtd: missing: {name}: " in result.stderr


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    for data in (b"\x1f\x8bnothing", b"\x1f\x8b", bytes(257) + b"ustar" + bytes(300)):
        (tmp_path / "bad.tar.gz").write_bytes(data)
        result = run("dmar", "validate", str(tmp_path / "bad.tar.gz"))
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
    (tmp_path / "dmesg.gz").write_bytes(gzip.compress(b"DMAR: IOMMU enabled\n"))
    assert (
        "unpack a file that is only compressed" in run("explain", str(tmp_path / "dmesg.gz")).stderr
    )
    assert run("collect", str(tmp_path / "a.tar.gz"), "--root", str(tmp_path / "no")).exit_code == 2
