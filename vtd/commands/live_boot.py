"""``vtd live boot``: a kernel on a machine, its checks, its fault lines and what the units say."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

import typer

from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND
from vtd.commands.file_names import file_to_write
from vtd.commands.live_guest import (
    BreakOption,
    BusyboxOption,
    QemuOption,
    RecordOption,
    XenOption,
    check_served,
    ended_by_signals,
    make_guest,
    note,
    store,
)
from vtd.commands.machine import machine_errors
from vtd.commands.names import CachesOption, check_name
from vtd.commands.reading import read_bytes, read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.live.boot import Boot, Outcome, run
from vtd.live.cells import CHECKS, DEVICES
from vtd.live.initramfs import known_checks
from vtd.live.judgement import FaultLine, fault_lines, findings
from vtd.live.machine_parts import unit
from vtd.live.xen import STRAY, possible
from vtd.logs.causes import cause_of
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine

DEFAULT_MACHINE = unit() + DEVICES
ALL_CHECKS = ",".join(CHECKS)
SHOWN = 40
"""Fault lines that are listed before the rest is only counted."""
KernelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[KERNEL]",
        help="An image, a folder of unpacked packages, or the beginning of the release of a "
        "fetched one; the newest fetched one if not given.",
    ),
]


def boot(
    kernel: KernelArgument = None,
    modules: Annotated[
        Path | None, typer.Option(help="Folder of its modules, such as /lib/modules/6.1.0.")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="A machine description; a unit, a disk and two edu if not given."),
    ] = None,
    script: Annotated[
        Path | None, typer.Option("--run", help="A script for the guest, after the checks.")
    ] = None,
    checks: Annotated[
        str, typer.Option(help="Checks of the guest by name, with commas between them.")
    ] = ALL_CHECKS,
    append: Annotated[str, typer.Option(help="Words for the kernel's command line.")] = "",
    xen: XenOption = None,
    xen_append: Annotated[str, typer.Option(help="Words for Xen's command line.")] = "",
    cpus: Annotated[int, typer.Option(min=1, max=32, help="Processors.")] = 1,
    remap_interrupts: Annotated[
        bool,
        typer.Option(
            "--remap-interrupts", help="No I/O APIC: it would keep Linux from remapping interrupts."
        ),
    ] = False,
    caches: CachesOption = "aggressive",
    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Run vtd collect in the guest, and put its archives there."
        ),
    ] = None,
    record: RecordOption = None,
    broken: BreakOption = None,
    console: Annotated[
        Path | None,
        typer.Option(help="Write the kernel's console there.", callback=file_to_write),
    ] = None,
    seconds: Annotated[int, typer.Option(min=1, help="End the guest after this time.")] = 1800,
    qemu: QemuOption = None,
    busybox: BusyboxOption = None,
    format: Output = Format.TEXT,
) -> None:
    """Boot Linux on a machine that the engine serves, and judge what happens.

    The guest runs its checks and switches itself off. Each of its lines about a fault stands beside
    what the unit recorded; uses of stale translations are found. Exit code 0: nothing is wrong.
    1: something is. 2: wrong use, or something is missing.
    """
    check_served(caches, broken)
    lines_of_checks = tuple(filter(None, checks.split(",")))
    for line in lines_of_checks:
        check_name(line.partition(" ")[0], known_checks(), "--checks")
    if xen is not None:
        asked, lines_of_checks = lines_of_checks, possible(lines_of_checks)
        for line in asked:
            if line not in lines_of_checks:
                note(f"left out, as Xen has the units: {line}")
        if checks == ALL_CHECKS:
            lines_of_checks += (STRAY,)
    with unusable_input("vtd live boot"):
        guest = make_guest(qemu, store().find_kernel(kernel, modules), busybox, xen)
    with unusable_input(machine or "vtd live boot"), machine_errors():
        description = DEFAULT_MACHINE if machine is None else read_text(machine)
        assemble(read_machine(description, machine or ""), file=machine or "")
        if collect is not None:
            collect.mkdir(parents=True, exist_ok=True)
        if console is not None:
            console.open("a").close()
        wanted = Boot(
            description,
            (*lines_of_checks, *(["collect"] if collect is not None else [])),
            append,
            cpus,
            caches=caches,
            xen_append=xen_append,
            defects=tuple(broken or ()),
            interrupts_remapped=remap_interrupts,
            script=None if script is None else read_bytes(str(script)),
            record=record,
            seconds=seconds,
        )
        with ended_by_signals():
            outcome = run(guest, wanted, time.monotonic_ns, note)
    if collect is not None:
        with unusable_input(str(collect)):
            for name, content in outcome.files.items():
                (collect / PurePath(name).name).write_bytes(content)
    if console is not None:
        with unusable_input(str(console)):
            console.write_text(outcome.console)
    found = list(findings(outcome))
    lines = list(fault_lines(outcome))
    row = _row(guest.release, outcome, lines, found)
    show(CommandAnswer(row, [row], _lines(outcome, lines, found)), format)
    if found:
        raise typer.Exit(FOUND)


def _row(
    release: str, outcome: Outcome, lines: list[FaultLine], found: list[str]
) -> Mapping[str, Any]:
    return {
        "kernel": release,
        "checks": [each._asdict() for each in outcome.verdicts],
        "notes": outcome.notes,
        "faults": [
            {"line": line, "recorded": recorded is not None, "reason": recorded and recorded.reason}
            for line, recorded in lines
        ],
        "audited": outcome.audited,
        "window": outcome.window,
        "uses": outcome.uses,
        **outcome.counts,
        "found": found,
    }


def _lines(outcome: Outcome, lines: list[FaultLine], found: list[str]) -> Iterator[str]:
    yield from _fault_lines(lines)
    for each in found:
        yield f"FOUND {each}"
    states = [each.state for each in outcome.verdicts]
    yield (
        f"{counted(states.count('ok'), 'check')} passed, {states.count('FAILED')} failed, "
        f"{states.count('skipped')} skipped"
    )
    for verdict in outcome.verdicts:
        if verdict.state == "skipped":
            yield f"  skipped: {verdict.name}: {verdict.why}"
    blocked = counted(
        outcome.counts.get("faults", 0), "request or interrupt", "requests or interrupts"
    )
    yield f"{blocked} blocked, the kernel printed {len(lines)} of them"
    audited = counted(len(outcome.audited), "finding")
    uses = counted(outcome.uses, "use")
    yield f"{uses} of cached entries checked, {audited}, {outcome.window} in the window"
    yield f"{counted(len(found), 'finding')}"


def _fault_lines(lines: list[FaultLine]) -> Iterator[str]:
    """Each line of the kernel, beside what the unit recorded and what its reason means."""
    for line, recorded in lines[:SHOWN]:
        yield line
        if recorded is None:
            yield "  the unit recorded nothing like it"
            continue
        cause = cause_of(recorded.reason, None)
        text = cause.reason.text if cause else "not assigned by the specification"
        yield f"  the unit recorded {recorded.reason:02X}h: {text}"
    if len(lines) > SHOWN:
        yield f"and {len(lines) - SHOWN} more lines about faults"
