"""QEMU with ``vfio-user-pci``: found, asked for its version, started and ended."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROGRAM = "qemu-system-x86_64"
_VERSION = re.compile(r"version (\d+(?:\.\d+)*)")
NEEDED = "vfio-user-pci needs QEMU 10.1 or later"


class QemuError(ValueError):
    """A QEMU that is not there or can't do what is needed: says which, and what is missing."""


class Qemu(NamedTuple):
    """A QEMU that can be used."""

    command: tuple[str, ...]
    version: str


def find_qemu(asked: str | None, known: Sequence[Path] = ()) -> Qemu:
    """The QEMU that is asked for: a path, or words to put before its name, such as chroot's.

    Without one, the first of ``known`` and of the search path that can be used. QemuError if
    there is none.
    """
    if asked:
        return check_qemu(command_of(asked))
    on_path = shutil.which(PROGRAM)
    found = [*(str(path) for path in known if path.exists()), *([on_path] if on_path else [])]
    if not found:
        raise QemuError(f"no {PROGRAM}: {NEEDED}; see vtd live fetch")
    problems = []
    for each in found:
        try:
            return check_qemu((each,))
        except QemuError as error:
            problems.append(str(error))
    raise QemuError("; ".join(problems))


def command_of(asked: str) -> tuple[str, ...]:
    """The command line of a QEMU given by path or prefix."""
    words = shlex.split(asked)
    if not words:
        raise QemuError("no command")
    named = Path(words[-1]).name.startswith("qemu") and not Path(words[-1]).is_dir()
    return (*words, *(() if named else (PROGRAM,)))


def check_qemu(command: tuple[str, ...]) -> Qemu:
    """Ask a QEMU for its version and device; QemuError if it can't be used."""
    name = shlex.join(command)
    said = _run([*command, "--version"], name)
    version = _VERSION.search(said)
    if version is None:
        raise QemuError(f"{name}: no QEMU: {said.strip().partition(chr(10))[0]!r}")
    if "vfio-user-pci options" not in _run([*command, "-device", "vfio-user-pci,help"], name):
        raise QemuError(f"{name}: version {version[1]} has no vfio-user-pci: {NEEDED}")
    return Qemu(command, version[1])


def _run(command: Sequence[str], name: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, errors="replace"
        )
    except OSError as error:
        raise QemuError(f"{name}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise QemuError(f"{name}: does not answer") from error
    return done.stdout + done.stderr
