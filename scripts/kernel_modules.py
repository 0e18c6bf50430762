"""Modules built from packaged kernel sources, and scripts that take them to a guest."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path


def self_extracting(commands: str, payload: bytes) -> bytes:
    """A script for the guest that runs ``commands`` with ``payload`` as /tmp/payload."""
    start = f"#!/bin/busybox sh\nexport PATH=/bin\ntail -c {len(payload)} $0 >/tmp/payload\n"
    return f"{start}{commands}exit\n".encode() + payload


def run(command: Sequence[str | Path], folder: Path | None = None) -> None:
    """Run a command; CalledProcessError if it fails."""
    subprocess.run([str(word) for word in command], cwd=folder, check=True)


def unpacked(folder: Path, packages: Sequence[Path]) -> Path:
    """The files of some packages, in one folder."""
    for package in packages:
        run(["dpkg-deb", "-x", package, folder])
    return folder


def source(folder: Path, *parts: str) -> Path:
    """Parts of the kernel source in a package that was unpacked."""
    (archive,) = folder.glob("usr/src/linux-source-*.tar.xz")
    tree = archive.name.removesuffix(".tar.xz")
    wanted = [f"{tree}/{part}" for part in parts]
    run(["tar", "-xJf", archive.name, "--wildcards", *wanted], archive.parent)
    return archive.parent / tree


def headers_in(files: Path) -> Path:
    """The headers among ``files``, which refer to each other there and not where they would be."""
    (headers,) = files.glob("usr/src/linux-headers-*-amd64")
    makefile = headers / "Makefile"
    makefile.write_text(re.sub("(?<=[ =])/usr/src", f"{files}/usr/src", makefile.read_text()))
    return headers


def build_modules(headers: Path, work: Path, *options: str) -> None:
    """Build the modules that the Makefile of ``work`` names."""
    run(["make", "-C", headers, f"M={work.resolve()}", *options, "modules"])
    for module in work.rglob("*.ko"):
        run(["strip", "-g", module])
