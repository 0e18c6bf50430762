"""What a boot needs and a machine may lack: QEMU, kernels, programs; fetched with apt's own tools.

On Debian and Ubuntu packages are downloaded from the mirror that the machine itself uses, checked
against the keyring of the distribution by apt, and unpacked below a cache folder: nothing is
installed, and no rights are needed. Where the machine's own release is too old for
``vfio-user-pci``, QEMU comes from the next release beside it, with its libraries. Other systems are
told what to install.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vtd.live.kernel import Kernel, KernelError, find_kernel
from vtd.live.qemu import PROGRAM, QemuError, find_qemu
from vtd.live.tools import PACKAGES, ToolError, keep_tools
from vtd.live.whole_folder import whole_folder
from vtd.live.xen import Xen, XenError, read_xen

NEXT_SUITE = {"debian": "testing", "ubuntu": "devel"}
KERNEL = {"debian": "linux-image-amd64", "ubuntu": "linux-image-generic"}
"""The package that depends on the newest kernel of a release."""
QEMU_PACKAGES = ("qemu-system-x86", "seabios")
XEN = "xen-system-amd64"
"""The package that depends on the Xen of a release."""
_XEN_PACKAGE = re.compile(r"xen-hypervisor-\d\S*-amd64")
_KERNEL_PACKAGE = re.compile(r"linux-(?:image|binary|modules)(?:-extra)?-\d\S*")
PT_INTERP = 3
"""The program header that names an interpreter."""
INSTALL = (
    "QEMU 10.1 or later with vfio-user-pci (qemu-system-x86_64)",
    "a kernel for x86-64 with its modules, as a distribution packages it",
    "busybox, linked statically",
)
"""What other systems have to bring."""


class FetchError(ValueError):
    """Something can't be fetched: says what, and what apt said."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where all of it is: below XDG_CACHE_HOME."""
    home = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "vtd" / "live"


@dataclass(frozen=True)
class Store:
    """The cache folder, and what is in it."""

    folder: Path

    @property
    def qemu(self) -> Path:
        """The program that starts the QEMU of this folder."""
        return self.folder / "qemu" / PROGRAM

    @property
    def busybox(self) -> Path:
        """A static busybox."""
        return self.folder / "busybox"

    @property
    def tools(self) -> Path:
        """Programs that some checks of the guest run."""
        return self.folder / "tools"

    def kernels(self) -> list[Kernel]:
        """The kernels, oldest first."""
        found = []
        for place in self.folder.glob("kernels/*"):
            try:
                found.append(find_kernel(place))
            except KernelError:
                continue
        return sorted(found, key=lambda kernel: version_key(kernel.release))

    def find_kernel(self, asked: str | None, modules: Path | None = None) -> Kernel:
        """A kernel by path, by the beginning of its release, or the newest; KernelError."""
        if asked is not None and (Path(asked).exists() or "/" in asked):
            return find_kernel(Path(asked), modules)
        fitting = [kernel for kernel in self.kernels() if kernel.release.startswith(asked or "")]
        if not fitting:
            named = f" {asked}" if asked else ""
            raise KernelError(f"no kernel{named} in {self.folder}: see vtd live fetch")
        return fitting[-1] if modules is None else find_kernel(fitting[-1].image, modules)

    def xens(self) -> dict[str, Path]:
        """The images of Xen by version, oldest first."""
        found = {path.parts[-3]: path for path in self.folder.glob("xen/*/boot/xen-*.gz")}
        return dict(sorted(found.items(), key=lambda each: version_key(each[0])))

    def find_xen(self, asked: str) -> Xen:
        """Xen by path, or the newest whose version begins like this; XenError."""
        if Path(asked).is_file() or "/" in asked:
            return read_xen(Path(asked))
        fitting = [path for version, path in self.xens().items() if version.startswith(asked)]
        if not fitting:
            raise XenError(f"no Xen {asked} in {self.folder}: see vtd live fetch")
        return read_xen(fitting[-1])

    def read_busybox(self, asked: Path | None = None) -> bytes:
        """A static busybox: the one asked for, that of the store, or the machine's own."""
        places = (
            [asked] if asked else [self.busybox, Path("/bin/busybox"), Path("/usr/bin/busybox")]
        )
        for place in places:
            if place.exists() and _is_static(place):
                return place.read_bytes()
        names = ", ".join(map(str, places))
        raise FetchError(f"no statically linked busybox ({names}): see vtd live fetch")


