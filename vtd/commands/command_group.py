"""Commands that consist of commands, such as ``vtd dmar``."""

from __future__ import annotations

import typer

from vtd.commands.exit_codes import UNUSABLE


def command_group(about: str) -> typer.Typer:
    """A group of commands; without one of them it shows its help, and is wrong use."""
    app = typer.Typer(
        help=about, invoke_without_command=True, rich_markup_mode=None, add_completion=False
    )

    @app.callback()
    def group(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit(UNUSABLE)

    return app
