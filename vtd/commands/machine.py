"""``vtd machine``: check and show a machine description, and write its DMAR table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.command_group import command_group
from vtd.commands.counted import counted
from vtd.commands.dmar_output import COLOURS, OutputFile, write_output
from vtd.commands.exit_codes import FOUND, UNUSABLE
from vtd.commands.platform_files import PlatformFiles, Registers, read_platform
from vtd.commands.reading import read_pci_tree, read_text, table_beside, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.terminal import styled
from vtd.dmar.rules import Finding, Severity, validate
from vtd.machine.assembly import Assembly, assemble
from vtd.machine.description import read_machine
from vtd.machine.listed import describe_listing
from vtd.machine.reading import MachineError
from vtd.machine.rows import machine_row
from vtd.machine.writing import write_machine
from vtd.unit.options import Options

MachineFile = Annotated[
    str, typer.Argument(metavar="MACHINE.toml", help="A machine description; - is stdin.")
]

app = command_group("Check and show a machine description, and write its DMAR table.")


def load_machine(file: str, options: Options | None = None) -> Assembly:
    """The machine in a file; what is wrong with it ends the command, a line for each thing."""
    with unusable_input(file), machine_errors():
        name = "stdin" if file == "-" else file
        return assemble(read_machine(read_text(file), name), options, file=name)


@contextmanager
def machine_errors() -> Iterator[None]:
    """End the command with exit code 2 and a line for each thing wrong with a description."""
    try:
        yield
    except MachineError as error:
        for line in error.lines:
            typer.echo(f"vtd: {line}", err=True)
        raise typer.Exit(UNUSABLE) from error


@app.command("check")
def check(file: MachineFile, format: Output = Format.TEXT) -> None:
    """Build the machine, and have the rules judge the DMAR table that it gives.

    Exit code 1 for a warning or an error of the rules, 2 for a machine that can't be.
    """
    assembly = load_machine(file)
    findings = validate(assembly.table.pack(), assembly.surroundings)
    rows = [
        {
            "rule": each.rule,
            "severity": str(each.severity),
            "offset": each.offset,
            "message": each.message,
        }
        for each in findings
    ]
    show(CommandAnswer(rows, rows, _finding_lines(assembly, findings)), format)
    if any(each.severity >= Severity.WARNING for each in findings):
        raise typer.Exit(FOUND)


def _finding_lines(assembly: Assembly, findings: list[Finding]) -> Iterator[str]:
    units, functions = (
        counted(len(assembly.units), "unit"),
        counted(len(assembly.functions), "function"),
    )
    size = assembly.table.header.table_length
    yield f"{units}, {functions}, DMAR table of {size} bytes"
    for each in findings:
        yield f"{styled(str(each.severity), COLOURS[each.severity])}: {each.rule}: {each.message}"


@app.command("show")
def show_command(file: MachineFile, format: Output = Format.TEXT) -> None:
    """Show units, functions with their requester ids, and who may reach whom unseen."""
    assembly = load_machine(file)
    document = machine_row(assembly)
    rows = document["functions"]
    show(CommandAnswer(document, rows, _lines(document["units"], rows)), format)


@app.command("table")
def table(file: MachineFile, output: OutputFile) -> None:
    """Write the DMAR table that the firmware of the machine would have."""
    write_output(output, load_machine(file).table.pack())


@app.command("describe")
def describe(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="lspci -xxxx or -vvv as root, a copy of sysfs, JSON, a collection."
        ),
    ],
    output: OutputFile = Path("-"),
    table: Annotated[
        Path | None, typer.Option(help="The DMAR table, if FILE is no collection.")
    ] = None,
    registers: Registers = None,
) -> None:
    """Write the description of a real machine, to be changed and built on.

    What the listing does not show or a description can't say is told on stderr.
    """
    tree = read_pci_tree(file)
    assert tree is not None  # a file was given
    platform = read_platform(PlatformFiles(registers=registers), beside=file)
    known = table_beside(file, table)
    with unusable_input(file):
        listed = describe_listing(tree, known, platform.registers)
    for note in listed.notes:
        typer.echo(f"vtd: {file}: {note}", err=True)
    write_output(output, write_machine(listed.machine).encode())


def _lines(units: list[Mapping[str, object]], rows: list[Mapping[str, object]]) -> Iterator[str]:
    for unit in units:
        yield (
            f"unit at {unit['base']}, {unit['size']} bytes, segment {unit['segment']:04x}, "
            f"{unit['profile'] or 'own capabilities'}: CAP {unit['cap']}, ECAP {unit['ecap']}"
        )
    for row in rows:
        ids = row["requester_ids"]
        assert isinstance(ids, list) and isinstance(row["depth"], int)
        sent = f", arrives as {ids[-1]}" if len(ids) > 1 else ""
        of = row["virtual_function_of"]
        what = f"virtual function of {of}" if of else f"{row['name']} ({row['model']})"
        yield (
            f"{'  ' * row['depth']}{row['function']} {what}{sent}: group {row['group']}, "
            f"unit {row['unit'] or 'none'} ({row['reason']})"
        )