def version_key(release: str) -> tuple[int, ...]:
    """Releases in their order."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def _is_static(program: Path) -> bool:
    """Whether an ELF file needs no interpreter."""
    data = program.read_bytes()
    if data[:4] != b"\x7fELF":
        return False
    start, size, count = (
        int.from_bytes(data[at : at + length], "little")
        for at, length in ((32, 8), (54, 2), (56, 2))
    )
    headers = (start + number * size for number in range(count))
    return all(int.from_bytes(data[at : at + 4], "little") != PT_INTERP for at in headers)


@dataclass(frozen=True)
class System:
    """The distribution that this machine runs."""

    name: str
    """``debian``, ``ubuntu`` or another, as /etc/os-release says."""
    codename: str

    @classmethod
    def read(cls, os_release: str) -> System:
        """From the text of /etc/os-release."""
        values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
        clean = {key: value.strip("\"'") for key, value in values.items()}
        return cls(clean.get("ID", ""), clean.get("VERSION_CODENAME", ""))

    @property
    def supported(self) -> bool:
        """Whether things can be fetched here."""
        return self.name in NEXT_SUITE and shutil.which("apt-get") is not None


class Apt:
    """apt with lists and packages of its own in ``folder``, for a suite of the machine's mirror."""

    def __init__(self, folder: Path, system: System, suite: str) -> None:
        self.folder = folder
        keyring = keyring_of(system)
        if not keyring.exists():
            raise FetchError(f"{keyring}: not there: signatures can't be checked")
        mirror = _mirror(system)
        for each in ("lists/partial", "cache/archives/partial"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        components = "main" if system.name == "debian" else "main universe"
        (folder / "sources.sources").write_text(
            f"Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: {components}\n"
            f"Signed-By: {keyring}\n"
        )
        self._options = [
            f"Dir::Etc::sourcelist={folder}/sources.sources",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::lists={folder}/lists",
            f"Dir::State::status={folder}/status",
            f"Dir::Cache={folder}/cache",
            "Debug::NoLocking=1",
            f"APT::Sandbox::User={os.environ.get('USER', 'root')}",
        ]

    def update(self) -> None:
        """Read the lists of the suite; a signature that does not fit is an error."""
        self._run("update", "--error-on=any")

    def needed(self, *packages: str) -> list[str]:
        """The packages and all that they depend on."""
        said = self._run("install", "--simulate", "--no-install-recommends", *packages)
        return re.findall(r"^Inst (\S+)", said, re.MULTILINE)

    def version(self, package: str) -> str:
        """The version of a package without its epoch, or nothing."""
        said = self._run("install", "--simulate", "--no-install-recommends", package)
        found = re.search(rf"^Inst {package} \((?:\d+:)?([^\s)]+)", said, re.MULTILINE)
        return found[1] if found else ""

    def download(self, packages: list[str]) -> list[Path]:
        """The package files."""
        folder = self.folder / "packages"
        folder.mkdir(exist_ok=True)
        self._run("download", *packages, cwd=folder)
        names = {package.partition(":")[0] for package in packages}
        return [path for path in folder.glob("*.deb") if path.name.partition("_")[0] in names]

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        options = (word for option in self._options for word in ("-o", option))
        return _run(["apt-get", "-q", "-y", *options, *arguments], cwd)


def keyring_of(system: System) -> Path:
    """The keys that a distribution signs its packages with."""
    return Path(f"/usr/share/keyrings/{system.name}-archive-keyring.gpg")


def _mirror(system: System) -> str:
    """The address that this machine gets its own release from."""
    said = _run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME) $(ORIGIN)",
            "Created-By: Packages",
        ]
    )
    for line in said.splitlines():
        uri, codename, origin = (*line.split(), "", "")[:3]
        if codename == system.codename and origin.lower() == system.name:
            return uri
    raise FetchError(f"apt has no lists of {system.codename}: apt-get update")


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise FetchError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise FetchError(f"{shlex.join(command[:1])}: {words[-1] if words else 'failed'}")
    return done.stdout


