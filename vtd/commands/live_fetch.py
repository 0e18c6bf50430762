"""``vtd live fetch``: what a boot needs, fetched into a cache folder, or what to install."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.live_guest import QemuOption, store
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.live.fetch import INSTALL, FetchError, System
from vtd.live.fetch import fetch as fetch_all
from vtd.live.qemu import QemuError, find_qemu

MISSING = 1
"""Exit code when something is missing still."""
OS_RELEASE = Path("/etc/os-release")


def fetch(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell only what is there and what is missing.")
    ] = False,
    qemu: QemuOption = None,
    format: Output = Format.TEXT,
) -> None:
    """Fetch QEMU, kernels, Xen and busybox for vtd live boot, or tell what to install.

    On Debian and Ubuntu everything comes from the machine's own mirror by apt's tools, with
    signatures checked, into the cache folder; nothing is installed. Exit code 0: all is there.
    1: something is missing. 2: something can't be had.
    """
    known = store()
    with unusable_input("vtd live fetch"):
        system = System.read(OS_RELEASE.read_text() if OS_RELEASE.exists() else "")
        if system.supported and not dry_run:
            known.folder.mkdir(parents=True, exist_ok=True)
            fetch_all(known, system, lambda line: typer.echo(line, err=True))
    row: dict[str, object] = {"folder": known.folder, "supported": system.supported}
    try:
        found = find_qemu(qemu, [known.qemu])
        row |= {"qemu": list(found.command), "version": found.version}
    except QemuError as error:
        row |= {"qemu": None, "problem": str(error)}
    row["kernels"] = [kernel.release for kernel in known.kernels()]
    row["xen"] = list(known.xens())
    try:
        known.read_busybox()
        row["busybox"] = True
    except FetchError:
        row["busybox"] = False
    show(CommandAnswer(row, [row], _lines(row)), format)
    if not (row["qemu"] and row["kernels"] and row["busybox"]):
        raise typer.Exit(MISSING)


def _lines(row: dict[str, object]) -> Iterator[str]:
    qemu = row["qemu"]
    yield f"folder: {row['folder']}"
    if isinstance(qemu, list):
        yield f"QEMU {row['version']}: {' '.join(qemu)}"
    else:
        yield f"QEMU: {row['problem']}"
    for key, name in (("kernels", "kernels"), ("xen", "Xen, for --xen")):
        versions = row[key]
        assert isinstance(versions, list)
        yield f"{name}: {', '.join(versions) or 'none'}"
    yield f"busybox: {'there' if row['busybox'] else 'none that is linked statically'}"
    if not row["supported"]:
        yield "nothing can be fetched here; install:"
        yield from (f"  {each}" for each in INSTALL)
