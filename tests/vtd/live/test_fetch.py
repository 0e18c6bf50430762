"""What is fetched and from where, with scripts in the place of apt-get and dpkg-deb."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vtd.live.fake_qemu import FakeQemu
from tests.vtd.live.kernel_files import BUSYBOX, RELEASE, kernel_folder
from tests.vtd.live.test_xen import IMAGE
from vtd.live import fetch as fetching
from vtd.live.fetch import (
    Apt,
    FetchError,
    Store,
    System,
    cache_folder,
    fetch,
    version_key,
)
from vtd.live.kernel import KernelError
from vtd.live.tools import read_tools
from vtd.live.xen import XenError

DEBIAN = 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12"\n'
APT = r"""#!/bin/sh
echo "$@" >>"$LOG"
case " $* " in
*" indextargets "*) echo "http://mirror.example/debian/ bookworm Debian" ;;
*" --simulate "*" linux-image-amd64 "*)
	echo "Inst linux-base (1)"
	echo "Inst linux-image-$RELEASE (6.9)"
	echo "Inst linux-image-amd64 (6.9)" ;;
*" --simulate "*" xen-"*) printf 'Inst %s (%s)\n' xen-hypervisor-4.17-amd64 4.17.5 xen-utils 1 ;;
*" --simulate "*" nvme-cli "*) printf 'Inst %s (1)\n' ethtool nvme-cli libc6 ;;
*" --simulate "*) echo "Inst qemu-system-x86 (1:$QEMU Debian)"; echo "Inst libc6 (2)" ;;
*" download "*)
	for word; do [ "$seen" ] && : >"${word}_1_amd64.deb"; [ "$word" = download ] && seen=1; done
	true ;;
*" update "*) [ -z "$BROKEN" ] || { echo "E: signature is wrong" >&2; exit 100; } ;;
esac
"""
DPKG = r"""#!/bin/sh
case $2 in
*busybox*) mkdir -p "$3/bin" && cp "$FILES/busybox" "$3/bin" ;;
*xen-hyper*) mkdir -p "$3/boot" && cp "$FILES/xen" "$3/boot/xen-4.17-amd64.gz" ;;
*linux-image*) cp -r "$FILES/kernel/." "$3" ;;
*ethtool*) mkdir -p "$3/sbin" && echo tests >"$3/sbin/ethtool" ;;
*nvme-cli*) mkdir -p "$3/usr/sbin" && [ -z "$LACKING" ] && echo manages >"$3/usr/sbin/nvme"; true ;;
*libc6*)
	mkdir -p "$3/lib/x86_64-linux-gnu" && cd "$3/lib/x86_64-linux-gnu" || exit 1
	cp "$FILES/loader" ld-linux-x86-64.so.2
	echo code >libc.so.6 ;;