def _unpack(packages: list[Path], folder: Path) -> None:
    """Unpack into a folder that is there only when all of it is."""
    with whole_folder(folder) as partial:
        for package in packages:
            _run(["dpkg-deb", "-x", str(package), str(partial)])


def fetch(store: Store, system: System, note: Callable[[str], None]) -> None:
    """Fetch what is missing; ``note`` hears of each thing. FetchError if something can't be had."""
    work = store.folder / "apt"
    own = Apt(work / "own", system, system.codename)
    note(f"lists of {system.codename}")
    own.update()
    _fetch_busybox(store, own, note)
    _fetch_tools(store, own, note)
    _fetch_kernel(store, own, KERNEL[system.name], note)
    _fetch_xen(store, own, note)
    suite = NEXT_SUITE[system.name]
    newer = Apt(work / "next", system, suite)
    note(f"lists of {suite}")
    newer.update()
    _fetch_kernel(store, newer, KERNEL[system.name], note)
    _fetch_xen(store, newer, note)
    _fetch_qemu(store, (own, newer), note)
    shutil.rmtree(work)


def _fetch_busybox(store: Store, apt: Apt, note: Callable[[str], None]) -> None:
    if store.busybox.exists():
        return
    note("busybox")
    folder = store.folder / "busybox-static"
    _unpack(apt.download(["busybox-static"]), folder)
    found = next(
        path for path in (folder / "bin/busybox", folder / "usr/bin/busybox") if path.exists()
    )
    shutil.copy(found, store.busybox)
    shutil.rmtree(folder)


def _fetch_tools(store: Store, apt: Apt, note: Callable[[str], None]) -> None:
    if store.tools.exists():
        return
    note(f"programs of checks: {', '.join(PACKAGES)}")
    folder = apt.folder / "tools"
    _unpack(apt.download(apt.needed(*PACKAGES.values())), folder)
    try:
        keep_tools(folder, store.tools)
    except ToolError as error:
        raise FetchError(str(error)) from error


def _fetch_kernel(store: Store, apt: Apt, package: str, note: Callable[[str], None]) -> None:
    packages = [each for each in apt.needed(package) if _KERNEL_PACKAGE.fullmatch(each)]
    if not packages:
        raise FetchError(f"{package}: it depends on no kernel")
    release = re.sub(r"^linux-[a-z]+-(?:extra-)?", "", packages[0])
    folder = store.folder / "kernels" / release
    if folder.exists():
        return
    note(f"kernel {release}")
    _unpack(apt.download(packages), folder)


def _fetch_xen(store: Store, apt: Apt, note: Callable[[str], None]) -> None:
    packages = [each for each in apt.needed(XEN) if _XEN_PACKAGE.fullmatch(each)]
    if not packages:
        raise FetchError(f"{XEN}: it depends on no Xen")
    version = apt.version(packages[0])
    folder = store.folder / "xen" / version
    if folder.exists():
        return
    note(f"Xen {version}")
    _unpack(apt.download(packages), folder)


def _fetch_qemu(store: Store, suites: tuple[Apt, ...], note: Callable[[str], None]) -> None:
    """QEMU and its libraries from the first suite whose can be used, unless one is there."""
    try:
        found = find_qemu(None, [store.qemu])
    except QemuError:
        pass
    else:
        note(f"QEMU {found.version} is there: {shlex.join(found.command)}")
        return
    problem = ""
    for apt in suites:
        packages = apt.needed(*QEMU_PACKAGES)
        version = apt.version(QEMU_PACKAGES[0])
        if version and version_key(version)[:2] < (10, 1):
            continue
        note(f"QEMU {version} and its libraries, {len(packages)} packages")
        _unpack(apt.download(packages), store.folder / "qemu")
        store.qemu.write_text(WRAPPER)
        store.qemu.chmod(0o755)
        try:
            find_qemu(str(store.qemu))
        except QemuError as error:
            problem = str(error)
        else:
            return
    raise FetchError(problem or "no QEMU that is new enough")


WRAPPER = """\
#!/bin/sh
# QEMU with the libraries and data beside it; nothing of it is installed.
here=$(dirname -- "$(readlink -f -- "$0")")
libraries=$here/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries:$here/lib/x86_64-linux-gnu" \\
	"$here/usr/bin/qemu-system-x86_64" -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@"
"""
