"""``vtd drive``: operations by chance on a driver of yours, judged by the audit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND, INTERRUPTED
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.fuzz.driver_protocol import driver_maker
from vtd.fuzz.tried_driver import DriverFailure, try_driver
from vtd.unit.registers.capabilities import PROFILES, unit_named


def drive(
    driver: Annotated[
        str,
        typer.Argument(
            help="python:FILE:CLASS, command:COMMAND or library:FILE (C functions); own is the "
            "driver of vtd.software."
        ),
    ],
    profile: Annotated[
        str,
        typer.Option(
            help="The unit: raw:VERSION:CAP:ECAP:HAW, or a profile, "
            f"which is one of {', '.join(PROFILES)}."
        ),
    ] = "xeon",
    seconds: Annotated[float, typer.Option(min=0, help="How long to go on.")] = 30.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many lists of operations, instead of --seconds.")
    ] = None,
    operations: Annotated[int, typer.Option(min=1, help="Operations of each list.")] = 40,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    stores_wait: Annotated[
        bool,
        typer.Option(
            "--stores-wait",
            help="Stores wait in cache lines and write buffers where the unit does not look there "
            "(ECAP.C, SMPWCS, CAP.RWBF).",
        ),
    ] = False,
    format: Output = Format.TEXT,
) -> None:
    """Try a driver: domains, pages, PASIDs, dirty pages, interrupts, and DMAs around them.

    The audit judges, and a failure is shrunk to the operations that it needs. Exit code 0: nothing
    wrong. 1: something wrong. 2: no such driver.
    """
    with unusable_input("--profile"):
        unit = unit_named(profile)
    with unusable_input(driver):
        maker, end = driver_maker(OWN if driver == "own" else driver)
    done, failure, interrupted = 0, None, False
    until = math.inf if count else time.monotonic() + seconds

    def expired() -> bool:
        return time.monotonic() >= until

    try:
        while failure is None and (done < count if count else not expired()):
            failure = try_driver(
                maker, unit, seed + done, operations, expired, stores_wait=stores_wait
            )
            done += failure is not None or not expired()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        end()
    row = None if failure is None else _row(failure)
    document = {"lists": done, "interrupted": interrupted, "failure": row}
    show(CommandAnswer(document, [document], _lines(done, failure)), format)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if failure is not None:
        raise typer.Exit(FOUND)


OWN = "module:vtd.fuzz.own_driver:OwnDriver"


def _row(failure: DriverFailure) -> dict[str, object]:
    return {
        "seed": failure.seed,
        "operations": [str(each) for each in failure.operations],
        "findings": failure.findings,
    }


def _lines(done: int, failure: DriverFailure | None) -> Iterator[str]:
    if failure is None and not done:
        yield "time was up before one list of operations was done: nothing is known"
        return
    if failure is None:
        yield f"{counted(done, 'list')} of operations: nothing wrong"
        return
    yield f"seed {failure.seed}, {len(failure.operations)} operations:"
    for operation in failure.operations:
        yield f"  {operation}"
    yield from failure.findings