*qemu-system*) mkdir -p "$3/usr/bin" ;;
esac
"""


LOADER = """#!/bin/sh
[ "$1" = --library-path ] && [ "$3" = --list ] && [ -f "$4" ] || exit 1
echo "	linux-vdso.so.1 (0x00007ffd)"
echo "	libc.so.6 => ${2%%:*}/libc.so.6 (0x00007f00)"
echo "	/lib64/ld-linux-x86-64.so.2 (0x00007f01)"
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty cache folder, and programs that fetch into it."""
    programs, files = tmp_path / "programs", tmp_path / "files"
    programs.mkdir()
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    kernel_folder(files / "kernel")
    (files / "busybox").write_bytes(BUSYBOX)
    (files / "xen").write_bytes(IMAGE)
    (files / "loader").write_text(LOADER)
    (files / "loader").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    values = {"LOG": tmp_path / "log", "FILES": files, "RELEASE": RELEASE, "QEMU": "11.1+ds-3"}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(fetching, "keyring_of", lambda system: keyring)
    folder = tmp_path / "cache"
    folder.mkdir()
    return Store(folder)


@pytest.fixture
def wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQemu:
    """A QEMU that the program in the cache folder starts."""
    (tmp_path / "qemu").mkdir()
    qemu = FakeQemu(tmp_path / "qemu")
    monkeypatch.setattr(fetching, "WRAPPER", f'#!/bin/sh\nexec {qemu.path} "$@"\n')
    return qemu


def test_everything_is_fetched_once(store: Store, wrapper: FakeQemu, tmp_path: Path) -> None:
    told: list[str] = []
    fetch(store, System.read(DEBIAN), told.append)
    assert told == [
        "lists of bookworm",
        "busybox",
        "programs of checks: ethtool, nvme",
        f"kernel {RELEASE}",
        "Xen 4.17.5",
        "lists of testing",
        "QEMU 11.1+ds-3 and its libraries, 2 packages",
    ]
    assert store.read_busybox() == BUSYBOX
    assert [kernel.release for kernel in store.kernels()] == [RELEASE]
    assert store.qemu.stat().st_mode & 0o111
    there = sorted(path.name for path in store.folder.iterdir())
    assert there == ["busybox", "kernels", "qemu", "tools", "xen"]
    assert store.find_xen("4.17").image == store.find_xen("").image == IMAGE
    with pytest.raises(XenError, match=r"no Xen 4\.2 in .*: see vtd live fetch"):
        store.find_xen("4.2")
    tools = read_tools(store.tools)
    assert tools == {
        "bin/ethtool": b"tests\n",
        "bin/nvme": b"manages\n",
        "lib/x86_64-linux-gnu/libc.so.6": b"code\n",
        "lib64/ld-linux-x86-64.so.2": LOADER.encode(),
    }
    told.clear()
    fetch(store, System.read(DEBIAN), told.append)
    assert told[-1] == f"QEMU 11.1.2 is there: {store.qemu}"
    assert not any(each.startswith(("busybox", "kernel", "programs")) for each in told)
    log = (tmp_path / "log").read_text()
    assert "Dir::Etc::sourceparts=-" in log


def test_a_package_without_its_program_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LACKING", "1")
    with pytest.raises(FetchError, match="nvme: not in its package"):
        fetch(store, System.read(DEBIAN), lambda _: None)
    assert read_tools(store.tools) == {}


def test_an_older_qemu_is_passed_over(
    store: Store, wrapper: FakeQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEMU", "10.0.2")
    with pytest.raises(FetchError, match="no QEMU that is new enough"):
        fetch(store, System.read(DEBIAN), lambda _: None)
    assert not store.qemu.exists()


def test_a_qemu_that_does_not_start_is_named(store: Store, wrapper: FakeQemu) -> None:
    wrapper.says(help="no such device")
    with pytest.raises(FetchError, match=r"version 11\.1\.2 has no vfio-user-pci"):
        fetch(store, System.read(DEBIAN), lambda _: None)


def test_what_apt_says_of_a_failure_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(FetchError, match="apt-get: E: signature is wrong"):
        fetch(store, System.read(DEBIAN), lambda _: None)
    assert store.kernels() == []


def test_a_machine_without_lists_or_keyring_can_not_fetch(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = System("debian", "sid")
    with pytest.raises(FetchError, match="apt has no lists of sid"):
        Apt(tmp_path / "apt", other, "sid")
    monkeypatch.setattr(fetching, "keyring_of", lambda system: tmp_path / "absent.gpg")
    with pytest.raises(FetchError, match=r"absent\.gpg: not there: signatures can't be checked"):
        Apt(tmp_path / "apt", System("debian", "bookworm"), "bookworm")


def test_the_lists_come_from_the_mirror_of_the_machine(store: Store, tmp_path: Path) -> None:
    apt = Apt(tmp_path / "apt", System.read(DEBIAN), "testing")
    sources = (apt.folder / "sources.sources").read_text()
    assert "URIs: http://mirror.example/debian/\nSuites: testing\n" in sources
    assert f"Signed-By: {tmp_path}/keyring.gpg" in sources


@pytest.mark.parametrize(
    ("text", "name", "codename"),
    [
        (DEBIAN, "debian", "bookworm"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME="noble"\n', "ubuntu", "noble"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "linuxmint", ""),
        ("ID=fedora\n", "fedora", ""),
        ("", "", ""),
    ],
)
def test_the_system_is_read(text: str, name: str, codename: str) -> None:
    system = System.read(text)
    assert (system.name, system.codename) == (name, codename)
    assert name in ("debian", "ubuntu") or not system.supported


def test_kernels_are_found_by_release_or_path(store: Store, tmp_path: Path) -> None:
    assert store.find_kernel(str(tmp_path / "files" / "kernel")).release == RELEASE
    with pytest.raises(KernelError, match=r"no kernel 6\.1 in .*: see vtd live fetch"):
        store.find_kernel("6.1")
    kernel_folder(store.folder / "kernels" / "one")
    (store.folder / "kernels" / "broken").mkdir()
    assert store.find_kernel("6.9").release == RELEASE
    assert store.find_kernel(None).release == RELEASE


def test_other_modules_go_with_a_release_too(store: Store, tmp_path: Path) -> None:
    kernel_folder(store.folder / "kernels" / "one")
    modules = tmp_path / "others"
    (modules / "kernel").mkdir(parents=True)
    assert store.find_kernel("6.9", modules).modules == modules
    assert store.find_kernel(None, modules).modules == modules
    with pytest.raises(KernelError, match=f"{tmp_path}: no modules in it"):
        store.find_kernel("6.9", tmp_path)


def test_a_path_that_is_not_there_is_said_to_be_none(store: Store) -> None:
    with pytest.raises(KernelError, match=r"/nowhere/vmlinuz: No such file"):
        store.find_kernel("/nowhere/vmlinuz")


def test_a_busybox_with_an_interpreter_is_passed_over(store: Store) -> None:
    header = bytearray(64)
    header[:4] = b"\x7fELF"
    header[32:40] = (64).to_bytes(8, "little")
    header[54:56] = (56).to_bytes(2, "little")
    header[56:58] = (1).to_bytes(2, "little")
    for content in (b"#!/bin/sh", bytes(header) + (3).to_bytes(4, "little") + bytes(52)):
        store.busybox.write_bytes(content)
        with pytest.raises(FetchError, match="no statically linked busybox"):
            store.read_busybox(store.busybox)
    static = bytes(header) + (1).to_bytes(4, "little") + bytes(52)
    store.busybox.write_bytes(static)
    assert store.read_busybox(store.busybox) == static


def test_the_cache_folder_is_the_users() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/a"}) == Path("/a/vtd/live")
    assert cache_folder({}) == Path(os.path.expanduser("~/.cache/vtd/live"))  # noqa: PTH111


def test_releases_have_an_order() -> None:
    releases = ["7.2.12+deb14", "6.1.0-9", "6.12.1", "6.1.0-50"]
    ordered = sorted(releases, key=version_key)
    assert ordered == ["6.1.0-9", "6.1.0-50", "6.12.1", "7.2.12+deb14"]
