"""``vtd live boot``, ``matrix`` and ``fetch``, with a program in the place of QEMU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.vtd.live.fake_qemu import FakeQemu
from tests.vtd.live.kernel_files import BUSYBOX, RELEASE, kernel_folder
from tests.vtd.live.newc import read_newc
from tests.vtd.live.test_xen import IMAGE
from vtd.cli import main
from vtd.commands import live_fetch, live_guest
from vtd.live.fetch import FetchError
from vtd.recordings.replay_live import replay_live

FAILED = "check: nvme nvme0n1 512 FAILED: differs\nnote: end\n"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQemu:
    """A cache folder with everything; QEMU and compiler are no real ones."""
    folder = tmp_path / "vtd" / "live"
    kernel_folder(folder / "kernels" / RELEASE)
    (folder / "busybox").write_bytes(BUSYBOX)
    (folder / "qemu").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(live_guest, "COMPILERS", ())
    monkeypatch.setattr(live_fetch, "OS_RELEASE", tmp_path / "os-release")
    return FakeQemu(folder / "qemu")


def vtd(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(main, ["live", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_a_boot_that_goes_well_is_told(qemu: FakeQemu) -> None:
    out, errors = vtd("boot")
    assert "1 check passed, 0 failed, 0 skipped" in out
    assert "0 findings" in out
    assert "vtd: VFIO checks are left out: no C compiler" in errors
    assert "check: units ok" in errors
    row = json.loads(vtd("boot", "6.9", "--format", "json")[0])
    assert row["kernel"] == RELEASE
    assert row["checks"] == [{"name": "units", "state": "ok", "why": ""}]
    assert row["found"] == []


def test_under_xen_linux_runs_the_checks_that_need_no_iommu(qemu: FakeQemu, tmp_path: Path) -> None:
    (tmp_path / "xen").write_bytes(IMAGE)
    qemu.says(said="check: nvme ok\nnote: end\n", console="(XEN) I/O virtualisation enabled\n")
    out, errors = vtd("boot", "--xen", str(tmp_path / "xen"), "--format", "json")
    assert json.loads(out)["kernel"] == f"xen, {RELEASE}"
    left = [line.rpartition(": ")[2] for line in errors.splitlines() if "left out, as" in line]
    assert left == ["units", "domain_types", "vfio"]
    checks = read_newc((qemu.folder / "initrd").read_bytes())["checks"].content.decode().split()
    assert checks == ["nvme", "filesystem", "rebind", "rescan", "reset", "stray"]
    vtd("boot", "--xen", str(tmp_path / "xen"), "--checks", "nvme")
    assert read_newc((qemu.folder / "initrd").read_bytes())["checks"].content == b"nvme\n"
    _, errors = vtd("matrix", "legacy48-strict", "--xen", str(tmp_path / "xen"))
    assert f"xen, {RELEASE}" in errors
    _, errors = vtd("boot", "--xen", "4.20", code=2)
    assert "no Xen 4.20 in " in errors


def test_a_boot_that_goes_wrong_is_told(qemu: FakeQemu, tmp_path: Path) -> None:
    fault = "DMAR: [DMA Read] Request device [00:06.0] fault addr 0x1000 [fault reason 06] x\n"
    qemu.says(said=FAILED + "check: cpus skipped: one processor\n", console=f"[  1.0] {fault}")
    record, console = tmp_path / "boot.jsonl.gz", tmp_path / "console"
    out, _ = vtd("boot", "--record", str(record), "--console", str(console), code=1)
    assert "FOUND check nvme nvme0n1 512: differs" in out
    assert f"{fault}  the unit recorded nothing like it\n" in out
    assert "  skipped: cpus: one processor" in out
    assert "2 findings" in out
    assert console.read_text() == f"[  1.0] {fault}"
    assert replay_live(record).mismatches == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["5.4"], "vtd live boot: no kernel 5.4 in "),
        (["--break", "nothing"], "'nothing': not one of no-page-invalidation"),
        (["--caches", "some"], "'some': not one of default, aggressive, late, off"),
        (["--qemu", "/absent/qemu"], "/absent/qemu: No such file or directory"),
        (["--machine", "/absent.toml"], "/absent.toml: No such file or directory"),
        (["--checks", "units,frob"], "--checks: 'frob': not one of units, unused, remapping, nvme"),
        (["--run", "/absent.sh"], "/absent.sh: No such file or directory"),
        (["--busybox", "/absent"], "no statically linked busybox (/absent)"),
        (["--modules", "/absent", "/dev/null"], "/dev/null: no kernel image of Linux for x86"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(
    qemu: FakeQemu, arguments: list[str], message: str
) -> None:
    out, errors = vtd("boot", *arguments, code=2)
    assert out == ""
    assert message in " ".join(errors.split())


def test_what_a_guest_collected_is_put_into_a_folder(qemu: FakeQemu, tmp_path: Path) -> None:
    said = "check: collect as root ok\nfile: ../collected-root.tar.gz YWJj\nnote: end\n"
    qemu.says(said=said)
    vtd("boot", "--checks", "units", "--collect", str(tmp_path / "new" / "folder"))
    (archive,) = (tmp_path / "new" / "folder").iterdir()
    assert (archive.name, archive.read_bytes()) == ("collected-root.tar.gz", b"abc")
    entries = read_newc((qemu.folder / "initrd").read_bytes())
    assert entries["checks"].content == b"units\ncollect\n"
    assert "python/bin/python3" in entries


@pytest.mark.parametrize(
    ("how", "message"),
    [("killed", "was killed by SIGKILL"), ("broken", "failed (1): no such device")],
)
@pytest.mark.parametrize("command", [["boot"], ["matrix", "intx"]])
def test_a_qemu_that_is_killed_or_fails_is_one_line(
    qemu: FakeQemu, command: list[str], how: str, message: str
) -> None:
    qemu.behave(how)
    out, errors = vtd(*command, code=2)
    assert out == ""
    assert errors.splitlines()[-1].endswith(f"{qemu.path} {message}")


def test_a_machine_that_can_not_be_is_told(qemu: FakeQemu, tmp_path: Path) -> None:
    machine = tmp_path / "machine.toml"
    unit = '[[unit]]\nprofile = "nothing"\nbase = 0xfd000000\n'
    machine.write_text(unit + '[[function]]\nat = "00:04.0"\nmodel = "toaster"\n')
    out, errors = vtd("boot", "--machine", str(machine), code=2)
    assert out == ""
    wrong = vtd("serve", str(machine), code=2)[1]
    assert errors.endswith(wrong)
    assert len(wrong.splitlines()) == 2
    assert all(line.startswith(f"vtd: {machine}:") for line in wrong.splitlines())


def test_cells_are_booted_once(qemu: FakeQemu, tmp_path: Path) -> None:
    results, logs = tmp_path / "results.jsonl", tmp_path / "logs"
    arguments = ["matrix", "intx", "kexec", "--results", str(results), "--logs", str(logs)]
    out, errors = vtd(*arguments)
    assert "2 boots, 2 passed" in out
    assert "the pin of an edu device" in out
    assert errors.count("passed") == 2
    assert len(results.read_text().splitlines()) == 2
    assert {path.name for path in logs.iterdir()} == {
        f"intx-{RELEASE}-1.log",
        f"kexec-{RELEASE}-1.log",
    }
    qemu.says(said=FAILED)
    rows = json.loads(vtd(*arguments, "--format", "json")[0])
    assert [row["verdict"] for row in rows] == ["passed", "passed"]
    vtd(*arguments, "--cpus", "2", code=1)
    recordings = [path for path in logs.iterdir() if path.name.endswith(".jsonl.gz")]
    assert {path.name for path in recordings} == {
        f"intx-{RELEASE}-2.jsonl.gz",
        f"kexec-{RELEASE}-2.jsonl.gz",
    }
    assert all(replay_live(path).mismatches == [] for path in recordings)


def test_a_cell_that_fails_is_told(qemu: FakeQemu) -> None:
    qemu.says(said=FAILED)
    out, _ = vtd("matrix", "intx", code=1)
    assert "check nvme nvme0n1 512: differs" in out
    assert "1 boot, 1 failed" in out
    assert "noticed" in vtd("matrix", "broken:wrong-entry")[0]


def test_cells_are_listed_without_a_boot(qemu: FakeQemu) -> None:
    qemu.path.unlink()
    out, _ = vtd("matrix", "--list", "ats*")
    assert out.splitlines() == [
        "ats                          a disk with a device-TLB",
        "ats-scalable                 the same in scalable mode",
    ]
    rows: list[Any] = json.loads(
        vtd("matrix", "--list", "--random-capabilities", "2", "random:*", "--format", "json")[0]
    )
    assert [row["cell"] for row in rows] == ["random:0.0", "random:0.1"]
    assert all(row["about"].startswith("VER 0x") for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing': no cell of this name"),
        (["--cpus", "0"], "--cpus: '0' is no number from 1 to 32"),
        (["--kernel", "5.4"], "no kernel 5.4 in"),
        (["--random-capabilities", "1", "--set", "x=1"], "'x' is no field of CAP or ECAP"),
        (["--random-capabilities", "1", "--set", "cm"], "'cm' has no number"),
        (["--results", "/dev/null/x"], "Not a directory"),
    ],
)
def test_a_matrix_that_can_not_be_is_one_line(
    qemu: FakeQemu, arguments: list[str], message: str
) -> None:
    out, errors = vtd("matrix", *arguments, code=2)
    assert out == ""
    assert message in " ".join(errors.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("matrix", "intx", "--results", "/absent/x"), "/absent/x: No such file or directory"),
        (("matrix", "intx", "--logs", "/dev/null/x"), "/dev/null/x: Not a directory"),
        (("boot", "--record", "/absent/x"), "/absent/x: No such file or directory"),
        (("boot", "--console", "/absent/x"), "/absent/x: No such file or directory"),
        (("boot", "--collect", "/dev/null/x"), "/dev/null/x: Not a directory"),
    ],
    ids=["results", "logs", "record", "console", "collect"],
)
def test_what_can_not_be_kept_is_told_before_anything_is_booted(
    qemu: FakeQemu, arguments: tuple[str, ...], said: str
) -> None:
    _, errors = vtd(*arguments, code=2)
    assert said in errors
    assert not (qemu.folder / "initrd").exists()


def test_what_is_there_is_told(qemu: FakeQemu) -> None:
    out, _ = vtd("fetch", "--dry-run")
    assert f"QEMU 11.1.2: {qemu.path}" in out
    assert f"kernels: {RELEASE}" in out
    assert "busybox: there" in out
    assert "Xen, for --xen: none" in out
    assert "nothing can be fetched here; install:" in out


def test_what_is_missing_is_told(qemu: FakeQemu, tmp_path: Path) -> None:
    qemu.path.unlink()
    row = json.loads(vtd("fetch", "--dry-run", "--format", "json", code=1)[0])
    assert row["kernels"] == [RELEASE]
    assert row["qemu"] is None or row["version"] is not None


def test_what_can_not_be_had_is_told(
    qemu: FakeQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")

    def fail(*_: object) -> None:
        raise FetchError("apt-get: no network")

    monkeypatch.setattr(live_fetch, "fetch_all", fail)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    out, errors = vtd("fetch", code=2)
    assert (out, errors) == ("", "vtd live fetch: apt-get: no network\n")
