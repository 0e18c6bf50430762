"""``vtd live matrix``: every cell on every kernel, with a table of how each ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND
from vtd.commands.extras import needing
from vtd.commands.file_names import file_to_write
from vtd.commands.live_guest import (
    BusyboxOption,
    QemuOption,
    XenOption,
    ended_by_signals,
    make_guest,
    store,
)
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.layouts.registers import Capability, ExtendedCapability
from vtd.live.boot import Guest, Outcome
from vtd.live.cells import Cell, all_cells, under_xen
from vtd.live.matrix import KIT, Result, Verdict, boot_cell, chosen, read_results
from vtd.live.qemu import Qemu, find_qemu
from vtd.live.random_capabilities import random_cells

SHOWN = 3
"""Findings of a cell that are listed."""


def matrix(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]...", help="Names of cells, with * and ?; all of them."),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(help="As of vtd live boot; may be repeated. All fetched ones if not given."),
    ] = None,
    cpus: Annotated[str, typer.Option(help="Numbers of processors, with commas.")] = "1",
    results: Annotated[
        Path | None,
        typer.Option(
            help="Keep results there, a line each; what it has is not booted again.",
            callback=file_to_write,
        ),
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(help="Folder for what guests said, and for recordings of boots that failed."),
    ] = None,
    random_capabilities: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Instead of the cells, N units with capabilities at random."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the random units.")] = 0,
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Of CAP or ECAP, for every random unit."),
    ] = None,
    xen: XenOption = None,
    listed: Annotated[bool, typer.Option("--list", help="List the cells and boot none.")] = False,
    qemu: QemuOption = None,
    busybox: BusyboxOption = None,
    format: Output = Format.TEXT,
) -> None:
    """Boot the cells of the matrix one after the other, and judge each.

    Exit code 0: every cell passed, showed the Linux fault that is expected of it, or noticed the
    defect that was planted. 1: some cell failed. 2: wrong use, or something is missing.
    """
    with unusable_input("vtd live matrix"):
        known = (
            random_cells(random_capabilities, seed, _fields(changed))
            if random_capabilities
            else all_cells()
        )
        cells = chosen(known if xen is None else under_xen(known), patterns or [])
    if listed:
        rows = [{"cell": cell.name, "about": cell.about} for cell in cells]
        show(CommandAnswer(rows, rows, (f"{c.name:28} {c.about}" for c in cells)), format)
        return
    with unusable_input("vtd live matrix"):
        counts = [_count(each) for each in cpus.split(",")]
        place = store()
        kits = [find_qemu(qemu, [place.qemu])] if any(each.kit for each in cells) else []
        guests: list[Guest] = []
        if not all(each.kit for each in cells):
            kernels = [place.find_kernel(each) for each in kernel] if kernel else place.kernels()
            kernels = kernels or [place.find_kernel(None)]
            guests = [make_guest(qemu, each, busybox, xen) for each in kernels]
        with ended_by_signals(), needing("fuzz", "live matrix"):
            found = list(_all(cells, guests, kits, counts, Keeper(results, logs)))
    answered = [each.to_json() for each in found]
    show(CommandAnswer(answered, answered, _lines(found)), format)
    if any(each.verdict is Verdict.FAILED for each in found):
        raise typer.Exit(FOUND)


def _fields(texts: list[str] | None) -> dict[str, int]:
    fields = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if name not in (*Capability.FIELDS, *ExtendedCapability.FIELDS):
            raise ValueError(f"--set: {name!r} is no field of CAP or ECAP")
        try:
            fields[name] = int(value, 0)
        except ValueError:
            raise ValueError(f"--set: {text!r} has no number") from None
    return fields


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 32:
        raise ValueError(f"--cpus: {text!r} is no number from 1 to 32")
    return int(text)


@dataclass(frozen=True)
class Keeper:
    """Where results and what the guests said are kept, if anywhere."""

    results: Path | None
    logs: Path | None

    def known(self) -> dict[tuple[str, str, int], Result]:
        """The results that are there already; OSError if more can't be put there."""
        if self.results is None:
            return {}
        self.results.open("a").close()
        return {each.key: each for each in read_results(self.results)}

    def boot(self, cell: Cell, guest: Guest | Qemu, cpus: int) -> Result:
        """Boot a cell; the recording of one that failed stays beside what its guest said."""
        said: list[str] = []
        log = record = None
        if self.logs is not None:
            self.logs.mkdir(parents=True, exist_ok=True)
            name = f"{cell.name}-{_release(guest)}-{cpus}".replace(":", "-")
            log, record = self.logs / f"{name}.log", self.logs / f"{name}.jsonl.gz"
            cell = replace(cell, boot=replace(cell.boot, record=record))

        def keep(_: Cell, outcome: Outcome) -> None:
            if log is not None:
                log.write_text("\n".join([*said, "", outcome.console]))

        result = boot_cell(cell, guest, cpus, time.monotonic_ns, said.append, keep)
        if record is not None and result.verdict is not Verdict.FAILED:
            record.unlink(missing_ok=True)
        if self.results is not None:
            with self.results.open("a") as file:
                file.write(json.dumps(result.to_json()) + "\n")
        return result


def _release(guest: Guest | Qemu) -> str:
    return KIT if isinstance(guest, Qemu) else guest.release


def _all(
    cells: Iterable[Cell],
    guests: list[Guest],
    kits: list[Qemu],
    counts: list[int],
    keeper: Keeper,
) -> Iterator[Result]:
    """The results that there are, and those of the boots that are left."""
    done = keeper.known()
    for cell in cells:
        for guest in kits if cell.kit else guests:
            for cpus in [1] if cell.kit else counts:
                result = done.get((cell.name, _release(guest), cpus))
                result = result or keeper.boot(cell, guest, cpus)
                typer.echo(_line(result), err=True)
                yield result


def _line(result: Result) -> str:
    where = f"{result.cell:28} {result.kernel:22} {result.cpus}"
    return f"{where}  {result.verdict.value:11} {result.checks:3} checks  {result.seconds:5} s"


def _lines(results: list[Result]) -> Iterator[str]:
    for result in results:
        yield f"{_line(result)}  {result.about}"
        yield from (f"    {each}" for each in result.unexpected[:SHOWN])
        if len(result.unexpected) > SHOWN:
            yield f"    and {len(result.unexpected) - SHOWN} more"
    by_verdict = {verdict: sum(each.verdict is verdict for each in results) for verdict in Verdict}
    yield ", ".join(
        [counted(len(results), "boot")]
        + [f"{count} {verdict.value}" for verdict, count in by_verdict.items() if count]
    )
