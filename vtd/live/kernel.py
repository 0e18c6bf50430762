"""A kernel and its modules as a distribution packages them, found in a folder and read.

A package that was unpacked has no index of its modules, so what a module depends on is read from
the module itself.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


class KernelError(ValueError):
    """A kernel, or a module, that is not there or can't be read: the message names it."""


@dataclass(frozen=True)
class Kernel:
    """A kernel image, and the folder of its modules."""

    image: Path
    modules: Path

    @cached_property
    def release(self) -> str:
        """What ``uname -r`` will say: it is in the header of the image."""
        return image_release(self.image)

    @cached_property
    def _files(self) -> dict[str, str]:
        paths = sorted(
            os.path.join(folder, name)  # noqa: PTH118 - there are thousands
            for folder, _, names in os.walk(self.modules)
            for name in names
            if name.endswith(_SUFFIXES)
        )
        return {module_name(path.rpartition("/")[2]): path for path in paths}

    @cached_property
    def _built_in(self) -> frozenset[str]:
        listed = self.modules / "modules.builtin"
        try:
            lines = listed.read_text().split()
            return frozenset(module_name(line.rpartition("/")[2]) for line in lines)
        except OSError:
            return frozenset()

    def has(self, name: str) -> bool:
        """Whether there is a module of this name, built in or not."""
        name = name.replace("-", "_")
        return name in self._files or name in self._built_in

    def load_order(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """Modules by name, each after those it depends on; without those that are built in.

        KernelError if one is nowhere.
        """
        found: dict[str, bytes] = {}

        def need(name: str, by: str) -> None:
            name = name.replace("-", "_")
            if name in found or name in self._built_in:
                return
            if name not in self._files:
                raise KernelError(f"{self.modules}: no module {name}{by}")
            content = read_module(Path(self._files[name]))
            for each in dependencies(content):
                need(each, f", which {name} needs")
            found[name] = content

        for each in wanted:
            need(each, "")
        return found


def module_name(file: str) -> str:
    """The name of the module in a file of this name."""
    return file.partition(".")[0].replace("-", "_")


def dependencies(module: bytes) -> list[str]:
    """The modules that one says it depends on."""
    found = _DEPENDS.search(module)
    return [name for name in (found[1].decode().split(",") if found else []) if name]


def read_module(path: Path) -> bytes:
    """A module, unpacked; KernelError if it can't be."""
    try:
        raw = path.read_bytes()
        match path.suffix:
            case ".xz":
                return lzma.decompress(raw)
            case ".gz":
                return gzip.decompress(raw)
            case ".zst":
                return subprocess.run(
                    ["zstd", "-dcq"], input=raw, capture_output=True, check=True
                ).stdout
    except (OSError, EOFError, zlib.error, lzma.LZMAError, subprocess.CalledProcessError) as error:
        raise KernelError(f"{path}: {error}") from error
    return raw


def image_release(image: Path) -> str:
    """The release of a bzImage (Linux/x86 boot protocol, kernel_version); KernelError if none."""
    try:
        with image.open("rb") as file:
            start = file.read(0x10000)
    except OSError as error:
        raise KernelError(f"{image}: {error.strerror}") from error
    if start[0x202:0x206] != b"HdrS":
        raise KernelError(f"{image}: no kernel image of Linux for x86")
    at = 0x200 + int.from_bytes(start[0x20E:0x210], "little")
    release = start[at : at + 256].split(b"\0")[0].split(b" ")[0]
    return release.decode("ascii", "replace")


def find_kernel(place: Path, modules: Path | None = None) -> Kernel:
    """The kernel at ``place``: an image, or a folder with unpacked packages.

    Its modules are in ``modules``, a folder like /lib/modules/6.1.0, or found beside it.
    KernelError if there is none, or several kernels to choose from.
    """
    if place.is_dir():
        images = list(_images(place))
        if not images:
            raise KernelError(f"{place}: no kernel image in it")
        if len(images) > 1:
            names = ", ".join(str(each.relative_to(place)) for each in images)
            raise KernelError(f"{place}: several kernels: name one of {names}")
        place = images[0]
    release = image_release(place)
    folder = modules if modules is not None else _modules_beside(place, release)
    if folder is None:
        raise KernelError(f"{place}: no modules of {release}: say where with --modules")
    if not (folder / "kernel").is_dir():
        raise KernelError(f"{folder}: no modules in it")
    return Kernel(place, folder)


def _images(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("boot/vmlinuz-*"))
    for library in ("lib", "usr/lib"):
        yield from sorted(folder.glob(f"{library}/modules/*/vmlinuz"))
    yield from sorted(folder.glob("vmlinuz*"))


def _modules_beside(image: Path, release: str) -> Path | None:
    if image.name == "vmlinuz" and (image.parent / "kernel").is_dir():
        return image.parent
    for above in image.resolve().parents:
        for library in ("lib", "usr/lib"):
            folder = above / library / "modules" / release
            if (folder / "kernel").is_dir():
                return folder
    return None
