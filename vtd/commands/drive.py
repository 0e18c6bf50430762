"""``vtd drive``: operations by chance on a driver of yours, judged by the audit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.fuzz.driver_protocol import driver_maker
from vtd.fuzz.tried_driver import DriverFailure, try_driver
from vtd.unit.registers.capabilities import PROFILES

FOUND = 1
"""Exit code when the driver did something wrong."""


def drive(
    driver: Annotated[
        str,
        typer.Argument(
            help="python:FILE:CLASS or command:COMMAND; own is the driver of vtd.software."
        ),
    ],
    profile: Annotated[
        str, typer.Option(help=f"Capabilities of the unit: {', '.join(PROFILES)}.")
    ] = "xeon",
    seconds: Annotated[float, typer.Option(min=0, help="How long to go on.")] = 30.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many lists of operations, instead of --seconds.")
    ] = None,
    operations: Annotated[int, typer.Option(min=1, help="Operations of each list.")] = 40,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    format: Output = Format.TEXT,
) -> None:
    """Try a driver: attach, map, unmap, protect, detach, interrupts, and DMAs around them.

    The audit judges, and a failure is shrunk to the operations that it needs. Exit code 0: nothing
    wrong. 1: something wrong. 2: no such driver.
    """
    if profile not in PROFILES:
        raise typer.BadParameter(f"{profile!r}: none of {', '.join(PROFILES)}")
    with unusable_input(driver):
        maker, end = driver_maker(OWN if driver == "own" else driver)
    done, failure = 0, None
    until = time.monotonic() + seconds
    try:
        while failure is None and (done < count if count else time.monotonic() < until):
            failure = try_driver(maker, PROFILES[profile], seed + done, operations)
            done += 1
    finally:
        end()
    document = {"lists": done, "failure": None if failure is None else _row(failure)}
    show(CommandAnswer(document, [document], _lines(done, failure)), format)
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
    if failure is None:
        yield f"{counted(done, 'list')} of operations: nothing wrong"
        return
    yield f"seed {failure.seed}, {len(failure.operations)} operations:"
    for operation in failure.operations:
        yield f"  {operation}"
    yield from failure.findings
