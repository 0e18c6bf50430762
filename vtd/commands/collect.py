"""``vtd collect``: one archive of what the other commands use from a Linux machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.file_names import file_to_write
from vtd.commands.reading import unusable_input
from vtd.inspection import collection
from vtd.inspection.collecting import collect as collect_files
from vtd.inspection.redaction import Redaction

PRINTED = {
    collection.LSPCI: ["lspci", "-D", "-nn", "-vvv"],
    collection.LOG: ["dmesg"],
}
PATIENCE = 60
"""Seconds a program may take."""


def collect(
    output: Annotated[
        Path,
        typer.Argument(metavar="ARCHIVE", help="The .tar.gz to write.", callback=file_to_write),
    ],
    redact: Annotated[
        bool, typer.Option(help="Take out host names, MAC addresses and serial numbers.")
    ] = False,
    root: Annotated[
        Path, typer.Option(help="Where the files of the machine are; no program is run elsewhere.")
    ] = Path("/"),
) -> None:
    """Write tables, PCI functions, memory map, log, registers and dumps into one archive.

    Every command takes the archive in place of single files. An ordinary user gets what is
    readable; what is missing is said here and in the archive.
    """
    with unusable_input(str(root)):
        list(root.iterdir())
        cleaning = _redaction(root) if redact else None
        printed = {name: _printed(words) for name, words in PRINTED.items()}
        if root != Path("/"):
            printed = dict.fromkeys(PRINTED, f"not run: {root} is not this machine")
        files, missing = collect_files(root, printed, cleaning)
    with unusable_input(str(output)):
        output.write_bytes(files.archive())
    for name, reason in missing.items():
        typer.echo(f"vtd: missing: {name}: {reason}", err=True)
    typer.echo(f"{output}: {len(files.contents)} files, {len(missing)} parts missing")


def _printed(words: list[str]) -> bytes | str:
    """What a program prints, or why it prints nothing."""
    try:
        run = subprocess.run(words, capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return getattr(error, "strerror", None) or str(error)
    if run.returncode or not run.stdout:
        return run.stderr.decode("utf-8", "replace").strip() or f"exit code {run.returncode}"
    return run.stdout


def _redaction(root: Path) -> Redaction:
    """What identifies this machine."""
    names = {platform.node(), platform.node().partition(".")[0]} if root == Path("/") else set()
    for file in ("etc/hostname", "proc/sys/kernel/hostname"):
        path = root / file
        if path.is_file():
            name = path.read_text("utf-8", "replace").strip()
            names |= {name, name.partition(".")[0]}
    addresses = [
        path.read_text("utf-8", "replace")
        for path in (root / "sys/class/net").glob("*/address")
        if path.is_file()
    ]
    return Redaction(names, addresses)
