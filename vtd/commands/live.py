"""``vtd live``: an operating system on the units and devices of a machine description."""

from __future__ import annotations

import gzip
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.command_group import command_group
from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND, UNUSABLE
from vtd.commands.live_boot import boot
from vtd.commands.live_fetch import fetch
from vtd.commands.live_guest import (
    BreakOption,
    RecordOption,
    check_served,
    ended_by_signals,
    note,
)
from vtd.commands.live_matrix import matrix
from vtd.commands.machine import MachineFile, load_machine
from vtd.commands.names import CachesOption
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.progress import StatusLine
from vtd.commands.rendering.terminal import Verbatim
from vtd.live.blame import Blame, LiveAudit
from vtd.live.defects import plant
from vtd.live.machine import LiveMachine
from vtd.live.qemu_arguments import qemu_arguments
from vtd.live.server import Server
from vtd.live.trace import Trace
from vtd.machine.assembly import Assembly
from vtd.recordings.live_recorder import LiveRecorder
from vtd.unit.caching.policy import POLICIES
from vtd.unit.options import Options

TABLE = "dmar.bin"
"""The file beside the sockets with the DMAR table."""
_SIZE = re.compile(r"[1-9][0-9]*[MGT]")
"""Memory with its unit: without one, QEMU's options don't agree on what is meant."""
SHOWN_EVERY = 0.5
"""Seconds between two looks at the counters."""

app = command_group("Boot an operating system on the units and devices of a machine description.")


app.command("boot")(boot)
app.command("matrix")(matrix)
app.command("fetch")(fetch)


@app.command("serve")
def serve(
    file: MachineFile,
    sockets: Annotated[
        Path | None,
        typer.Option(help="Folder for the sockets; a new private one if not given."),
    ] = None,
    seen_as: Annotated[
        Path | None,
        typer.Option(help="Where QEMU sees that folder, if it is started with another root."),
    ] = None,
    caches: CachesOption = "default",
    audit: Annotated[
        bool, typer.Option("--audit", help="Find invalidations that software owed.")
    ] = False,
    record: RecordOption = None,
    broken: BreakOption = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print every step to stderr.")] = False,
    eventfds: Annotated[
        bool,
        typer.Option("--eventfds", help="Leave MSI and MSI-X to QEMU: they are not remapped."),
    ] = False,
    memory: Annotated[str, typer.Option(help="Memory of the guest, such as 512M.")] = "1G",
    format: Output = Format.TEXT,
) -> None:
    """Serve a machine to QEMU, until it ends, and print the arguments that QEMU needs.

    Exit code 0: QEMU has come and gone. 1: --audit found something. 2: wrong use, or QEMU left
    before it had connected every function, or was killed: the guest had not switched off its units.
    """
    check_served(caches, broken)
    if not _SIZE.fullmatch(memory):
        said = f"{memory!r}: no size, such as 512M or 2G"
        raise typer.BadParameter(said, param_hint="--memory")
    assembly = load_machine(file, Options(caches=POLICIES[caches]))
    with ExitStack() as stack, unusable_input(file):
        stack.enter_context(ended_by_signals())
        machine = LiveMachine(assembly.platform, assembly.clock, eventfds=eventfds, note=note)
        units = list(machine.platform.units.values())
        plant(broken or (), units)
        if record is not None:
            with unusable_input(str(record)):
                lines = stack.enter_context(gzip.open(record, "wt", encoding="utf-8"))
            _record(assembly, machine, lines.write)
        if trace:
            for base, unit in machine.platform.units.items():
                Trace(f"unit {base:#x}", unit, note)
        live_audit = LiveAudit(units if audit else [], lambda: "a device")
        folder = sockets or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vtd-")))
        server = _open(machine, folder, assembly.table.pack(), stack)
        where = seen_as or folder
        arguments = qemu_arguments(
            machine, where / TABLE, lambda each: where / server.path(each).name, memory=memory
        )
        row, problem = {"qemu": arguments}, None
        with suppress(KeyboardInterrupt):
            command = [Verbatim(shlex.join(arguments))]
            show(CommandAnswer(row, [row], command, compact=True), format)
            problem = _run(server, machine, counters=not trace)
        counts, blame = machine.counts(), live_audit.blame()
        summary = {**counts, "findings": blame.found}
        lines_at_end = _lines(counts, blame) if audit else [", ".join(_counted(counts))]
        show(CommandAnswer(summary, [summary], lines_at_end, compact=True), format)
    if problem:
        typer.echo(f"vtd live serve: {problem}", err=True)
        raise typer.Exit(UNUSABLE)
    if blame.found:
        raise typer.Exit(FOUND)


def _open(machine: LiveMachine, folder: Path, table: bytes, stack: ExitStack) -> Server:
    """The sockets, and the DMAR table beside them, until the stack is closed."""
    with unusable_input(str(folder)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = Server(machine, folder, time.monotonic_ns)
    stack.callback(server.close)
    file = folder / TABLE
    file.write_bytes(table)
    stack.callback(file.unlink, missing_ok=True)
    return server


def _record(assembly: Assembly, machine: LiveMachine, write: Callable[[str], object]) -> None:
    """Record the units, and say so if a replay will not find all that happened."""
    units = [assembly.platform.units[each.register_base] for each in assembly.table.units]
    about = {"devices": machine.described(), "bridges": machine.bridges()}
    LiveRecorder(write, assembly.table, units, **about)
    if any(each.served.function.client is not None for each in machine.endpoints):
        note("the recording leaves out what device-TLBs ask and are told: a replay will differ")


def _run(server: Server, machine: LiveMachine, *, counters: bool) -> str | None:
    """Serve until QEMU has gone; what was wrong with how it went.

    ``counters``: they are shown on a terminal, where no lines of a trace are.
    """
    expected, complete, shown = len(machine.endpoints), False, 0.0
    with StatusLine() as status:
        visible = counters and status.visible
        while True:
            connected = len(server.clients)
            server.serve(SHOWN_EVERY if visible else None)
            complete = complete or len(server.clients) == expected
            if connected and not server.clients:
                return _end(machine, complete=complete)
            if visible and time.monotonic() - shown > SHOWN_EVERY:
                shown = time.monotonic()
                status.show(", ".join(_counted(machine.counts())))


def _end(machine: LiveMachine, *, complete: bool) -> str | None:
    if not complete:
        return "QEMU left before it had connected every function"
    on = ", ".join(f"{base:#x}" for base in machine.left_on())
    return f"QEMU was killed, or its guest was not shut down: unit {on} is on" if on else None


def _counted(counts: Mapping[str, int]) -> Iterator[str]:
    names = {"exits": "exit", "requests": "request", "hits": "hit", "faults": "fault"}
    names |= {"interrupts": "interrupt", "lost": "lost interrupt"}
    return (counted(counts[key], name) for key, name in names.items())


def _lines(counts: Mapping[str, int], blame: Blame) -> Iterator[str]:
    yield from blame.found
    yield ", ".join(_counted(counts))
    uses, findings = counted(blame.uses, "use"), counted(len(blame.found), "finding")
    yield f"{uses} of cached entries checked, {findings}, {blame.window} in the window"
