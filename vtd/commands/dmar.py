"""``vtd dmar``: check, show, build, edit and compare DMAR tables, and ask who owns a device."""

from __future__ import annotations

import typer

from vtd.commands.dmar_answers import audit_command, rmrr_command, scope_command
from vtd.commands.dmar_edit import edit_command
from vtd.commands.dmar_tables import build_command, diff_command, export_command, show_command
from vtd.commands.dmar_validate import rules_command, validate_command
from vtd.commands.reading import UNUSABLE

app = typer.Typer(
    help="Check, show, build, edit and compare DMAR tables, and ask who owns a device.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def dmar(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(UNUSABLE)


for name, command in (
    ("validate", validate_command),
    ("rules", rules_command),
    ("show", show_command),
    ("build", build_command),
    ("export", export_command),
    ("edit", edit_command),
    ("diff", diff_command),
    ("scope", scope_command),
    ("rmrr", rmrr_command),
    ("audit", audit_command),
):
    app.command(name)(command)
