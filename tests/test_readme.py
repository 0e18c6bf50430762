"""What README shows is what happens: its Python runs, its commands print what it says."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtd.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


GUESTS = (ROOT / "docs" / "guests.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "code",
    [*blocks("python"), *blocks("python", GUESTS)],
    ids=lambda code: code.split("\n")[-2][:40],
)
def test_the_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "session",
    [part for block in blocks("console") for part in re.split(r"^\$ ", block, flags=re.M)[1:]],
    ids=lambda session: session.split("\n")[0],
)
def test_the_commands_print_what_is_shown(
    session: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command, *shown = session.splitlines()
    name, *arguments = shlex.split(command)
    if name == "vtd":
        printed = CliRunner().invoke(main, arguments).stdout.splitlines()
    else:
        assert name == "python"
        (script,) = arguments
        runpy.run_path(script, run_name="__main__")
        printed = capsys.readouterr().out.splitlines()
    if "..." in shown:
        cut = shown.index("...")
        assert printed[:cut] == shown[:cut]
        shown = shown[cut + 1 :]
        printed = printed[-len(shown) :]
    assert printed == shown


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_every_command_is_mentioned() -> None:
    for name in COMMANDS:
        assert f"vtd {name}" in README


def test_no_advice_installs_by_name_what_others_may_have_registered() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    sources = [path for name in ("vtd", "pagetables") for path in (ROOT / name).rglob("*.py")]
    told = [path for path in pages + sources if "install '.[" in path.read_text()]
    assert {path.name for path in told} >= {"README.md", "fuzzing.md", "extras.py", "images.py"}
    for path in pages + sources:
        assert not re.search(r"install\s+(-\S+\s+)*['\"`]?vtd", path.read_text()), path
