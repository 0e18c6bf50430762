"""``vtd dmar show``, ``build``, ``export`` and ``diff``: what a table says, and in which forms."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.dmar_output import OutputFile, write_output
from vtd.commands.exit_codes import FOUND
from vtd.commands.reading import (
    NO_DMAR_TABLE,
    TableFile,
    read_table,
    read_tables,
    read_text,
    tell_doubts,
    unusable_input,
)
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.picture import SvgFile, show_or_draw
from vtd.commands.rendering.terminal import Verbatim
from vtd.dmar.decoded import decoded
from vtd.dmar.description import build as build_table
from vtd.dmar.description import describe
from vtd.dmar.diff import diff as diff_tables
from vtd.dmar.rules import validate
from vtd.dmar.source import write_source
from vtd.dmar.table import Table
from vtd.dmar.table_picture import table_svg


class TextForm(StrEnum):
    """Texts that a table can be written as."""

    TOML = "toml"
    DSL = "dsl"
    OLD_DSL = "old-dsl"


def show_command(
    file: TableFile,
    offsets: Annotated[
        bool, typer.Option("--offsets", help="Every field with its offset, length and bytes.")
    ] = False,
    svg: SvgFile = None,
    format: Output = Format.TEXT,
) -> None:
    """Show what a table says; drawn, also what the rules find in it.

    Of several tables each is drawn into a file of its own, the second into table-2.svg.
    """
    from vtd.commands.show import offset_lines, tree_lines  # noqa: PLC0415 - rich is slow to import

    tables = read_tables(file)
    if str(svg) == "-" and len(tables) > 1:
        raise typer.BadParameter(f"{len(tables)} tables need a file each", param_hint="--svg")
    for number, given in enumerate(tables, 1):
        name = given.name
        with unusable_input(name):
            table = Table.parse(given.data)
        tell_doubts(given, {NO_DMAR_TABLE})
        row = {"file": name, "decoded": decoded(table)}
        lines = offset_lines(table) if offsets else tree_lines(table, name)
        answer = CommandAnswer(row, [row], map(Verbatim, lines))
        picture = svg
        if svg is not None and number > 1:
            picture = svg.with_stem(f"{svg.stem}-{number}")
        show_or_draw(answer, format, picture, partial(table_svg, table, validate(given.data), name))


def build_command(
    specification: Annotated[
        str, typer.Argument(metavar="SPEC.toml", help="As export writes it; - is stdin.")
    ],
    output: OutputFile,
) -> None:
    """Build a table from a TOML description; Length and Checksum are computed."""
    with unusable_input(specification):
        text = read_text(specification)
        if not text.strip():
            raise ValueError("empty")
        data = build_table(text).pack()
    write_output(output, data)


def export_command(
    file: TableFile,
    output: OutputFile = Path("-"),
    form: Annotated[
        TextForm,
        typer.Option(help="TOML for build; source for iasl -z, or for iasl before 2023: old-dsl."),
    ] = TextForm.TOML,
) -> None:
    """Write a table as text that becomes the same bytes again, by build or by iasl."""
    table = read_table(file)
    if form is TextForm.TOML:
        write_output(output, describe(table).encode())
        return
    with unusable_input(file):
        text, left_out = write_source(table, older=form is TextForm.OLD_DSL)
    for each in left_out:
        typer.echo(f"vtd: {file}: not in the source: {each}", err=True)
    write_output(output, text.encode())


def diff_command(
    before: TableFile,
    after: TableFile,
    format: Output = Format.TEXT,
) -> None:
    """Compare two tables by meaning: units, regions, scopes. Exit code 1 if they differ."""
    changes = diff_tables(read_table(before), read_table(after))
    rows = [change._asdict() for change in changes]
    show(CommandAnswer(rows, rows, map(str, changes)), format)
    if changes:
        raise typer.Exit(FOUND)
