"""Options declared as fields of a dataclass: the command line sees options, the command a value."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vtd.commands.option_groups import with_option_groups


@dataclass(frozen=True)
class Where:
    port: Annotated[int, typer.Option(help="Where to listen.")] = 7
    quiet: Annotated[bool, typer.Option("--quiet")] = False


@dataclass(frozen=True)
class Incomplete:
    port: int


@with_option_groups
def listen(name: str, *, where: Where, loud: bool = False) -> None:
    """Listen somewhere."""
    typer.echo(f"{name} {where} {loud}")


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(listen)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_fields_are_options_in_the_place_of_the_group() -> None:
    assert list(inspect.signature(listen).parameters) == ["name", "port", "quiet", "loud"]
    assert "Where to listen." in run("--help")


def test_the_command_gets_the_value() -> None:
    assert run("x") == "x Where(port=7, quiet=False) False\n"
    assert run("x", "--port", "9", "--quiet", "--loud") == "x Where(port=9, quiet=True) True\n"


def test_an_option_without_a_default_is_a_mistake() -> None:
    def command(*, where: Incomplete) -> None:
        raise AssertionError(where)

    with pytest.raises(TypeError, match=r"Incomplete\.port: an option needs a default"):
        with_option_groups(command)
