"""What ``vtd live`` commands share: options, and what a guest is booted with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.file_names import file_to_write
from vtd.commands.names import check_name
from vtd.live.boot import Guest
from vtd.live.defects import DEFECTS
from vtd.live.fetch import Store, cache_folder
from vtd.live.initramfs import FILES
from vtd.live.kernel import Kernel
from vtd.live.qemu import find_qemu
from vtd.live.tools import read_tools
from vtd.unit.caching.policy import POLICIES

QemuOption = Annotated[
    str | None,
    typer.Option("--qemu", metavar="PATH_OR_PREFIX", help="QEMU, or words to put before its name."),
]
BusyboxOption = Annotated[
    Path | None, typer.Option("--busybox", help="A busybox that is linked statically.")
]
XenOption = Annotated[
    str | None,
    typer.Option(
        "--xen",
        metavar="IMAGE",
        help="Xen, which starts first and has the units: an image, or the beginning of the version "
        "of a fetched one. Linux is its first domain, and runs the checks that need no IOMMU.",
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record", help="Write a recording (gzip) for vtd replay.", callback=file_to_write
    ),
]
BreakOption = Annotated[
    list[str] | None,
    typer.Option("--break", metavar="NAME", help="Plant a defect; may be repeated."),
]
COMPILERS = ("cc", "gcc", "clang", "musl-gcc")


def check_served(caches: str, broken: list[str] | None) -> None:
    """Wrong use, if there is no such policy or defect."""
    for name in broken or ():
        check_name(name, DEFECTS, "--break")
    check_name(caches, POLICIES, "--caches")


def note(line: str) -> None:
    """Tell whoever waits for the answer."""
    typer.echo(line, err=True)


def store() -> Store:
    """The cache folder of this user."""
    return Store(cache_folder(os.environ))


def make_guest(
    qemu: str | None, kernel: Kernel, busybox: Path | None, xen: str | None = None
) -> Guest:
    """Everything but the machine; ValueError or OSError names what is missing."""
    known = store()
    return Guest(
        find_qemu(qemu, [known.qemu]),
        kernel,
        known.read_busybox(busybox),
        compile_checks(),
        read_tools(known.tools),
        None if xen is None else known.find_xen(xen),
    )


def compile_checks() -> bytes | None:
    """The checks that are written in C; None, and said why, where they can't be compiled."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        _left_out(f"no C compiler ({', '.join(COMPILERS)})")
        return None
    with tempfile.TemporaryDirectory(prefix="vtd-") as folder:
        program = Path(folder) / "checks"
        command = [compiler, "-static", "-O1", "-xc", "-o", str(program), "-"]
        source = (FILES / "checks.c").read_bytes()
        done = subprocess.run(command, input=source, capture_output=True, check=False)
        if done.returncode:
            _left_out(f"{compiler}: {done.stderr.decode('utf-8', 'replace').strip()[:200]}")
            return None
        return program.read_bytes()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does: nothing is left behind."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _left_out(why: str) -> None:
    typer.echo(f"vtd: VFIO checks are left out: {' '.join(why.split())}", err=True)
