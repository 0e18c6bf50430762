"""The ``vtd`` command: which subcommands there are. Each is a module of :mod:`vtd.commands`.

A subcommand's module is imported when it is used, so that help and shell completion are quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "demo": ("vtd.commands.demo:demo", "One DMA translated, one refused, both explained."),
    "replay": ("vtd.commands.replay:replay", "Replay scenarios and captures; report mismatches."),
    "mappings": ("vtd.commands.mappings:mappings", "List what each device may reach, and where."),
    "walk": ("vtd.commands.walk:walk", "Explain one translation, entry by entry."),
    "explore": (
        "vtd.commands.explore:explore",
        "Browse a capture or a machine, entry by entry, in a window.",
    ),
    "irte": ("vtd.commands.irte:irte", "List the interrupt-remapping table and who may use it."),
    "msi": ("vtd.commands.msi:msi", "Decode an interrupt message and follow it."),
    "caps": ("vtd.commands.caps:caps", "Decode capability registers; several: what differs."),
    "dmar": ("vtd.commands.dmar:app", "Check, show, build, edit and compare DMAR tables."),
    "machine": ("vtd.commands.machine:app", "Check and show a machine description."),
    "passthrough": (
        "vtd.commands.passthrough:app",
        "Judge, run and drill a passthrough plan.",
    ),
    "groups": ("vtd.commands.groups:groups", "Form isolation groups from a listing, with reasons."),
    "collect": ("vtd.commands.collect:collect", "Collect what a Linux machine shows in one file."),
    "explain": ("vtd.commands.explain:explain", "Explain DMAR lines of a kernel log."),
    "fuzz": ("vtd.commands.fuzz:fuzz", "Generated cases against an oracle, QEMU or your own."),
    "drive": ("vtd.commands.drive:drive", "Try a driver of yours: what it owes a unit."),
    "guest": ("vtd.commands.guest:app", "Decode VMCSs and VPDs, check VM entries, explain EPT."),
    "live": ("vtd.commands.live:app", "Boot an operating system on a machine description."),
    "conformance": (
        "vtd.commands.conformance:app",
        "Test the VT-d unit of a virtual machine monitor from inside a guest.",
    ),
    "audit": ("vtd.commands.audit:audit", "Find invalidations that a log misses."),
    "trace": ("vtd.commands.trace:app", "Make, convert and look at DMA traces."),
    "sweep": ("vtd.commands.sweep:app", "A trace through many IOTLB designs: misses, reads."),
    "report": ("vtd.commands.report:report", "Write one HTML file about all that is given."),
    "plot": ("vtd.commands.plot:plot", "Charts of sweeps: SVG, PNG or one HTML file."),
    "lint": ("vtd.commands.lint:lint", "Check structures, writes to them and register accesses."),
}
"""Name, where the function or application is, and the line of help."""
PLAIN: dict[str, Any] = {"rich_markup_mode": None}
"""Help and errors are plain text: it fits every terminal, pastes well, and needs no rich."""
UNREAD = 141
"""Exit code where nobody reads the output any more: that of a program that SIGPIPE ends."""
WRONG_USE = 2
"""Exit code where there is no command to run."""
UNWRITABLE = 2
"""Exit code where the output can't be written."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are run; until then only their help exists."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, line) in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=line)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, imported."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; output that can't be written ends it, quietly if nobody reads it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            _drop_output()
            raise typer.Exit(UNREAD) from error
        except OSError as error:
            where = "output" if error.filename is None else error.filename
            typer.echo(f"vtd: {where}: {error.strerror or error}", err=True)
            if error.filename is None:
                _drop_output()
            raise typer.Exit(UNWRITABLE) from error


def _drop_output() -> None:
    """Have what is still buffered go nowhere, lest the interpreter fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def load_command(name: str) -> Any:
    """The click command of a subcommand."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, **PLAIN)
        found.command(name)(function)
    command = typer.main.get_command(found)
    command.name = name
    return command


main = typer.Typer(
    cls=LazyGroup, invoke_without_command=True, pretty_exceptions_enable=False, **PLAIN
)


def _version(asked: bool) -> None:
    if asked:
        metadata = importlib.import_module("importlib.metadata")
        try:
            typer.echo(f"vtd {metadata.version('vtd-emulator')}")
        except metadata.PackageNotFoundError:
            typer.echo("vtd, not installed")
        raise typer.Exit


@main.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Intel VT-d DMA remapping, as the specification says and on real tables."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(WRONG_USE)


if __name__ == "__main__":
    main()
