"""Programs of a distribution that checks of the guest run, with the libraries that they load."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from vtd.live.whole_folder import whole_folder

PACKAGES = {"ethtool": "ethtool", "nvme": "nvme-cli"}
"""The package of each program."""
LOADER = "lib64/ld-linux-x86-64.so.2"
"""Where programs for x86-64 look for what loads their libraries."""
LIBRARIES = "lib/x86_64-linux-gnu"
_LIBRARY = re.compile(r"=> (/\S+) \(")


class ToolError(ValueError):
    """A program that is not there, or whose libraries are not."""


def keep_tools(unpacked: Path, folder: Path) -> None:
    """Copy the programs and what they load, as the guest is to have them, out of ``unpacked``.

    ``unpacked`` is the content of their packages and of all that they depend on. ToolError if
    something is missing there.
    """
    loader = unpacked / LIBRARIES / Path(LOADER).name
    places = [unpacked / LIBRARIES, unpacked / "usr" / LIBRARIES]
    command = [str(loader), "--library-path", ":".join(map(str, places)), "--list"]
    with whole_folder(folder) as kept:
        _copy(loader, kept / LOADER)
        for name in PACKAGES:
            found = [each for each in unpacked.glob(f"**/*bin/{name}") if each.is_file()]
            if not found:
                raise ToolError(f"{name}: not in its package")
            _copy(found[0], kept / "bin" / name)
            for library in _libraries(command, found[0]):
                if unpacked in library.parents:
                    _copy(library, kept / LIBRARIES / library.name)


def _libraries(command: list[str], program: Path) -> list[Path]:
    """What a program loads, as ``command`` lists it."""
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{program.name}: {' '.join(done.stderr.split())}")
    return [Path(each) for each in _LIBRARY.findall(done.stdout)]


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, to)


def read_tools(folder: Path) -> Mapping[str, bytes]:
    """What the guest gets, by its path there; nothing where nothing was kept."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
