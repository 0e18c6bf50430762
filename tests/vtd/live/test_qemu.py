"""A QEMU is found by path, prefix or search path, and one that lacks the device is named."""

from pathlib import Path

import pytest

from tests.vtd.live.fake_qemu import FakeQemu
from vtd.live.qemu import QemuError, command_of, find_qemu


def test_a_path_or_a_prefix_names_it(tmp_path: Path) -> None:
    qemu = FakeQemu(tmp_path)
    assert find_qemu(str(qemu.path)) == ((str(qemu.path),), "11.1.2")
    assert command_of("chroot /tree") == ("chroot", "/tree", "qemu-system-x86_64")
    folder = tmp_path / "qemu-tree"
    folder.mkdir()
    assert command_of(f"chroot {folder}") == ("chroot", str(folder), "qemu-system-x86_64")
    assert command_of("nice /a/qemu-system-x86_64") == ("nice", "/a/qemu-system-x86_64")
    with pytest.raises(QemuError, match="no command"):
        command_of("  ")


def test_the_first_that_can_be_used_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = FakeQemu(tmp_path / "old"), FakeQemu(tmp_path / "new")
    old.says(version="QEMU emulator version 7.2.22", help="Device 'vfio-user-pci' not found")
    monkeypatch.setenv("PATH", str(new.folder))
    assert find_qemu(None, [tmp_path / "absent", old.path]).command == (str(new.path),)
    monkeypatch.setenv("PATH", str(old.folder))
    with pytest.raises(QemuError, match=r"version 7\.2\.22 has no vfio-user-pci: .* 10\.1"):
        find_qemu(None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QemuError, match=r"no qemu-system-x86_64: .*see vtd live fetch"):
        find_qemu(None)


def test_what_is_no_qemu_is_named(tmp_path: Path) -> None:
    with pytest.raises(QemuError, match=r"absent/qemu: No such file"):
        find_qemu(str(tmp_path / "absent/qemu"))
    with pytest.raises(QemuError, match="no QEMU: 'hello'"):
        find_qemu(str(FakeQemu(tmp_path).says(version="hello").path))
