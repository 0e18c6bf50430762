"""Collections of a guest that ran on our units: every command on them, and what is not in them."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from devices.models.nic82576.controller import MAC
from vtd.cli import main
from vtd.live.cells import all_cells
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine

FOLDER = Path(__file__).parents[2] / "collections"
ROOT, USER = FOLDER / "guest-root.tar.gz", FOLDER / "guest-user.tar.gz"
PLAN = """
[[guest]]
name = "one"
memory = [{{ start = 0, size = "256 MiB" }}]
[[assign]]
guest = "one"
devices = ["{}"]
"""


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    with tarfile.open(ROOT) as packed:
        packed.extraction_filter = getattr(tarfile, "tar_filter", None)  # as of Python 3.11.4
        packed.extractall(tmp_path)
    return tmp_path


def test_the_table_is_the_one_that_the_guest_was_given(unpacked: Path) -> None:
    given = assemble(read_machine(all_cells()["collect"].boot.machine)).table.pack()
    assert (unpacked / "acpi/DMAR").read_bytes() == given


def single_files(folder: Path) -> dict[str, list[str | Path]]:
    """Commands, and what stands in for the collection; the rest of their words come last."""
    table, pci, unit = folder / "acpi/DMAR", folder / "lspci.txt", folder / "iommu/dmar0"
    registers = [(unit / "intel-iommu" / each).read_text().strip() for each in ("cap", "ecap")]
    version = (unit / "intel-iommu/version").read_text().strip().replace(":", "")
    platform: list[str | Path] = ["--lspci", pci, "--memory-map", folder / "iomem.txt"]
    platform += ["--registers", ":".join(["fd000000", *registers, version])]
    platform += ["--namespace", folder / "namespace.txt"]
    return {
        "dmar validate": [table, *platform],
        "dmar audit": [table, "--lspci", pci],
        "dmar rmrr": [table, *platform[:4]],
        "dmar scope": [table, "--lspci", pci, "01:00.0"],
        "dmar show": [table],
        "groups": [pci],
        "caps": [folder / "iommu"],
        "explain": [folder / "dmesg.txt"],
        "machine describe": [folder / "pci", "--table", table, *platform[4:6]],
    }


@pytest.mark.parametrize(
    "command",
    ["dmar validate", "dmar audit", "dmar rmrr", "dmar scope", "dmar show", "groups", "caps",
     "explain", "machine describe"],
)  # fmt: skip
def test_every_command_answers_as_from_single_files(unpacked: Path, command: str) -> None:
    single = single_files(unpacked)[command]
    more = ["01:00.0"] if "01:00.0" in single else []
    alone = run(*command.split(), *single)
    together = run(*command.split(), ROOT, *more)
    assert alone.stdout
    assert together.stdout.replace(f"{ROOT}/", "") == alone.stdout.replace(f"{unpacked}/", "")
    assert together.exit_code == alone.exit_code


def test_a_log_is_explained_on_a_machine_without_a_table(unpacked: Path) -> None:
    """Firmware with VT-d switched off gives none, and that is when people ask why."""
    (unpacked / "acpi/DMAR").unlink()
    alone, together = run("explain", unpacked / "dmesg.txt"), run("explain", unpacked)
    assert "DMAR" in alone.stdout
    assert together.stdout == alone.stdout
    assert (together.exit_code, together.stderr) == (alone.exit_code, "")


def test_groups_are_those_of_the_kernel(unpacked: Path) -> None:
    by_number: dict[str, list[str]] = defaultdict(list)
    for function in sorted((unpacked / "pci").iterdir()):
        by_number[(function / "iommu_group").readlink().name].append(function.name)
    ours = json.loads(run("groups", ROOT, "--format", "json").stdout)["groups"]
    assert sorted(ours) == sorted(by_number.values())
    assert len(ours) == 7


@pytest.mark.parametrize(
    ("device", "code", "said"),
    [
        ("01:00.0", 0, "works"),
        ("00:05.0", 0, "works"),
        ("00:07.0", 1, "HOST-R01"),  # its reserved region
        ("00:1f.2", 2, "HOST-A03"),  # its group
    ],
)
def test_a_plan_is_judged_on_the_machine(tmp_path: Path, device: str, code: int, said: str) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.format(device))
    result = run("passthrough", "plan", tmp_path / "plan.toml", "--dmar", ROOT)
    assert result.exit_code == code, result.output
    assert said in result.stdout


def test_an_ordinary_user_has_no_table_and_is_told() -> None:
    with tarfile.open(USER) as packed:
        names = packed.getnames()
        manifest = packed.extractfile("vtd-collection.json")
        assert manifest is not None
        missing = json.load(manifest)["missing"]
    assert "acpi/DMAR" not in names
    assert missing["acpi/DMAR"] == "Permission denied"
    assert missing["dmesg.txt"] == "dmesg: klogctl: Operation not permitted"
    assert missing["iomem.txt"] == "addresses need root"
    for command in (["dmar", "validate"], ["dmar", "audit"], ["dmar", "rmrr"]):
        result = run(*command, USER)
        assert result.exit_code == 2
        assert "no DMAR table in it" in result.stderr
    assert run("caps", USER).stdout == run("caps", ROOT).stdout
    shown, known = (
        json.loads(run("groups", each, "--format", "json").stdout) for each in (USER, ROOT)
    )
    assert shown["groups"] == known["groups"]  # sysfs tells them to anybody
    assert "the listing has both" in json.dumps(shown["joins"])
    assert "the listing has both" not in json.dumps(known["joins"])


@pytest.mark.parametrize("archive", [ROOT, USER], ids=["root", "user"])
def test_names_addresses_and_serial_numbers_are_gone(archive: Path) -> None:
    serial = bytes.fromhex(MAC.replace(":", "")[:6])
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            stream = packed.extractfile(member) if member.isfile() else None
            data = stream.read() if stream else b""
            for word in (b"a-guest-of-vtd", MAC.encode(), bytes.fromhex(MAC.replace(":", ""))):
                assert word not in data.lower(), member.name
            assert serial not in data, member.name
